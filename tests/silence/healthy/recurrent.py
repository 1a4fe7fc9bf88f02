"""Recurrent nets and other models of sequences."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from tests.silence.case import Task, Trial
from tests.silence.data import batches, digits, lines, text
from tests.silence.healthy.language import next_character


class LanguageModel(nn.Module):
    def __init__(self, layers: int = 2, width: int = 48, drop: float = 0.0) -> None:
        super().__init__()
        _, kinds = text()
        self.embed = nn.Embedding(kinds, 24)
        self.lstm = nn.LSTM(24, width, layers, batch_first=True, dropout=drop)
        self.head = nn.Linear(width, kinds)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(self.embed(x))[0])


def lstm_language_model() -> Trial:
    task = Task(LanguageModel(), next_character, lr=1e-2)
    trial = Trial(task, lines(120), lambda: task.first - task.last, 1.0)
    trial.trainer = {"gradient_clip_val": 1.0}
    return trial


def lstm_language_model_sgd() -> Trial:
    """The recipe of old: plain SGD, clipped, a large rate, dropout of a half."""
    task = Task(
        LanguageModel(1, drop=0.0),
        next_character,
        optimizer=lambda t: torch.optim.SGD(t.parameters(), 4.0),
    )
    trial = Trial(task, lines(160), lambda: task.first - task.last, 0.8)
    trial.trainer = {"gradient_clip_val": 0.5}
    return trial


class Packed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(1, 32, batch_first=True)
        self.head = nn.Linear(32, 1)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        return self.head(self.gru(packed)[1][0])


def gru_of_packed_sequences() -> Trial:
    """Adds up numbers, of which there are between 3 and 20."""
    x = torch.randn(512, 20, 1)
    lengths = torch.randint(3, 21, (512,))
    x = x * (torch.arange(20)[None, :, None] < lengths[:, None, None])
    y = x.sum(1) / 4
    task = Task(Packed(), lambda net, x, n, y: F.mse_loss(net(x, n), y), lr=1e-2)
    return Trial(task, batches(x, lengths, y, steps=150), lambda: 1 - task.last / task.first, 0.7)


class Bidirectional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, 24, batch_first=True, bidirectional=True)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(48, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.drop(self.lstm(x)[0].max(1).values))


def bidirectional_lstm() -> Trial:
    """Reads digits row by row."""
    x, y = digits()
    net = Bidirectional()
    task = Task(net, lambda net, x, y: F.cross_entropy(net(x[:, 0]), y), lr=1e-2)

    def score() -> float:
        return float((net(x[:500, 0]).argmax(-1) == y[:500]).float().mean())

    return Trial(task, batches(x, y, steps=180), score, 0.7)


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.RNN(2, 32, batch_first=True)
        self.head = nn.Linear(32, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x)[0])


def short_tanh_rnn() -> Trial:
    """Tells the next value of a wave, from 24 of them."""
    phase, speed = torch.rand(512, 1) * 6.28, 0.3 + torch.rand(512, 1)
    wave = (phase + speed * torch.arange(25)).sin()[..., None]
    x = torch.cat([wave[:, :-1], torch.ones(512, 24, 1)], -1)
    task = Task(Plain(), lambda net, x, y: F.mse_loss(net(x), y), lr=5e-3)
    return Trial(task, batches(x, wave[:, 1:], steps=150), lambda: 1 - task.last / task.first, 0.8)


class Gated(nn.Module):
    """WaveNet: dilated causal filters, tanh times sigmoid, residuals and skips."""

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.dilation = dilation
        self.filter = nn.Conv1d(width, 2 * width, 2, dilation=dilation)
        self.tanh, self.sigmoid = nn.Tanh(), nn.Sigmoid()
        self.mix = nn.Conv1d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.filter(F.pad(x, (self.dilation, 0))).chunk(2, 1)
        return x + self.mix(self.tanh(a) * self.sigmoid(b))


class WaveNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        _, kinds = text()
        self.embed = nn.Embedding(kinds, 32)
        self.layers = nn.Sequential(*[Gated(32, 2**i) for i in range(5)])
        self.head = nn.Linear(32, kinds)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(self.embed(x).transpose(1, 2)).transpose(1, 2))


def wavenet() -> Trial:
    task = Task(WaveNet(), next_character, lr=4e-3)
    return Trial(task, lines(120), lambda: task.first - task.last, 1.0)


class Speech(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.filter = nn.Sequential(nn.Conv1d(8, 48, 3, padding=1), nn.ReLU())
        self.gru = nn.GRU(48, 32, batch_first=True, bidirectional=True)
        self.head = nn.Linear(64, 11)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.gru(self.filter(x).transpose(1, 2))[0]).log_softmax(-1)


def ctc() -> Trial:
    """Reads three digits that stand next to each other; 10 is the blank."""
    x, y = digits()
    pick = torch.randint(len(x), (600, 3))
    rows = x[pick][:, :, 0].permute(0, 2, 1, 3).reshape(600, 8, 24)

    def loss(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        n = len(x)
        return F.ctc_loss(
            net(x).transpose(0, 1), y, torch.full((n,), 24), torch.full((n,), 3), blank=10
        )

    task = Task(Speech(), loss, lr=1e-2)
    return Trial(task, batches(rows, y[pick], steps=200), lambda: 1 - task.last / task.first, 0.6)


class StateSpace(nn.Module):
    """A diagonal linear recurrence whose decays are learnt, computed as a convolution."""

    def __init__(self, width: int, length: int = 32) -> None:
        super().__init__()
        self.length = length
        self.decay = nn.Parameter(torch.linspace(-3, 3, width))
        self.norm = nn.LayerNorm(width)
        self.enter, self.leave = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        kernel = self.decay.sigmoid()[:, None] ** torch.arange(self.length)
        n = 2 * self.length
        u = self.enter(self.norm(x)).transpose(1, 2)
        y = torch.fft.irfft(torch.fft.rfft(u, n) * torch.fft.rfft(kernel, n), n)
        return x + self.leave(F.gelu(y[..., : self.length].transpose(1, 2)))


def state_space() -> Trial:
    _, kinds = text()
    net = nn.Sequential(
        nn.Embedding(kinds, 32), *[StateSpace(32) for _ in range(3)], nn.Linear(32, kinds)
    )
    task = Task(net, next_character, lr=5e-3)
    return Trial(task, lines(120), lambda: task.first - task.last, 1.0)


class Attentive(nn.Module):
    """A GRU decoder with additive attention over what an encoder read (Bahdanau)."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, width)
        self.encoder = nn.GRU(width, width, batch_first=True)
        self.cell = nn.GRUCell(2 * width, width)
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
        self.score = nn.Linear(width, 1)
        self.head = nn.Linear(2 * width, 11)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        memory, state = self.encoder(self.embed(x))
        state, out = state[0], []
        for t in range(y.shape[1]):
            weight = self.score((self.query(state)[:, None] + self.key(memory)).tanh()).softmax(1)
            seen = (weight * memory).sum(1)
            state = self.cell(torch.cat([self.embed(y[:, t]), seen], -1), state)
            out.append(self.head(torch.cat([state, seen], -1)))
        return torch.stack(out, 1)


def sequence_to_sequence_with_attention() -> Trial:
    def loss(net: nn.Module, x: Tensor) -> Tensor:
        before = torch.cat([torch.full((len(x), 1), 10), x[:, :-1]], 1)
        return F.cross_entropy(net(x, before).flatten(0, 1), x.flatten())

    task = Task(Attentive(), loss, lr=1e-2)
    data = [(torch.randint(10, (32, 6)),) for _ in range(150)]
    return Trial(task, data, lambda: task.first - task.last, 0.7)


CASES = (
    lstm_language_model, lstm_language_model_sgd, gru_of_packed_sequences, bidirectional_lstm,
    short_tanh_rnn, wavenet, ctc, state_space, sequence_to_sequence_with_attention,
)  # fmt: skip
