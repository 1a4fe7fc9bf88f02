"""The candidates on which policies may be tuned."""

# fmt: off
from __future__ import annotations

from benchmarks.saving.accidents import Accident
from benchmarks.saving.patients import Patient, jolted, numbered, of_zoo, oversized, struck
from benchmarks.zoo.tuning import TUNING as ZOO

SGD = {"optimizer": "sgd"}
MOMENTUM = {"optimizer": "sgd", "momentum": 0.9}

BATCHES: tuple[Patient, ...] = (
    struck("nan-sgd", "batch: NaN", Accident("nan", 200), "digits", **SGD, lr=0.05, steps=600),
    struck("nan-momentum", "batch: NaN", Accident("nan", 30), "smooth", **MOMENTUM, lr=0.02),
    struck("nan-adam", "batch: NaN", Accident("nan", 90, 4, 60), "friedman", lr=0.005),
    struck("nan-adam-row", "batch: NaN", Accident("nan", 150, 6), "bars", arch="cnn", width=10,
           lr=0.005),
    struck("nan-scaler", "batch: NaN", Accident("nan", 120), "blobs10", precision="fp16"),
    struck("huge-sgd", "batch: x 1e6", Accident("huge", 150), "digits", **SGD, lr=0.05),
    struck("huge-momentum", "batch: x 1e6", Accident("huge", 60), "blobs10", **MOMENTUM, lr=0.02),
    struck("huge-regression", "batch: x 1e6", Accident("huge", 200), "smooth", **SGD, lr=0.05,
           steps=600),
    struck("huge-adam-early", "batch: x 1e6", Accident("huge", 3), "digits", lr=0.001),
    struck("huge-adam-late", "batch: x 1e6", Accident("huge", 40, 3, 30), "friedman", lr=0.003),
    struck("huge-adam-tanh", "batch: x 1e6", Accident("huge", 8), "spirals", activation="tanh",
           lr=0.01),
    struck("huge-scaler", "batch: x 1e6", Accident("huge", 60), "blobs", precision="fp16"),
    struck("huge-gru", "batch: x 1e6", Accident("huge", 50), "waves", arch="rnn", cell="gru",
           depth=1, lr=0.01),
    struck("targets-sgd", "batch: targets x 1e6", Accident("huge targets", 100), "friedman",
           **SGD, lr=0.05),
    struck("targets-adam", "batch: targets x 1e6", Accident("huge targets", 12), "smooth8",
           lr=0.003),
    struck("targets-momentum", "batch: targets x 1e6", Accident("huge targets", 40), "manifold",
           arch="autoencoder", depth=2, **MOMENTUM, lr=0.05),
    struck("labels-sgd", "batch: wrong labels", Accident("wrong labels", 100, 5), "blobs10",
           **SGD, lr=1.0),
    struck("labels-momentum", "batch: wrong labels", Accident("wrong labels", 120, 8), "digits",
           **MOMENTUM, lr=0.1),
    struck("labels-adam", "batch: wrong labels", Accident("wrong labels", 150, 10), "blobs10",
           lr=0.02, depth=5),
    struck("labels-regression", "batch: wrong labels", Accident("wrong labels", 100, 12),
           "friedman", **MOMENTUM, lr=0.05, activation="tanh"),
    struck("labels-once", "batch: wrong labels", Accident("wrong labels", 150), "blobs", lr=0.003),
)

JOLTS: tuple[Patient, ...] = (
    jolted("jolt-sgd", "lr spike", "jolt", "digits", **SGD, lr=0.1),
    jolted("jolt-momentum", "lr spike", "jolt", "friedman", **MOMENTUM, lr=0.02),
    jolted("jolt-adam", "lr spike", "jolt", "blobs10", lr=0.003),
    jolted("jolt-adam-regression", "lr spike", "jolt", "smooth", lr=0.005),
    jolted("jolt-long", "lr spike", "jolt", "smooth", **SGD, lr=0.05, steps=900),
    jolted("kick-sgd", "lr spike", "kick", "smooth", **SGD, lr=0.05),
    jolted("kick-momentum", "lr spike", "kick", "blobs10", **MOMENTUM, lr=0.02),
    jolted("kick-adam", "lr spike", "kick", "digits", lr=0.002),
    jolted("kick-scaler", "lr spike", "kick", "blobs", precision="fp16", lr=0.003),
    jolted("kick-transformer", "lr spike", "kick", "text", arch="transformer", norm="pre",
           depth=2, lr=0.003, steps=250),
    jolted("burst-sgd", "lr spike", "burst", "friedman", **SGD, lr=0.05, activation="tanh"),
)

INITS: tuple[Patient, ...] = (
    oversized("init-sgd", 2.0, "digits", **SGD, lr=0.1, depth=5),
    oversized("init-momentum", 1.8, "smooth", **MOMENTUM, lr=0.02, depth=5),
    oversized("init-adam", 2.5, "blobs10", lr=0.003, depth=6),
    oversized("init-scaler", 2.0, "blobs", **SGD, lr=0.1, depth=5, precision="fp16"),
    oversized("init-leaky", 2.2, "friedman", **SGD, lr=0.02, activation="leaky", depth=5),
)

#: Accidents that a sound run gets over.
MINOR: tuple[Patient, ...] = (
    struck("one-wrong-batch", "gets over it", Accident("wrong labels", 60), "digits"),
    struck("wrong-batches", "gets over it", Accident("wrong labels", 50, 5, 40), "smooth",
           **MOMENTUM, lr=0.01),
    struck("nan-under-scaler", "gets over it", Accident("nan", 100, 2), "digits",
           precision="fp16", **SGD, lr=0.05),
)

TUNING = (*of_zoo(ZOO), *numbered("rt", 1000, (*BATCHES, *JOLTS, *INITS, *MINOR)))
