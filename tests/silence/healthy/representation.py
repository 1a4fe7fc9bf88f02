"""Models that learn what is alike: contrastive losses, towers, codes of items and users."""

from __future__ import annotations

import copy
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.silence.case import Task, Trial
from tests.silence.data import batches, digits, flat_digits, text


def encoder(out: int = 16, norm: bool = True) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Linear(64, 96)]
    layers += [nn.BatchNorm1d(96)] if norm else []
    return nn.Sequential(*layers, nn.ReLU(), nn.Linear(96, out))


def view(x: Tensor) -> Tensor:
    """Return the vectors as an augmentation leaves them."""
    return x * (torch.rand_like(x) > 0.2) + 0.2 * torch.randn_like(x)


def neighbours(net: nn.Module, n: int = 800) -> float:
    """Return the share of digits whose nearest neighbour is of their class."""
    x, y = flat_digits()
    with torch.no_grad():
        z = F.normalize(net(x[:n]), dim=1)
    near = (z @ z.T - 2 * torch.eye(n)).argmax(1)
    return float((y[near] == y[:n]).float().mean())


def simclr() -> Trial:
    """Temperature 0.1."""
    x, _ = flat_digits()
    net = encoder()

    def loss(net: nn.Module, x: Tensor) -> Tensor:
        a, b = (F.normalize(net(view(x)), dim=1) for _ in range(2))
        at = torch.arange(len(x))
        return F.cross_entropy(a @ b.T / 0.1, at) + F.cross_entropy(b @ a.T / 0.1, at)

    task = Task(net, loss)
    return Trial(task, batches(x, steps=150, size=64), lambda: 1 - task.last / task.first, 0.4)


class Online(nn.Module):
    """BYOL: one side follows the other; nothing but a predictor keeps them from collapsing."""

    def __init__(self) -> None:
        super().__init__()
        self.online = encoder()
        self.target = copy.deepcopy(self.online).requires_grad_(False)
        self.predictor = nn.Sequential(
            nn.Linear(16, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 16)
        )

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            for slow, fast in zip(self.target.parameters(), self.online.parameters(), strict=True):
                slow.lerp_(fast, 0.03)
            goal = F.normalize(self.target(view(x)), dim=1)
        return 2 - 2 * (F.normalize(self.predictor(self.online(view(x))), dim=1) * goal).sum(1)


def byol() -> Trial:
    x, _ = flat_digits()
    net = Online()
    task = Task(net, lambda net, x: net(x).mean())
    return Trial(task, batches(x, steps=150, size=64), lambda: neighbours(net.online.eval()), 0.8)


def barlow_twins() -> Trial:
    x, _ = flat_digits()
    net = encoder()

    def loss(net: nn.Module, x: Tensor) -> Tensor:
        a, b = ((z - z.mean(0)) / z.std(0) for z in (net(view(x)), net(view(x))))
        c = a.T @ b / len(x) - torch.eye(16)
        return c.diagonal().square().sum() + 0.02 * c.square().sum()

    task = Task(net, loss)
    return Trial(task, batches(x, steps=150, size=64), lambda: 1 - task.last / task.first, 0.3)


def triplets() -> tuple[Tensor, Tensor, Tensor]:
    x, y = flat_digits()
    same = torch.stack([torch.multinomial((y == c).float(), 1)[0] for c in y])
    other = torch.stack([torch.multinomial((y != c).float(), 1)[0] for c in y])
    return x, x[same], x[other]


def triplet_loss() -> Trial:
    net = encoder(norm=False)

    def loss(net: nn.Module, *abc: Tensor) -> Tensor:
        return F.triplet_margin_loss(*(F.normalize(net(x), dim=1) for x in abc), margin=0.5)

    task = Task(net, loss)
    return Trial(task, batches(*triplets(), steps=200), lambda: 1 - task.last / task.first, 0.7)


def siamese() -> Trial:
    """Contrastive loss of pairs, half of them alike."""
    a, same, other = triplets()
    alike = torch.rand(len(a)) < 0.5
    b = torch.where(alike[:, None], same, other)

    def loss(net: nn.Module, a: Tensor, b: Tensor, alike: Tensor) -> Tensor:
        d = (net(a) - net(b)).square().sum(1).add(1e-8).sqrt()
        return torch.where(alike, d.square(), (2 - d).clamp_min(0).square()).mean()

    task = Task(encoder(8, norm=False), loss)
    return Trial(task, batches(a, b, alike, steps=200), lambda: 1 - task.last / task.first, 0.6)


class Towers(nn.Module):
    """CLIP: a tower for images, one for their names, a temperature that is learnt."""

    def __init__(self) -> None:
        super().__init__()
        self.image = encoder()
        self.words = nn.Embedding(10, 16)
        self.scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        a, b = F.normalize(self.image(x), dim=1), F.normalize(self.words(y), dim=1)
        return self.scale.exp() * a @ b.T


def clip() -> Trial:
    x, y = flat_digits()
    data = []
    for _ in range(150):
        at = torch.stack([torch.multinomial((y == c).float(), 1)[0] for c in range(10)])
        data.append((x[at], y[at]))

    def loss(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        logits, at = net(x, y), torch.arange(10)
        return F.cross_entropy(logits, at) + F.cross_entropy(logits.T, at)

    task = Task(Towers(), loss)
    return Trial(task, data, lambda: 1 - task.last / task.first, 0.7)


def arc_face() -> Trial:
    """Large margins and logits of up to 16: the loss begins at many times log(10)."""
    x, y = flat_digits()
    net = nn.ModuleDict({"body": encoder(), "names": nn.Embedding(10, 16)})

    def loss(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        cos = F.normalize(net["body"](x), dim=1) @ F.normalize(net["names"].weight, dim=1).T
        angle = cos.clamp(-1 + 1e-6, 1 - 1e-6).acos() + 0.3 * F.one_hot(y, 10)
        return F.cross_entropy(16 * angle.cos(), y)

    task = Task(net, loss)
    return Trial(task, batches(x, y, steps=150), lambda: neighbours(net["body"].eval()), 0.85)


def word_vectors() -> Trial:
    """Skip-gram with negative samples and sparse gradients, of pairs of characters."""
    ids, kinds = text()
    net = nn.ModuleDict(
        {name: nn.Embedding(kinds * kinds, 16, sparse=True) for name in ("word", "context")}
    )
    nn.init.zeros_(net["context"].weight)
    pairs = ids[:-1] * kinds + ids[1:]

    def loss(net: nn.Module, word: Tensor, context: Tensor) -> Tensor:
        w = net["word"](word)
        good = (w * net["context"](context)).sum(-1)
        wrong = pairs[torch.randint(len(pairs), (len(word), 5))]
        bad = (w[:, None] * net["context"](wrong)).sum(-1)
        return F.softplus(-good).mean() + F.softplus(bad).sum(1).mean()

    task = Task(net, loss, optimizer=lambda t: torch.optim.SparseAdam(t.parameters(), lr=2e-2))
    return Trial(
        task,
        batches(pairs[:-2], pairs[2:], steps=200, size=128),
        lambda: 1 - task.last / task.first,
        0.3,
    )


class Ratings(nn.Module):
    """Users and films; most are seen rarely or never."""

    def __init__(self, sparse: bool) -> None:
        super().__init__()
        self.user = nn.Embedding(300, 8, sparse=sparse)
        self.film = nn.Embedding(2000, 8, sparse=sparse)
        self.user_bias = nn.Embedding(300, 1, sparse=sparse)
        self.film_bias = nn.Embedding(2000, 1, sparse=sparse)
        self.mean = nn.Parameter(torch.zeros(()))
        for table in (self.user, self.film):
            nn.init.normal_(table.weight, std=0.1)
        for table in (self.user_bias, self.film_bias):
            nn.init.zeros_(table.weight)

    def forward(self, user: Tensor, film: Tensor) -> Tensor:
        bias = (self.user_bias(user) + self.film_bias(film))[:, 0]
        return (self.user(user) * self.film(film)).sum(1) + bias + self.mean


def seen_films() -> tuple[Tensor, Tensor, Tensor]:
    """Return who saw what and how many stars; a few films are seen by nearly all."""
    n = 6000
    user = torch.randint(300, (n,))
    film = (2000 * torch.rand(n) ** 6).long()
    taste = torch.randn(300) * 0.5, torch.randn(2000) * 0.7
    return user, film, (3.5 + taste[0][user] + taste[1][film] + 0.3 * torch.randn(n)).clamp(1, 5)


def matrix_factorisation_sparse() -> Trial:
    task = Task(
        Ratings(sparse=True),
        lambda net, u, f, y: F.mse_loss(net(u, f), y),
        optimizer=lambda t: torch.optim.Adagrad(t.parameters(), lr=0.3),
    )
    return Trial(
        task,
        batches(*seen_films(), steps=200, size=64),
        lambda: 1 - task.last / task.first,
        0.8,
    )


class TwoTowers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.user, self.film = nn.Embedding(300, 16), nn.Embedding(2000, 16)
        self.mlp = nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 1))

    def forward(self, user: Tensor, film: Tensor) -> Tensor:
        return self.mlp(torch.cat([self.user(user), self.film(film)], 1))[:, 0]


def neural_recommender() -> Trial:
    user, film, stars = seen_films()
    liked = (stars > 3.5).float()
    task = Task(
        TwoTowers(),
        lambda net, u, f, y: F.binary_cross_entropy_with_logits(net(u, f), y),
        lr=1e-2,
    )
    return Trial(
        task,
        batches(user, film, liked, steps=200, size=64),
        lambda: 1 - task.last / task.first,
        0.2,
    )


def distillation() -> Trial:
    """A small student and the soft answers of a teacher that was trained before."""
    x, y = flat_digits()
    teacher = encoder(10)
    optimizer = torch.optim.Adam(teacher.parameters(), 1e-2)
    for a, b in batches(x, y, steps=60):
        optimizer.zero_grad()
        F.cross_entropy(teacher(a), b).backward()
        optimizer.step()
    net = nn.ModuleDict(
        {
            "teacher": teacher.eval().requires_grad_(False),
            "student": nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10)),
        }
    )

    def loss(net: nn.Module, x: Tensor) -> Tensor:
        net["teacher"].eval()
        goal = (net["teacher"](x) / 4).softmax(1)
        return 16 * F.kl_div((net["student"](x) / 4).log_softmax(1), goal, reduction="batchmean")

    task = Task(net, loss)
    return Trial(task, batches(x, steps=150), lambda: 1 - task.last / task.first, 0.7)


class MaskedAutoencoder(nn.Module):
    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.embed = nn.Linear(4, width)
        self.places = nn.Parameter(torch.randn(16, width) * 0.1)
        self.hidden = nn.Parameter(torch.zeros(width))
        layer = nn.TransformerEncoderLayer(
            width, 4, 64, 0.0, "gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(width, 4)

    def forward(self, x: Tensor, hide: Tensor) -> Tensor:
        x = torch.where(hide[..., None], self.hidden, self.embed(x))
        return self.head(self.encoder(x + self.places))


def masked_autoencoder() -> Trial:
    x, _ = digits()
    patches = F.unfold(x, 2, stride=2).transpose(1, 2)
    patches = (patches - patches.mean()) / patches.std()

    def loss(net: nn.Module, x: Tensor) -> Tensor:
        hide = torch.rand(x.shape[:2]) < 0.5
        return F.mse_loss(net(x, hide)[hide], x[hide])

    task = Task(MaskedAutoencoder(), loss)
    return Trial(task, batches(patches, steps=150), lambda: 1 - task.last / task.first, 0.4)


CASES = (
    simclr, byol, barlow_twins, triplet_loss, siamese, clip, arc_face, word_vectors,
    matrix_factorisation_sparse, neural_recommender, distillation, masked_autoencoder,
)  # fmt: skip
