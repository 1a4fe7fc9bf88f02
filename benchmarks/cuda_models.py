"""What `benchmarks.cuda` trains: the usual shapes, made on the spot, in a full and a tiny size."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional


class Size(NamedTuple):
    """How large a model and its batch are."""

    batch: int
    width: int
    depth: int
    length: int = 0


class Mlp(nn.Module):
    """Equal layers with ReLU."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.size = size
        layers = [
            m for _ in range(size.depth) for m in (nn.Linear(size.width, size.width), nn.ReLU())
        ]
        self.net = nn.Sequential(*layers)
        for layer in self.net[::2]:
            nn.init.kaiming_normal_(layer.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Loss of a batch, shape (batch, width)."""
        return (self.net(x) - 1).square().mean()

    def batch(self, device: torch.device) -> Tensor:
        """Return a batch."""
        return torch.randn(self.size.batch, self.size.width, device=device)


class Bottleneck(nn.Module):
    """The block of ResNet-50: 1x1, 3x3, 1x1, with a shortcut."""

    def __init__(self, wide: int, narrow: int, stride: int) -> None:
        super().__init__()
        out = 4 * narrow
        self.one = nn.Conv2d(wide, narrow, 1, bias=False)
        self.two = nn.Conv2d(narrow, narrow, 3, stride, 1, bias=False)
        self.three = nn.Conv2d(narrow, out, 1, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(n) for n in (narrow, narrow, out))
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or wide != out:
            self.shortcut = nn.Sequential(
                nn.Conv2d(wide, out, 1, stride, bias=False), nn.BatchNorm2d(out)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output."""
        y = functional.relu(self.norms[0](self.one(x)))
        y = functional.relu(self.norms[1](self.two(y)))
        return functional.relu(self.norms[2](self.three(y)) + self.shortcut(x))


class ResNet(nn.Module):
    """ResNet-50 (He et al. 2016) for 1000 classes: 161 parameters, 25.6 million numbers.

    `width` is that of the first stage (64), `depth` divides the number of blocks (1), `length` is
    the side of the images (224).
    """

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.size = size
        wide = size.width
        self.stem = nn.Sequential(
            nn.Conv2d(3, wide, 7, 2, 3, bias=False), nn.BatchNorm2d(wide), nn.ReLU(),
            nn.MaxPool2d(3, 2, 1),
        )  # fmt: skip
        blocks: list[nn.Module] = []
        for stage, count in enumerate((3, 4, 6, 3)):
            narrow = size.width * 2**stage
            for i in range(max(1, count // size.depth)):
                blocks.append(Bottleneck(wide, narrow, 2 if i == 0 and stage else 1))
                wide = 4 * narrow
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(wide, 1000)

    def forward(self, x: Tensor) -> Tensor:
        """Loss of a batch of images, shape (batch, 3, length, length)."""
        out = self.head(self.blocks(self.stem(x)).mean(dim=(2, 3)))
        return functional.cross_entropy(out, torch.arange(len(x), device=x.device) % 1000)

    def batch(self, device: torch.device) -> Tensor:
        """Return a batch."""
        return torch.randn(self.size.batch, 3, self.size.length, self.size.length, device=device)


class Block(nn.Module):
    """A decoder block: causal attention and a feed-forward net of four times the width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = max(1, width // 128)
        self.before = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.up = nn.Linear(width, 4 * width, bias=False)
        self.down = nn.Linear(4 * width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output, shape (batch, length, width)."""
        n, length, width = x.shape
        qkv = self.qkv(self.before[0](x)).view(n, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2], is_causal=True)
        x = x + self.out(seen.transpose(1, 2).reshape(n, length, width))
        return x + self.down(functional.gelu(self.up(self.before[1](x))))


class Transformer(nn.Module):
    """A language model: 18 blocks of width 2048 and 50,304 tokens are 1.01 billion numbers."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.size = size
        self.tokens = 50_304 if size.width > 512 else 512
        self.embed = nn.Embedding(self.tokens, size.width)
        self.blocks = nn.ModuleList(Block(size.width) for _ in range(size.depth))
        self.last = nn.LayerNorm(size.width)

    def forward(self, x: Tensor) -> Tensor:
        """Loss of a batch of tokens, shape (batch, length + 1)."""
        out = self.embed(x[:, :-1])
        for block in self.blocks:
            out = block(out)
        logits = functional.linear(self.last(out), self.embed.weight)
        return functional.cross_entropy(logits.flatten(0, 1), x[:, 1:].flatten())

    def batch(self, device: torch.device) -> Tensor:
        """Return a batch."""
        shape = (self.size.batch, self.size.length + 1)
        return torch.randint(self.tokens, shape, device=device)


class Case(NamedTuple):
    """A model as it is trained.

    Attributes:
        kind: Its class.
        full: Its size on a GPU.
        tiny: Its size for a look at whether everything runs.
        dtype: Of its parameters.
        fused: Whether AdamW is fused (else foreach).
        compiled: Whether it goes through `torch.compile`.
    """

    kind: Callable[[Size], nn.Module]
    full: Size
    tiny: Size
    dtype: torch.dtype = torch.float32
    fused: bool = True
    compiled: bool = False


CASES: dict[str, Case] = {
    "mlp": Case(Mlp, Size(256, 1024, 20), Size(4, 8, 3)),
    "mlp, foreach": Case(Mlp, Size(256, 1024, 20), Size(4, 8, 3), fused=False),
    "mlp, compiled": Case(Mlp, Size(256, 1024, 20), Size(4, 8, 3), compiled=True),
    "resnet50": Case(ResNet, Size(64, 64, 1, 224), Size(2, 4, 8, 32)),
    "1B transformer, bf16": Case(
        Transformer, Size(4, 2048, 18, 1024), Size(2, 32, 2, 8), torch.bfloat16
    ),
    "1B transformer, bf16, compiled": Case(
        Transformer, Size(4, 2048, 18, 1024), Size(2, 32, 2, 8), torch.bfloat16, compiled=True
    ),
}
