"""Steps that are too long, too short, or taken by nobody."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from tests.silence.case import Task, Trial, accuracy
from tests.silence.data import batches, digits, flat_digits, houses, lines, text
from tests.silence.healthy.generative import likeness
from tests.silence.healthy.language import next_character
from tests.silence.healthy.vision import conv, digit_reader, pool_and_tell
from tests.silence.sick.depth import mlp
from tests.silence.sick.illness import LOWER_LR, NORMALISE, sick

ADAM = r"Use Adam, .*: torch\.optim\.Adam\(model\.parameters\(\), lr=(?P<adam>1e-3)\)\."


def sgd(lr: float, momentum: float = 0.0, **more: Any) -> Any:
    return lambda task: torch.optim.SGD(task.parameters(), lr, momentum, **more)


class Functional(nn.Module):
    """An MLP that calls F.relu, as tutorials do."""

    def __init__(self, bias: float = 0.0, normalise: bool = False) -> None:
        super().__init__()
        self.fc1 = nn.Linear(64, 64)
        self.fc2 = nn.Linear(64, 64)
        self.out = nn.Linear(64, 10)
        self.norm1 = nn.BatchNorm1d(64) if normalise else nn.Identity()
        self.norm2 = nn.BatchNorm1d(64) if normalise else nn.Identity()
        for layer in (self.fc1, self.fc2):
            nn.init.constant_(layer.bias, bias)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm1(self.fc1(x)))
        x = F.relu(self.norm2(self.fc2(x)))
        return self.out(x)


@sick(
    code="dead_units",
    layers=("net.fc1",),
    spared=("net.out",),
    summary=r"units of .*relu.* are zero for every input",
    cause=r"They were off from the first step on: the initial biases or weights put them on the "
    r"negative side",
    remedy=NORMALISE,
    change={"normalise": True},
    also=("vanishing",),
)
def relus_dead_by_their_biases(normalise: bool = False) -> Trial:
    return digit_reader(Functional(-5.0, normalise), 150, flat=True)


@sick(
    code="exploding",
    summary=r"The gradient explodes: its norm is .*, and the loss has risen to 2\d\d",
    cause=r"The learning rate \(lr=0\.3 at the start\) is too high",
    remedy=LOWER_LR,
    also=("dead_units", "vanishing"),
)
def relus_killed_by_a_high_rate(lr: float = 0.3) -> Trial:
    """Adam, with a rate that SGD would like; no unit survives the first steps."""
    return digit_reader(mlp([64, 64, 64, 10]), 120, flat=True, lr=lr)


@sick(
    code="exploding",
    summary=r"The gradient explodes: its norm is .*, and the loss has risen to",
    cause=r"The learning rate \(lr=10 at the start\) is too high",
    remedy=ADAM,
    also=("dead_units", "vanishing"),
)
def functional_relus_killed_by_a_high_rate(adam: float = 0.0) -> Trial:
    optimizer = None if adam else sgd(10.0)
    return digit_reader(Functional(), 150, flat=True, optimizer=optimizer, lr=adam)


@sick(
    code="exploding",
    summary=r"The gradient explodes",
    cause=r"targets",
    remedy=r"Standardise .*targets.*",
    change={"standardise": True},
    also=("nonfinite", "dead_units"),
    wrong={
        "words": "the learning rate is blamed, not targets of 3e5",
        "remedy": "Adam with lr=1e-3 never gets to 3e5; the next, lr=2e-18, never moves",
    },
)
def regression_on_unscaled_prices(standardise: bool = False) -> Trial:
    """House prices of 3e5, plain SGD."""
    x, y = houses()
    if standardise:
        y = (y - y.mean()) / y.std()
    task = Task(mlp([8, 32, 32, 1]), lambda net, x, y: F.mse_loss(net(x), y), sgd(0.1))
    mean = float((y - y.mean()).square().mean())
    return Trial(task, batches(x, y, steps=150), lambda: 1 - task.last / mean, 0.7)


@sick(
    code="dead_units",
    summary=r"zero for every input",
    cause=r"learning rate \(lr=1 at the start\)",
    remedy=LOWER_LR,
    also=("vanishing",),
    wrong=dict.fromkeys(
        ("code", "words", "remedy"),
        "its units die between the looks at steps 9 and 50; from step 101 on it is told to "
        "vanish, and to normalise, which does not heal",
    ),
    cure={"lr": 0.1},
)
def cnn_with_momentum_at_a_high_rate(lr: float = 1.0) -> Trial:
    net = nn.Sequential(
        nn.Conv2d(1, 12, 3, padding=1), nn.ReLU(), nn.Conv2d(12, 24, 3, 2, 1), nn.ReLU(),
        nn.Conv2d(24, 24, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(96, 10),
    )  # fmt: skip
    return digit_reader(net, 120, optimizer=sgd(lr, 0.9))


@sick(
    code="exploding",
    summary=r"The gradient explodes",
    cause=r"The loss has no lower end",
    remedy=r"Look for the sign of the loss: it falls without end\. .*",
    change={"sign": 1.0},
    also=("nonfinite",),
)
def loss_of_the_wrong_sign(sign: float = -1.0) -> Trial:
    """Cross-entropy maximised."""
    x, y = flat_digits()
    net = mlp([64, 64, 64, 10])
    task = Task(net, lambda net, x, y: sign * F.cross_entropy(net(x), y), lr=1e-2)
    return Trial(task, batches(x, y, steps=130), lambda: accuracy(net, x[:600], y[:600]), 0.8)


class Words(nn.Module):
    """Tells the next character from the latest four."""

    def __init__(self) -> None:
        super().__init__()
        _, kinds = text()
        self.embed = nn.Embedding(kinds, 24)
        self.mix = nn.Conv1d(24, 64, 4)
        self.head = nn.Linear(64, kinds)

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(self.embed(x).transpose(1, 2), (3, 0))
        return self.head(self.mix(x).tanh().transpose(1, 2))


def next_of(net: nn.Module, steps: int, **task: Any) -> Trial:
    """Return a trial that has to tell the next character better than a guess, in nats."""
    _, kinds = text()
    task = Task(net, next_character, **task)
    return Trial(task, lines(steps), lambda: math.log(kinds) - task.last, 1.0)


@sick(
    code="saturated",
    layers=("net.mix",),
    summary=r"tanh\(net\.mix\) \(tanh\) lie on its flat parts",
    cause=r"Training drove them there: with the learning rate \(lr=0\.5 at the start\)",
    remedy=LOWER_LR,
)
def character_model_at_a_high_rate(lr: float = 0.5) -> Trial:
    return next_of(Words(), 150, lr=lr)


def bigrams() -> nn.Sequential:
    _, kinds = text()
    return nn.Sequential(nn.Embedding(kinds, 24), nn.Linear(24, kinds))


@sick(
    code="oscillating",
    summary=r"loss",
    cause=r"The learning rate \(lr=3 at the start\) is too high",
    remedy=LOWER_LR,
    wrong=dict.fromkeys(
        ("code", "words", "remedy"),
        "nothing is said while the loss rises from 4 to 150: what it began at is taken for the "
        "median of the first ten losses, most of which are high",
    ),
    cure={"lr": 0.3},
)
def embeddings_at_a_high_rate(lr: float = 3.0) -> Trial:
    """The loss begins at 4, is at 200 within five steps, and stays there."""
    return next_of(bigrams(), 120, lr=lr)


@sick(
    code="exploding",
    summary=r"The gradient explodes: .*the loss has risen to",
    cause=r"The learning rate \(lr=30 at the start\) is too high",
    remedy=LOWER_LR,
    also=("nonfinite",),
    wrong=dict.fromkeys(
        ("words", "remedy"),
        "the default weights of nn.Embedding are taken for too large ones, and inputs that are "
        "indices for unscaled ones",
    ),
    cure={"lr": 3.0},
)
def embeddings_with_sgd_at_a_high_rate(lr: float = 30.0) -> Trial:
    return next_of(bigrams(), 120, optimizer=sgd(lr))


@sick(
    code="dead_units",
    layers=("net.1.0",),
    spared=("net.2.2",),
    summary=r"units of net\.1\.2 are zero for every input",
    cause=r"They died in training: with the learning rate \(lr=20 at the start\)",
    remedy=LOWER_LR,
    also=("vanishing",),
)
def normalised_cnn_at_a_high_rate(lr: float = 20.0) -> Trial:
    """BatchNorm's own bias is what turns the units off."""
    net = nn.Sequential(conv(1, 12), conv(12, 24, 2), pool_and_tell(24))
    return digit_reader(net, 120, optimizer=sgd(lr))


@sick(
    code="oscillating",
    summary=r"The loss swings instead of falling",
    cause=r"The learning rate \(lr=1\.5 at the start\) is too high",
    remedy=LOWER_LR,
    also=("saturated", "vanishing"),
)
def tanh_mlp_at_a_high_rate(lr: float = 1.5) -> Trial:
    return digit_reader(mlp([64, 64, 64, 10], nn.Tanh), 140, flat=True, optimizer=sgd(lr))


@sick(
    code="oscillating",
    summary=r"The loss swings instead of falling: .* the 2\.\d at which it began",
    cause=r"The learning rate \(lr=2 at the start\) is too high",
    remedy=LOWER_LR,
    also=("saturated", "vanishing"),
    wrong=dict.fromkeys(
        ("code", "words"),
        "told first that the slope of tanh makes the signal vanish; and the loss is said to have "
        "begun at 7.6",
    ),
)
def tanh_mlp_at_a_higher_rate(lr: float = 2.0) -> Trial:
    return digit_reader(mlp([64, 64, 64, 10], nn.Tanh), 140, flat=True, optimizer=sgd(lr))


@sick(
    code="stalled",
    summary=r"Training does not move",
    cause=r"The learning rate \(lr=1e-07 at the start\) is too low for Adam",
    remedy=r"Raise the learning rate: lr=(?P<lr>[\d.e-]+)\.",
)
def cnn_at_a_tiny_rate(lr: float = 1e-7) -> Trial:
    net = nn.Sequential(conv(1, 12), conv(12, 24, 2), pool_and_tell(24))
    return digit_reader(net, 120, lr=lr)


@sick(
    code="stalled",
    summary=r"Training does not move",
    cause=r"The learning rate \(lr=1e-05 at the start\) is too low for SGD",
    remedy=ADAM,
)
def mlp_with_sgd_at_a_tiny_rate(adam: float = 0.0) -> Trial:
    optimizer = sgd(1e-5) if not adam else None
    return digit_reader(mlp([64, 64, 64, 10]), 130, flat=True, optimizer=optimizer, lr=adam)


@sick(
    code="stalled",
    summary=r"Training does not move",
    cause=r"The schedule has brought the learning rate from 0\.003 down to",
    remedy=r"Let the schedule last as long as training: .*; here it reached .* from 0\.003\.",
    change={"until": 130},
)
def schedule_that_ends_too_early(until: int = 8) -> Trial:
    """Written in epochs, stepped at every batch."""
    return digit_reader(
        mlp([64, 64, 64, 10]),
        130,
        flat=True,
        schedule=lambda o: LambdaLR(o, lambda step: max(0.0, 1 - step / until)),
    )


@sick(
    code="stalled",
    summary=r"\d % of the trainable weights have never had a step",
    cause=r"The optimizer does not hold most of the trainable parameters",
    remedy=r"Give the optimizer all parameters: configure_optimizers should pass "
    r"self\.parameters\(\)\.",
    change={"all_of_it": True},
)
def optimizer_of_the_head_only(all_of_it: bool = False) -> Trial:
    """Left over from fine-tuning; here the features below are random, and few."""
    net = nn.Sequential(conv(1, 8), conv(8, 16, 2), pool_and_tell(16))

    def optimizer(task: Task) -> torch.optim.Optimizer:
        return torch.optim.Adam((task if all_of_it else net[-1]).parameters(), lr=3e-3)

    return digit_reader(net, 210, optimizer=optimizer)


@sick(
    code="stalled",
    summary=r"100 % of the trainable weights have never had a step",
    cause=r"The optimizer holds none of the model's parameters .* such as those of a copy",
    remedy=r"Give the optimizer all parameters: configure_optimizers should pass "
    r"self\.parameters\(\)\.",
    change={"stale": False},
)
def optimizer_of_a_stale_copy(stale: bool = True) -> Trial:
    net = mlp([64, 64, 64, 10])
    old = copy.deepcopy(net)

    def optimizer(task: Task) -> torch.optim.Optimizer:
        return torch.optim.Adam((old if stale else task).parameters(), lr=3e-3)

    return digit_reader(net, 210, flat=True, optimizer=optimizer)


@sick(
    code="vanishing",
    layers=("net.0",),
    summary=r"net\.0 receives",
    cause=r"The weights have shrunk to .* of their size: weight decay \(1\)",
    remedy=r"Lower the weight decay: weight_decay=(?P<decay>1e-4)\.",
    also=("dead_units",),
)
def weights_eaten_by_decay(decay: float = 1.0) -> Trial:
    """Adam's coupled weight decay at a value that suits AdamW's."""
    return digit_reader(
        mlp([64, 64, 64, 64, 10], nn.Tanh),
        150,
        flat=True,
        optimizer=lambda t: torch.optim.Adam(t.parameters(), 3e-3, weight_decay=decay),
    )


class GAN(Task):
    """The recipe of Lightning: manual optimization, two optimizers."""

    def __init__(self, generator: nn.Module, critic: nn.Module, lr: float) -> None:
        super().__init__(generator, lambda net, x: x)
        self.automatic_optimization = False
        self.critic, self.critic_lr = critic, lr

    def configure_optimizers(self) -> Any:
        make = torch.optim.Adam(self.net.parameters(), 2e-3, betas=(0.5, 0.999))
        return make, torch.optim.SGD(self.critic.parameters(), self.critic_lr)

    def training_step(self, batch: Any, batch_idx: int) -> None:
        [real] = batch
        make, judge = self.optimizers()
        z = torch.randn(len(real), 8)
        self.toggle_optimizer(judge)
        loss = F.softplus(-self.critic(real)).mean() + F.softplus(self.critic(self.net(z))).mean()
        judge.zero_grad()
        self.manual_backward(loss)
        judge.step()
        self.untoggle_optimizer(judge)
        self.toggle_optimizer(make)
        loss = F.softplus(-self.critic(self.net(z))).mean()
        make.zero_grad()
        self.manual_backward(loss)
        make.step()
        self.untoggle_optimizer(make)
        self.losses.append(float(loss.detach()))


def gan(lr: float) -> Trial:
    x, _ = digits()
    x = (2 * x - 1).flatten(1)
    generator = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 64), nn.Tanh())
    task = GAN(generator, mlp([64, 64, 32, 1]), lr)
    return Trial(task, batches(x, steps=150), lambda: likeness(task, x), 0.7)


@sick(
    code="dead_units",
    layers=("critic.0", "critic.2"),
    spared=("net.0", "net.2"),
    summary=r"units of critic\.1 and critic\.3 are zero for every input",
    cause=r"They died in training: with the learning rate \(lr=5 at the start\)",
    remedy=LOWER_LR,
    also=("vanishing",),
)
def gan_whose_critic_dies(lr: float = 5.0) -> Trial:
    return gan(lr)


@sick(
    code="exploding",
    layers=("critic.0",),
    spared=("net.0", "net.2"),
    summary=r"The gradient explodes",
    cause=r"The learning rate \(lr=30 at the start\) is too high",
    remedy=LOWER_LR,
    also=("nonfinite", "dead_units"),
    wrong={
        "code": "the generator is told to explode too, by its own learning rate of 0.002",
        "remedy": "a tenth of the rate explodes as well: how long the steps became is not asked",
    },
    cure={"lr": 0.3},
)
def gan_whose_critic_explodes(lr: float = 30.0) -> Trial:
    return gan(lr)


class Rows(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(8, 32, batch_first=True)
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.gru(x[:, 0])[0][:, -1])


@sick(
    code="oscillating",
    summary=r"loss",
    cause=r"The learning rate \(lr=0\.5 at the start\) is too high",
    remedy=LOWER_LR,
    also=("saturated",),
    wrong=dict.fromkeys(
        ("code", "words", "remedy"),
        "nothing is said of a loss that rises from 2.3 to 8 and ends at 2.3",
    ),
    cure={"lr": 0.05},
)
def gru_at_a_high_rate(lr: float = 0.5) -> Trial:
    return digit_reader(Rows(), 120, lr=lr)


CASES = (
    relus_dead_by_their_biases,
    relus_killed_by_a_high_rate,
    functional_relus_killed_by_a_high_rate,
    regression_on_unscaled_prices,
    cnn_with_momentum_at_a_high_rate,
    loss_of_the_wrong_sign,
    character_model_at_a_high_rate,
    embeddings_at_a_high_rate,
    embeddings_with_sgd_at_a_high_rate,
    normalised_cnn_at_a_high_rate,
    tanh_mlp_at_a_high_rate,
    tanh_mlp_at_a_higher_rate,
    gru_at_a_high_rate,
    cnn_at_a_tiny_rate,
    mlp_with_sgd_at_a_tiny_rate,
    schedule_that_ends_too_early,
    optimizer_of_the_head_only,
    optimizer_of_a_stale_copy,
    weights_eaten_by_decay,
    gan_whose_critic_dies,
    gan_whose_critic_explodes,
)
