"""Models of language: transformers of many kinds, on the source of a Python module."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.silence.case import Task, Trial
from tests.silence.data import lines, text

WIDTH = 32
LENGTH = 32


def causal(n: int) -> Tensor:
    return torch.triu(torch.full((n, n), -math.inf), 1)


def next_character(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(net(x).flatten(0, 1), y.flatten())


def model_of_text(net: nn.Module, steps: int = 150, at_least: float = 1.1, **task: object) -> Trial:
    """Return a trial that has to bring the loss down by so many nats."""
    it = Task(net, next_character, **task)
    return Trial(it, lines(steps, length=LENGTH), lambda: it.first - it.last, at_least)


class Attention(nn.Module):
    def __init__(self, width: int, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        b, t, c = x.shape
        q, k, v = self.qkv(x).view(b, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.proj(out.transpose(1, 2).reshape(b, t, c))


class PreNormBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.ln1, self.ln2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.ln1(x))
        return x + self.mlp(self.ln2(x))


class GPT(nn.Module):
    """Pre-LN, learned positions, head tied to the embedding, initialised as GPT-2 is."""

    def __init__(self, blocks: int = 3) -> None:
        super().__init__()
        _, kinds = text()
        self.tokens = nn.Embedding(kinds, WIDTH)
        self.places = nn.Embedding(LENGTH, WIDTH)
        self.blocks = nn.Sequential(*[PreNormBlock(WIDTH) for _ in range(blocks)])
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, kinds, bias=False)
        self.head.weight = self.tokens.weight
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.tokens(x) + self.places(torch.arange(x.shape[1]))
        return self.head(self.norm(self.blocks(x)))


def gpt() -> Trial:
    return model_of_text(GPT(), optimizer=lambda t: torch.optim.AdamW(t.parameters(), lr=5e-3))


def gpt_bf16() -> Trial:
    trial = model_of_text(GPT(2), lr=5e-3)
    trial.trainer = {"precision": "bf16-mixed"}
    return trial


def gpt_clipped_with_warm_up_and_decay() -> Trial:
    trial = model_of_text(
        GPT(2),
        optimizer=lambda t: torch.optim.AdamW(t.parameters(), lr=1e-2, weight_decay=0.1),
        schedule=lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 1e-2, total_steps=151),
    )
    trial.trainer = {"gradient_clip_val": 0.5}
    return trial


class Encoder(nn.Module):
    """Torch's own encoder with sines for places, causal, behind it a head."""

    def __init__(self, layers: int = 3, kinds_more: int = 0, masked: bool = True, **kw) -> None:
        super().__init__()
        _, kinds = text()
        self.masked = masked
        self.embed = nn.Embedding(kinds + kinds_more, WIDTH)
        angle = torch.arange(LENGTH)[:, None] / 1e3 ** (torch.arange(WIDTH // 2) / (WIDTH // 2))
        self.register_buffer("places", torch.cat([angle.sin(), angle.cos()], 1))
        layer = nn.TransformerEncoderLayer(WIDTH, 4, 64, batch_first=True, **kw)
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.head = nn.Linear(WIDTH, kinds)

    def forward(self, x: Tensor) -> Tensor:
        mask = causal(x.shape[1]) if self.masked else None
        return self.head(self.encoder(self.embed(x) + self.places, mask))


def post_ln_with_warm_up() -> Trial:
    return model_of_text(
        Encoder(4, dropout=0.1),
        lr=4e-3,
        schedule=lambda o: torch.optim.lr_scheduler.LinearLR(o, 0.01, total_iters=50),
    )


def masked_lm() -> Trial:
    _, kinds = text()
    net = Encoder(2, kinds_more=1, masked=False, activation="gelu", dropout=0.1)

    def loss(net: nn.Module, x: Tensor, _: Tensor) -> Tensor:
        hidden = torch.rand(x.shape) < 0.2
        return F.cross_entropy(net(x.masked_fill(hidden, kinds))[hidden], x[hidden])

    task = Task(net, loss, lr=4e-3)
    return Trial(task, lines(200, length=LENGTH), lambda: task.first - task.last, 0.7)


class Experts(nn.Module):
    """Each position goes to the best of 8 experts; nothing keeps their loads even."""

    def __init__(self, width: int, experts: int = 8) -> None:
        super().__init__()
        self.router = nn.Linear(width, experts)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width))
            for _ in range(experts)
        )

    def forward(self, x: Tensor) -> Tensor:
        weight, best = self.router(x).softmax(-1).max(-1)
        out = torch.zeros_like(x)
        for i, expert in enumerate(self.experts):
            mine = best == i
            if mine.any():
                out[mine] = expert(x[mine]) * weight[mine][:, None]
        return out


def mixture_of_experts() -> Trial:
    net = GPT(2)
    for block in net.blocks:
        block.mlp = Experts(WIDTH)
    return model_of_text(net, steps=130, lr=5e-3)


class RMSNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6)


class LlamaBlock(nn.Module):
    def __init__(self, width: int, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.n1, self.n2 = RMSNorm(width), RMSNorm(width)
        self.q, self.k, self.v, self.o = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.gate, self.up = (nn.Linear(width, 2 * width, bias=False) for _ in range(2))
        self.down = nn.Linear(2 * width, width, bias=False)

    def rotate(self, x: Tensor) -> Tensor:
        half = x.shape[-1] // 2
        angle = torch.arange(x.shape[-2])[:, None] / 1e3 ** (torch.arange(half) / half)
        a, b = x[..., :half], x[..., half:]
        return torch.cat([a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()], -1)

    def forward(self, x: Tensor) -> Tensor:
        b, t, c = x.shape
        n = self.n1(x)
        q, k, v = (
            f(n).view(b, t, self.heads, -1).transpose(1, 2) for f in (self.q, self.k, self.v)
        )
        out = F.scaled_dot_product_attention(self.rotate(q), self.rotate(k), v, is_causal=True)
        x = x + self.o(out.transpose(1, 2).reshape(b, t, c))
        n = self.n2(x)
        return x + self.down(F.silu(self.gate(n)) * self.up(n))


def llama() -> Trial:
    _, kinds = text()
    net = nn.Sequential(
        nn.Embedding(kinds, WIDTH),
        *[LlamaBlock(WIDTH) for _ in range(3)],
        RMSNorm(WIDTH),
        nn.Linear(WIDTH, kinds, bias=False),
    )
    return model_of_text(net, lr=4e-3)


class Shared(nn.Module):
    """One block used four times over, as in ALBERT."""

    def __init__(self) -> None:
        super().__init__()
        self.block = PreNormBlock(WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(4):
            x = self.block(x)
        return x


def shared_layers() -> Trial:
    _, kinds = text()
    net = nn.Sequential(nn.Embedding(kinds, WIDTH), Shared(), nn.Linear(WIDTH, kinds))
    return model_of_text(net, steps=120)


class Translator(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.source, self.target = nn.Embedding(11, WIDTH), nn.Embedding(11, WIDTH)
        self.places = nn.Embedding(8, WIDTH)
        self.transformer = nn.Transformer(
            WIDTH, 4, 2, 2, 64, dropout=0.0, batch_first=True, norm_first=True
        )
        self.head = nn.Linear(WIDTH, 11)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        places = self.places(torch.arange(8))
        mask = causal(8)
        return self.head(
            self.transformer(self.source(x) + places, self.target(y) + places, tgt_mask=mask)
        )


def encoder_decoder() -> Trial:
    """Learns to write numbers backwards."""

    def loss(net: nn.Module, x: Tensor) -> Tensor:
        y = x.flip(1)
        before = torch.cat([torch.full((len(y), 1), 10), y[:, :-1]], 1)
        return F.cross_entropy(net(x, before).flatten(0, 1), y.flatten())

    task = Task(Translator(), loss, lr=3e-3)
    data = [(torch.randint(10, (32, 8)),) for _ in range(200)]
    return Trial(task, data, lambda: task.first - task.last, 1.0)


CASES = (
    gpt,
    gpt_bf16,
    gpt_clipped_with_warm_up_and_decay,
    post_ln_with_warm_up,
    masked_lm,
    mixture_of_experts,
    llama,
    shared_layers,
    encoder_decoder,
)
