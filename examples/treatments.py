"""What articles recommend against vanishing and exploding gradients, each as something to be tried.

Introductions and course notes tend to list these together, as cures for the one illness or the
other; the papers behind them often promise less. `says` is what one commonly reads, `promised` are
the patients it is said to help, and the reference is the paper itself.

References:
    - Hochreiter (1991), Untersuchungen zu dynamischen neuronalen Netzen: why gradients vanish
    - Glorot, Bordes and Bengio (2011), Deep sparse rectifier neural networks: ReLU
    - Maas, Hannun and Ng (2013), Rectifier nonlinearities improve acoustic models: leaky ReLU
    - He et al. (2015), Delving deep into rectifiers, https://arxiv.org/abs/1502.01852: PReLU, He
    - Glorot and Bengio (2010), Understanding the difficulty of training deep feedforward neural
      networks, https://proceedings.mlr.press/v9/glorot10a.html: Xavier
    - Saxe, McClelland and Ganguli (2014), https://arxiv.org/abs/1312.6120: orthogonal weights
    - Ioffe and Szegedy (2015), Batch normalization, https://arxiv.org/abs/1502.03167
    - Srivastava et al. (2014), Dropout: a simple way to prevent neural networks from overfitting
    - Salimans and Kingma (2016), Weight normalization, https://arxiv.org/abs/1602.07868
    - He et al. (2016), Deep residual learning, https://arxiv.org/abs/1512.03385
    - Hochreiter and Schmidhuber (1997), Long short-term memory
    - Cho et al. (2014), Learning phrase representations, https://arxiv.org/abs/1406.1078: GRU
    - Pascanu, Mikolov and Bengio (2013), https://arxiv.org/abs/1211.5063: clipping
    - Loshchilov and Hutter (2017), SGDR, https://arxiv.org/abs/1608.03983: cosine decay
    - Kingma and Ba (2015), Adam, https://arxiv.org/abs/1412.6980
    - Tieleman and Hinton (2012), Lecture 6.5: RMSprop
    - Duchi, Hazan and Singer (2011), Adaptive subgradient methods: Adagrad
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from examples.operations import (
    activations,
    drop_inputs,
    dropout,
    recurrent_weight_norm,
    recurrent_weights,
    skips,
    two_layers,
    weight_norms,
    weights,
)
from examples.patients import Dose

MLP, CNN, RNN, EXPLODING = "vanishing MLP", "plain CNN", "RNN", "exploding MLP"

#: Why a remedy is not tried on a patient.
_IN_PLACE, _NO_CELL = "in place", "no such cell"
_DEPTH_ONLY, _TIME_ONLY = "acts through depth", "acts through time"


@dataclass(frozen=True)
class Treatment:
    """One remedy.

    Attributes:
        name: As the tables call it.
        says: What articles say of it.
        promised: The patients it is said to help.
        doses: What it is for each patient; a text where it is not applicable.
    """

    name: str
    says: str
    promised: tuple[str, ...]
    doses: Mapping[str, Dose | str]


def _switch(
    switch: str, rnn: Dose | str | None = None, cnn: Dose | str | None = None
) -> dict[str, Dose | str]:
    """The same switch for all, unless something else is said."""
    same = Dose(switch)
    return {MLP: same, CNN: cnn or same, RNN: rnn or same, EXPLODING: same}


def _each(
    mlp: Dose, cnn: Dose | str, exploding: Dose | str, rnn: Dose | str
) -> dict[str, Dose | str]:
    return {MLP: mlp, CNN: cnn, RNN: rnn, EXPLODING: exploding}


def _cell(cell: str) -> dict[str, Dose | str]:
    return {
        MLP: _TIME_ONLY,
        CNN: _TIME_ONLY,
        RNN: Dose(f"--cell {cell} --lr 0.5"),
        EXPLODING: _TIME_ONLY,
    }


def _init(switch: str, name: str) -> dict[str, Dose | str]:
    return _switch(f"--init {switch}", Dose(operation=recurrent_weights(name)),
                   Dose(operation=weights(name)))  # fmt: skip


_ORTHOGONAL = Dose(operation=weights("orthogonal"))

TREATMENTS: tuple[Treatment, ...] = (
    Treatment(
        "ReLU",
        "slope 1: nothing vanishes (Glorot et al. 2011)",
        (MLP, RNN),
        _each(
            Dose("--activation relu"), _IN_PLACE, _IN_PLACE,
            Dose("--cell rnn_relu --recurrent-init default"),
        ),
    ),
    Treatment(
        "leaky ReLU",
        "no unit ever dies (Maas et al. 2013)",
        (MLP, CNN),
        _each(
            Dose("--activation leaky_relu"), Dose(operation=activations("leaky_relu")),
            Dose("--activation leaky_relu"), _NO_CELL,
        ),
    ),
    Treatment(
        "PReLU",
        "the slope is learned (He et al. 2015)",
        (MLP, CNN),
        _each(
            Dose("--activation prelu"), Dose(operation=activations("prelu")),
            Dose("--activation prelu"), _NO_CELL,
        ),
    ),
    Treatment(
        "He weights",
        "keeps the signal's size through ReLU (He et al. 2015)",
        (CNN, EXPLODING),
        _init("he", "he"),
    ),
    Treatment(
        "Xavier weights",
        "keeps the signal's size both ways (Glorot and Bengio 2010)",
        (MLP, EXPLODING),
        _init("xavier", "xavier"),
    ),
    Treatment(
        "orthogonal weights",
        "keep lengths, through depth and time (Saxe et al. 2014)",
        (RNN, EXPLODING),
        {
            MLP: _ORTHOGONAL, CNN: _ORTHOGONAL, EXPLODING: _ORTHOGONAL,
            RNN: Dose("--recurrent-init orthogonal"),
        },
    ),
    Treatment(
        "BatchNorm",
        "keeps activations off their flat parts (Ioffe and Szegedy 2015)",
        (MLP, CNN, EXPLODING),
        _switch("--batch-norm"),
    ),
    Treatment(
        "dropout",
        "on many lists of cures; the paper: against overfitting (Srivastava et al. 2014)",
        (MLP, CNN, RNN),
        _switch("--dropout 0.2", Dose(operation=drop_inputs), Dose(operation=dropout)),
    ),
    Treatment(
        "weight norm",
        "on some lists; the paper: better conditioning (Salimans and Kingma 2016)",
        (MLP, CNN, RNN),
        _switch(
            "--weight-norm", Dose(operation=recurrent_weight_norm), Dose(operation=weight_norms)
        ),
    ),
    Treatment(
        "residual",
        "a direct way back (He et al. 2016)",
        (MLP, CNN),
        _each(
            Dose(operation=skips), Dose("--residual"), Dose(operation=skips), _DEPTH_ONLY
        ),
    ),
    Treatment(
        "LSTM", "a cell that keeps its state (Hochreiter and Schmidhuber 1997)", (RNN,),
        _cell("lstm"),
    ),
    Treatment("GRU", "gates that keep the state (Cho et al. 2014)", (RNN,), _cell("gru")),
    Treatment(
        "clipping",
        "bounds the step when gradients explode (Pascanu et al. 2013)",
        (EXPLODING,),
        _switch("--clip 1"),
    ),
    Treatment(
        "exponential decay",
        "of the learning rate: on lists for both illnesses",
        (MLP, EXPLODING),
        _switch("--lr-schedule exponential"),
    ),
    Treatment(
        "linear decay",
        "of the learning rate: the same",
        (MLP, EXPLODING),
        _switch("--lr-schedule linear"),
    ),
    Treatment(
        "cosine decay",
        "of the learning rate: the same (Loshchilov and Hutter 2017)",
        (MLP, EXPLODING),
        _switch("--lr-schedule cosine"),
    ),
    Treatment(
        "Adam",
        "a rate for each weight makes up for small gradients (Kingma and Ba 2015)",
        (MLP, CNN, RNN),
        _switch("--optimizer adam"),
    ),
    Treatment(
        "RMSprop",
        "the same (Tieleman and Hinton 2012)",
        (MLP, CNN, RNN),
        _switch("--optimizer rmsprop"),
    ),
    Treatment(
        "Adagrad",
        "the same (Duchi et al. 2011)",
        (MLP, CNN, RNN),
        _switch("--optimizer adagrad"),
    ),
    Treatment(
        "twice as deep",
        "a deeper network learns more; on some lists of cures",
        (MLP, CNN),
        _switch("--depth 12", Dose(operation=two_layers), Dose("--depth 48")),
    ),
    Treatment(
        "more data",
        "more data trains what does not train; on some lists of cures",
        (MLP, CNN),
        {name: Dose(copies=True) for name in (MLP, CNN, RNN, EXPLODING)},
    ),
)  # fmt: skip
