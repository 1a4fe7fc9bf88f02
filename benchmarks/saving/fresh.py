"""The candidates that were never used for the actions before these were frozen: scored once.

The acute and the healthy cases of the zoo's fresh split, and accidents of kinds, sizes, models and
optimizers that the other two halves do not have.
"""

# fmt: off
from __future__ import annotations

from benchmarks.saving.accidents import Accident
from benchmarks.saving.patients import Patient, jolted, numbered, of_zoo, oversized, struck
from benchmarks.zoo.fresh import FRESH as ZOO

SGD = {"optimizer": "sgd"}
MOMENTUM = {"optimizer": "sgd", "momentum": 0.9}
NESTEROV = {"optimizer": "nesterov", "momentum": 0.9}
ADAMW = {"optimizer": "adamw", "weight_decay": 0.02}
GRU = {"arch": "rnn", "cell": "gru", "depth": 1}
LSTM = {"arch": "rnn", "cell": "lstm", "depth": 1}

BATCHES: tuple[Patient, ...] = (
    struck("nan-nesterov", "batch: NaN", Accident("nan", 45), "moons", **NESTEROV, lr=0.02,
           width=24),
    struck("nan-adamw", "batch: NaN", Accident("nan", 60, 4, 55), "wine", **ADAMW, lr=0.002,
           depth=2, batch=16),
    struck("nan-nadam", "batch: NaN", Accident("nan", 180, 2), "blobs5", optimizer="nadam",
           lr=0.002, activation="silu"),
    struck("nan-adagrad", "batch: NaN", Accident("nan", 12), "smooth6", optimizer="adagrad",
           lr=0.05),
    struck("nan-gru", "batch: NaN", Accident("nan", 160, 5, 11), "waves", **GRU, lr=0.01),
    struck("nan-cnn", "batch: NaN", Accident("nan", 3), "bars", arch="cnn", width=14,
           norm="batch", **MOMENTUM, lr=0.02, steps=200),
    struck("nan-autoencoder", "batch: NaN", Accident("nan", 70, 4), "manifold12",
           arch="autoencoder", depth=2, lr=0.004),
    struck("nan-scaler-sgd", "batch: NaN", Accident("nan", 95, 3, 40), "cancer", precision="fp16",
           **SGD, lr=0.05, depth=2),
    struck("large-sgd", "batch: x 1e3", Accident("large", 110), "cancer", **SGD, lr=0.05, depth=4),
    struck("large-momentum", "batch: x 1e3", Accident("large", 55, 3, 70), "arm", **MOMENTUM,
           lr=0.01),
    struck("large-adam", "batch: x 1e3", Accident("large", 15), "spirals4", lr=0.01, width=40,
           activation="silu"),
    struck("vast-sgd", "batch: x 1e9", Accident("vast", 130), "blobs5", **SGD, lr=0.1,
           activation="leaky"),
    struck("vast-nesterov", "batch: x 1e9", Accident("vast", 35), "smooth6", **NESTEROV, lr=0.01),
    struck("vast-adamw", "batch: x 1e9", Accident("vast", 7), "digits", **ADAMW, lr=0.002, depth=4),
    struck("huge-adamax", "batch: x 1e6", Accident("huge", 9), "cancer", optimizer="adamax",
           lr=0.005),
    struck("huge-rmsprop", "batch: x 1e6", Accident("huge", 18, 2, 90), "arm", optimizer="rmsprop",
           lr=0.002),
    struck("huge-autoencoder", "batch: x 1e6", Accident("huge", 140), "manifold12",
           arch="autoencoder", depth=3, **MOMENTUM, lr=0.05),
    struck("huge-scaler", "batch: x 1e6", Accident("huge", 75), "wine", precision="fp16",
           **MOMENTUM, lr=0.01, depth=2, batch=16),
    struck("huge-resnet", "batch: x 1e6", Accident("huge", 85), "friedman", **SGD, lr=0.03,
           residual="add", depth=5),
    struck("targets-nesterov", "batch: targets x 1e6", Accident("huge targets", 66), "arm",
           **NESTEROV, lr=0.01, activation="gelu"),
    struck("targets-adamw", "batch: targets x 1e6", Accident("huge targets", 20), "smooth6",
           **ADAMW, lr=0.004),
    struck("targets-lstm", "batch: targets x 1e6", Accident("huge targets", 50), "adding10",
           **LSTM, lr=0.01),
    struck("labels-sgd", "batch: wrong labels", Accident("wrong labels", 110, 9), "blobs5", **SGD,
           lr=0.8),
    struck("labels-momentum", "batch: wrong labels", Accident("wrong labels", 140, 12), "moons",
           **MOMENTUM, lr=0.3),
    struck("labels-adam", "batch: wrong labels", Accident("wrong labels", 120, 10), "cancer",
           lr=0.03, depth=4),
    struck("labels-regression", "batch: wrong labels", Accident("wrong labels", 90, 10), "arm",
           **MOMENTUM, lr=0.05),
)

JOLTS: tuple[Patient, ...] = (
    jolted("jolt-nesterov", "lr spike", "jolt", "arm", **NESTEROV, lr=0.01),
    jolted("jolt-sgd", "lr spike", "jolt", "blobs5", **SGD, lr=0.3, activation="elu"),
    jolted("jolt-adamw", "lr spike", "jolt", "smooth6", **ADAMW, lr=0.004),
    jolted("jolt-rmsprop", "lr spike", "jolt", "cancer", optimizer="rmsprop", lr=0.002),
    jolted("jolt-long", "lr spike", "jolt", "digits", **MOMENTUM, lr=0.02, steps=700),
    jolted("kick-nesterov", "lr spike", "kick", "blobs5", **NESTEROV, lr=0.02),
    jolted("kick-adamax", "lr spike", "kick", "arm", optimizer="adamax", lr=0.005),
    jolted("kick-sgd", "lr spike", "kick", "wine", **SGD, lr=0.05, depth=2, batch=16),
    jolted("kick-lstm", "lr spike", "kick", "recall16", **LSTM, lr=0.01),
    jolted("burst-adam", "lr spike", "burst", "moons", lr=0.005),
    jolted("burst-nesterov", "lr spike", "burst", "digits", **NESTEROV, lr=0.01),
    jolted("burst2-momentum", "lr spike", "burst2", "arm", **MOMENTUM, lr=0.01),
)

INITS: tuple[Patient, ...] = (
    oversized("init-sgd", 1.9, "cancer", **SGD, lr=0.05, depth=5),
    oversized("init-nesterov", 1.7, "arm", **NESTEROV, lr=0.01, depth=5),
    oversized("init-adamw", 2.7, "blobs5", **ADAMW, lr=0.003, depth=5),
    oversized("init-momentum", 2.3, "digits", **MOMENTUM, lr=0.02, depth=5),
    oversized("init-elu", 2.1, "smooth6", **SGD, lr=0.05, activation="elu", depth=5),
    oversized("init-scaler", 2.1, "blobs5", **SGD, lr=0.1, depth=5, precision="fp16"),
)

#: Accidents that a sound run gets over.
MINOR: tuple[Patient, ...] = (
    struck("one-wrong-batch", "gets over it", Accident("wrong labels", 80), "cancer", **NESTEROV,
           lr=0.02),
    struck("wrong-batches", "gets over it", Accident("wrong labels", 40, 4, 45), "blobs5", **ADAMW,
           lr=0.002),
    struck("nan-under-scaler", "gets over it", Accident("nan", 70, 3, 25), "smooth6",
           precision="fp16", lr=0.003),
    struck("large-once", "gets over it", Accident("large", 90), "digits", optimizer="rmsprop",
           lr=0.002),
)

FRESH = (
    *of_zoo(ZOO), *numbered("rf", 1200, (*BATCHES, *JOLTS, *INITS, *MINOR)),
)
