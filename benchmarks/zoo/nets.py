"""The architectures, built from a config; each a plain `nn.Module` from inputs to outputs."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.zoo.config import Config
from benchmarks.zoo.tasks import Task

MODULES: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky": nn.LeakyReLU,
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "relu6": nn.ReLU6,
    "elu": nn.ELU,
    "silu": nn.SiLU,
}
FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "leaky": F.leaky_relu,
    "gelu": F.gelu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "relu6": F.relu6,
    "elu": F.elu,
    "silu": F.silu,
}


def activation(config: Config) -> Callable[[Tensor], Tensor]:
    """Return a module, or a function that no hook on modules sees."""
    return FUNCTIONS[config.activation] if config.functional else MODULES[config.activation]()


class Block(nn.Module):
    """Linear or convolution, normalisation, activation, dropout, and perhaps a way around.

    Args:
        fan_in: Features or channels in.
        fan_out: Features or channels out.
        config: The rest.
        convolution: 3 x 3, instead of a linear layer.
    """

    def __init__(
        self, fan_in: int, fan_out: int, config: Config, convolution: bool = False
    ) -> None:
        super().__init__()
        self.linear: nn.Module = (
            nn.Conv2d(fan_in, fan_out, 3, padding=1) if convolution else nn.Linear(fan_in, fan_out)
        )
        self.norm: nn.Module | None = None
        if config.norm == "batch":
            self.norm = nn.BatchNorm2d(fan_out) if convolution else nn.BatchNorm1d(fan_out)
        elif config.norm == "layer":
            self.norm = nn.GroupNorm(1, fan_out) if convolution else nn.LayerNorm(fan_out)
        self.act = activation(config)
        self.drop = nn.Dropout(config.dropout) if config.dropout else None
        around = config.residual if fan_in == fan_out else ""
        self.around = bool(around)
        self.gate = nn.Parameter(torch.zeros(1)) if around == "gate" else None
        self.out = nn.Linear(fan_out, fan_out) if around == "zero" and not convolution else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x)
        if self.norm is not None:
            y = self.norm(y)
        y = self.act(y)
        if self.drop is not None:
            y = self.drop(y)
        if self.out is not None:
            y = self.out(y)
        if self.gate is not None:
            y = self.gate * y
        return x + y if self.around else y


class MLP(nn.Module):
    """Linear layers."""

    def __init__(self, task: Task, config: Config) -> None:
        super().__init__()
        sizes = [task.inputs] + [config.width] * config.depth
        self.hidden = nn.Sequential(*(Block(a, b, config) for a, b in itertools.pairwise(sizes)))
        self.head = nn.Linear(config.width, task.outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.hidden(x))


class CNN(nn.Module):
    """Convolutions over the whole image, then their mean."""

    def __init__(self, task: Task, config: Config) -> None:
        super().__init__()
        sizes = [task.inputs] + [config.width] * config.depth
        self.hidden = nn.Sequential(
            *(Block(a, b, config, True) for a, b in itertools.pairwise(sizes))
        )
        self.head = nn.Linear(config.width * 4, task.outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.adaptive_avg_pool2d(self.hidden(x), 2).flatten(1))


class Recurrent(nn.Module):
    """A recurrent net over the sequence, read at its last step."""

    def __init__(self, task: Task, config: Config) -> None:
        super().__init__()
        self.config = config
        self.width = config.width
        self.embed = nn.Linear(task.inputs, config.width) if config.embed else None
        fan_in = config.width if config.embed else task.inputs
        kind = config.cell.partition("_")[0].upper()
        extra = {} if kind != "RNN" else {
            "nonlinearity": "relu" if config.cell == "rnn_relu" else "tanh"
        }  # fmt: skip
        if config.loop:
            self.cell = getattr(nn, kind + "Cell")(fan_in, config.width, **extra)
        else:
            self.net = getattr(nn, kind)(
                fan_in, config.width, config.depth, batch_first=True, **extra
            )
        self.head = nn.Linear(config.width, task.outputs)
        #: Hidden states of the last forward pass where asked for, (batch, time, width).
        self.keep = False
        self.states: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.embed is not None:
            x = self.embed(x)
        cut = x.shape[1] // 2 if self.config.ablate == "time" else 0
        states = self._looped(x, cut) if self.config.loop else self._called(x, cut)
        if self.keep:
            self.states = states
        return self.head(states[:, -1])

    def _called(self, x: Tensor, cut: int) -> Tensor:
        if not cut:
            return self.net(x)[0]
        early, state = self.net(x[:, :cut])
        state = tuple(s.detach() for s in state) if isinstance(state, tuple) else state.detach()
        return torch.cat([early.detach(), self.net(x[:, cut:], state)[0]], 1)

    def _looped(self, x: Tensor, cut: int) -> Tensor:
        state: Tensor | tuple[Tensor, ...] | None = None
        out = []
        for t in range(x.shape[1]):
            if cut and t == cut:
                state = tuple(s.detach() for s in state) if isinstance(state, tuple) else (
                    state.detach() if state is not None else None
                )  # fmt: skip
            state = self.cell(x[:, t], state)
            out.append(state[0] if isinstance(state, tuple) else state)
        return torch.stack(out, 1)


class Attention(nn.Module):
    """Causal self-attention with two heads, and the layers behind it."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        width = config.width
        self.placement = config.norm
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.norm1 = nn.LayerNorm(width) if config.norm else nn.Identity()
        self.norm2 = nn.LayerNorm(width) if config.norm else nn.Identity()
        self.up = nn.Linear(width, 2 * width)
        self.act = activation(config)
        self.down = nn.Linear(2 * width, width)
        self.drop = nn.Dropout(config.dropout)

    def attend(self, x: Tensor) -> Tensor:
        """Return the attention's output."""
        batch, time, width = x.shape
        q, k, v = (
            part.reshape(batch, time, 2, width // 2).transpose(1, 2)
            for part in self.qkv(x).chunk(3, -1)
        )
        scores = (q @ k.transpose(-1, -2)) / (width // 2) ** 0.5
        mask = torch.ones(time, time, dtype=torch.bool, device=x.device).triu(1)
        weights = scores.masked_fill(mask, float("-inf")).softmax(-1)
        return self.drop(self.proj((weights @ v).transpose(1, 2).reshape(batch, time, width)))

    def feed(self, x: Tensor) -> Tensor:
        """Return the feed-forward part's output."""
        return self.drop(self.down(self.act(self.up(x))))

    def forward(self, x: Tensor) -> Tensor:
        if self.placement == "post":
            x = self.norm1(x + self.attend(x))
            return self.norm2(x + self.feed(x))
        x = x + self.attend(self.norm1(x))
        return x + self.feed(self.norm2(x))


class Transformer(nn.Module):
    """A character-level language model."""

    def __init__(self, task: Task, config: Config) -> None:
        super().__init__()
        self.tokens = nn.Embedding(task.inputs, config.width)
        self.places = nn.Embedding(task.x.shape[1], config.width)
        self.blocks = nn.Sequential(*(Attention(config) for _ in range(config.depth)))
        self.norm = nn.LayerNorm(config.width) if config.norm == "pre" else nn.Identity()
        self.head = nn.Linear(config.width, task.outputs)
        if config.tied:
            self.head.weight = self.tokens.weight

    def forward(self, x: Tensor) -> Tensor:
        places = torch.arange(x.shape[1], device=x.device)
        return self.head(self.norm(self.blocks(self.tokens(x) + self.places(places))))


class Bag(nn.Module):
    """The mean of embeddings, then linear layers."""

    def __init__(self, task: Task, config: Config) -> None:
        super().__init__()
        self.words = nn.EmbeddingBag(
            task.inputs, config.width, mode="mean", sparse=config.sparse_grad
        )
        self.hidden = nn.Sequential(
            *(Block(config.width, config.width, config) for _ in range(config.depth))
        )
        self.head = nn.Linear(config.width, task.outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.hidden(self.words(x)))


class Autoencoder(nn.Module):
    """To a code and back."""

    def __init__(self, task: Task, config: Config) -> None:
        super().__init__()
        wide = config.width
        self.encoder = nn.Sequential(
            Block(task.inputs, wide, config),
            *(Block(wide, wide, config) for _ in range(config.depth - 1)),
        )
        self.decoder = nn.Sequential(*(Block(wide, wide, config) for _ in range(config.depth - 1)))
        self.head = nn.Linear(wide, task.inputs)
        self.tied = config.tied
        if config.tied:
            self.head = nn.Linear(1, task.inputs)  # its bias; the matrix is the encoder's
            self.head.weight.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.decode(self.encoder(x))

    def decode(self, code: Tensor) -> Tensor:
        """Return what the code stands for."""
        y = self.decoder(code)
        if self.tied:
            first = self.encoder[0].linear
            assert isinstance(first, nn.Linear)
            return F.linear(y, first.weight.t(), self.head.bias)
        return self.head(y)


class GAN(nn.Module):
    """Generator and discriminator; called, it generates."""

    def __init__(self, task: Task, config: Config) -> None:
        super().__init__()
        noise = Task(task.x, task.y, "regression", 2, 4)
        points = Task(task.x, task.y, "regression", 1, 2)
        self.generator = MLP(noise, config)
        self.discriminator = MLP(points, config)

    def forward(self, z: Tensor) -> Tensor:
        return self.generator(z)


NETS: dict[str, Callable[[Task, Config], nn.Module]] = {
    "mlp": MLP,
    "cnn": CNN,
    "rnn": Recurrent,
    "transformer": Transformer,
    "bag": Bag,
    "autoencoder": Autoencoder,
    "gan": GAN,
}
