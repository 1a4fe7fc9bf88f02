"""What is said of `vanishing` through time."""

from __future__ import annotations

from lightning_gradwatch.diagnosis.case import Line

CAUSES = (
    Line(
        "An LSTM starts with its forget gates half open: half of the memory, and of the error "
        "signal, is lost at each time step.",
        lambda case: case.recurrent.startswith("LSTM"),
    ),
    Line(
        "A GRU starts with its update gates half open: half of the memory, and of the error "
        "signal, is lost at each time step.",
        lambda case: case.recurrent.startswith("GRU"),
    ),
    Line(
        "The recurrent weights of {recurrent} multiply the signal once for every time step, and "
        "their factor is below one.",
        lambda case: bool(case.recurrent),
    ),
    Line("The recurrence multiplies the signal at every time step by a factor below one."),
)

REMEDIES = (
    Line(
        "Start the recurrent weights as an orthogonal matrix, which keeps a signal's size: "
        "nn.init.orthogonal_({last_layer}.weight_hh_l0).",
        lambda case: case.recurrent.startswith("RNN"),
    ),
    Line(
        "Use gates that stay open: nn.LSTM, its forget gate biased at the start: "
        "lstm.bias_ih_l0.data[hidden:2 * hidden] = 4.",
        lambda case: not case.recurrent.startswith(("LSTM", "GRU")),
    ),
    Line(
        "Open the forget gates at the start: {last_layer}.bias_ih_l0.data[hidden:2 * hidden] = 4.",
        lambda case: case.recurrent.startswith("LSTM"),
    ),
    Line(
        "Close the update gates at the start: {last_layer}.bias_ih_l0.data[hidden:2 * hidden] = 4.",
        lambda case: case.recurrent.startswith("GRU"),
    ),
    Line("Shorten the way: shorter sequences, fewer steps per second, or attention over them."),
)
