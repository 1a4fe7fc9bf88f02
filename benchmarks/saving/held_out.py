"""The candidates on which nothing was tuned."""

# fmt: off
from __future__ import annotations

from benchmarks.saving.accidents import Accident
from benchmarks.saving.patients import Patient, jolted, numbered, of_zoo, oversized, struck
from benchmarks.zoo.held_out import HELD_OUT as ZOO

SGD = {"optimizer": "sgd"}
MOMENTUM = {"optimizer": "sgd", "momentum": 0.9}

BATCHES: tuple[Patient, ...] = (
    struck("nan-sgd", "batch: NaN", Accident("nan", 77), "blobs3", **SGD, lr=0.1),
    struck("nan-momentum", "batch: NaN", Accident("nan", 333), "friedman", **MOMENTUM, lr=0.01,
           steps=700),
    struck("nan-adam", "batch: NaN", Accident("nan", 20, 7, 35), "digits", lr=0.002, depth=4),
    struck("nan-lstm", "batch: NaN", Accident("nan", 111, 3), "waves24", arch="rnn", cell="lstm",
           depth=1, lr=0.01),
    struck("nan-scaler", "batch: NaN", Accident("nan", 140, 2, 50), "digits", precision="fp16",
           lr=0.002),
    struck("nan-batchnorm", "batch: NaN", Accident("nan", 130), "bars", arch="cnn", width=12,
           norm="batch", lr=0.005, steps=200),
    struck("huge-sgd", "batch: x 1e6", Accident("huge", 90), "spirals3", **SGD, lr=0.2,
           activation="gelu"),
    struck("huge-momentum", "batch: x 1e6", Accident("huge", 210), "digits", **MOMENTUM, lr=0.01,
           steps=500),
    struck("huge-momentum-regression", "batch: x 1e6", Accident("huge", 70), "smooth8",
           **MOMENTUM, lr=0.02, activation="leaky"),
    struck("huge-adam", "batch: x 1e6", Accident("huge", 6), "blobs10", lr=0.001, width=48),
    struck("huge-adam-autoencoder", "batch: x 1e6", Accident("huge", 10), "manifold24",
           arch="autoencoder", depth=2, lr=0.003),
    struck("huge-adam-often", "batch: x 1e6", Accident("huge", 25, 5, 25), "smooth", lr=0.005),
    struck("huge-scaler", "batch: x 1e6", Accident("huge", 50), "blobs3", precision="fp16",
           **SGD, lr=0.1),
    struck("huge-rmsprop", "batch: x 1e6", Accident("huge", 30), "friedman", optimizer="rmsprop",
           lr=0.003),
    struck("targets-sgd", "batch: targets x 1e6", Accident("huge targets", 160), "smooth", **SGD,
           lr=0.1, steps=500, activation="tanh"),
    struck("targets-adam", "batch: targets x 1e6", Accident("huge targets", 5), "adding8",
           arch="rnn", cell="gru", depth=1, lr=0.01),
    struck("targets-momentum", "batch: targets x 1e6", Accident("huge targets", 80), "smooth8",
           **MOMENTUM, lr=0.02),
    struck("labels-sgd", "batch: wrong labels", Accident("wrong labels", 130, 6), "digits", **SGD,
           lr=1.0, depth=4),
    struck("labels-momentum", "batch: wrong labels", Accident("wrong labels", 90, 10), "blobs10",
           **MOMENTUM, lr=0.2, activation="leaky"),
    struck("labels-adam", "batch: wrong labels", Accident("wrong labels", 100, 10), "digits",
           lr=0.03, depth=5),
    struck("labels-regression", "batch: wrong labels", Accident("wrong labels", 140, 8), "smooth",
           **MOMENTUM, lr=0.05),
)

JOLTS: tuple[Patient, ...] = (
    jolted("jolt-sgd", "lr spike", "jolt", "blobs10", **SGD, lr=0.2),
    jolted("jolt-momentum", "lr spike", "jolt", "digits", **MOMENTUM, lr=0.02, activation="gelu"),
    jolted("jolt-adam", "lr spike", "jolt", "digits", lr=0.003, depth=5),
    jolted("jolt-adam-long", "lr spike", "jolt", "friedman", lr=0.005, steps=800),
    jolted("jolt-gru", "lr spike", "jolt", "waves24", arch="rnn", cell="gru", depth=1, lr=0.01),
    jolted("kick-sgd", "lr spike", "kick", "friedman", **SGD, lr=0.05, activation="leaky"),
    jolted("kick-momentum", "lr spike", "kick", "smooth8", **MOMENTUM, lr=0.02),
    jolted("kick-adam", "lr spike", "kick", "blobs", lr=0.002, depth=4),
    jolted("kick-scaler", "lr spike", "kick", "digits", precision="fp16", lr=0.002),
    jolted("kick-cnn", "lr spike", "kick", "images", arch="cnn", depth=4, width=10, norm="batch",
           lr=0.005, steps=200),
    jolted("burst-momentum", "lr spike", "burst", "blobs10", **MOMENTUM, lr=0.02),
    jolted("burst2-sgd", "lr spike", "burst2", "digits", **SGD, lr=0.1, activation="elu"),
)

INITS: tuple[Patient, ...] = (
    oversized("init-sgd", 2.2, "blobs10", **SGD, lr=0.1, depth=5),
    oversized("init-momentum", 2.0, "friedman", **MOMENTUM, lr=0.01, depth=5),
    oversized("init-adam", 3.0, "digits", lr=0.002, depth=5),
    oversized("init-scaler", 1.8, "digits", **SGD, lr=0.1, depth=6, precision="fp16"),
    oversized("init-gelu", 2.0, "smooth", **SGD, lr=0.05, activation="gelu", depth=5),
)

#: Accidents that a sound run gets over.
MINOR: tuple[Patient, ...] = (
    struck("one-wrong-batch", "gets over it", Accident("wrong labels", 100), "blobs10", **SGD,
           lr=0.1),
    struck("wrong-batches", "gets over it", Accident("wrong labels", 30, 6, 30), "digits",
           lr=0.002),
    struck("nan-under-scaler", "gets over it", Accident("nan", 60, 3, 20), "friedman",
           precision="fp16", lr=0.003),
)

HELD_OUT = (*of_zoo(ZOO), *numbered("rh", 1100, (*BATCHES, *JOLTS, *INITS, *MINOR)))
