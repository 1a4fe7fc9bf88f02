"""Models that make images: of digits, and of the noise that is taken from them."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.silence.case import Task, Trial, explained
from tests.silence.data import batches, digits, flat_digits


def fell_to(task: Task, share: float, steps: int, *data: Tensor, size: int = 32) -> Trial:
    """Return a trial that has to bring the loss down to that share of where it began."""
    it = task
    return Trial(
        it, batches(*data, steps=steps, size=size), lambda: 1 - it.last / it.first, 1 - share
    )


class UNet(nn.Module):
    """Two levels, skips, GroupNorm and SiLU; time comes in as a shift."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.time = nn.Sequential(nn.Linear(16, 32), nn.SiLU(), nn.Linear(32, width))
        self.enter = nn.Conv2d(1, width, 3, padding=1)
        self.down = nn.Sequential(
            nn.GroupNorm(4, width), nn.SiLU(), nn.Conv2d(width, 2 * width, 3, 2, 1)
        )
        self.middle = nn.Sequential(
            nn.GroupNorm(4, 2 * width), nn.SiLU(), nn.Conv2d(2 * width, 2 * width, 3, padding=1)
        )
        self.up = nn.ConvTranspose2d(2 * width, width, 2, 2)
        self.leave = nn.Sequential(
            nn.GroupNorm(4, 2 * width), nn.SiLU(), nn.Conv2d(2 * width, 1, 3, padding=1)
        )

    def forward(self, x: Tensor, t: Tensor | None = None) -> Tensor:
        x = self.enter(x)
        if t is not None:
            angle = t[:, None] * 2 ** torch.arange(8)
            x = x + self.time(torch.cat([angle.sin(), angle.cos()], 1))[:, :, None, None]
        low = self.down(x)
        low = low + self.middle(low)
        return self.leave(torch.cat([self.up(low), x], 1))


def denoiser() -> Trial:
    x, _ = digits()

    def loss(net: nn.Module, x: Tensor) -> Tensor:
        return F.mse_loss(net(x + 0.5 * torch.randn_like(x)), x)

    return fell_to(Task(UNet(), loss), 0.5, 120, x)


def diffusion() -> Trial:
    """Predicts the noise; the last layer starts at zero, as is usual."""
    x, _ = digits()
    net = UNet()
    nn.init.zeros_(net.leave[-1].weight)
    nn.init.zeros_(net.leave[-1].bias)

    def loss(net: nn.Module, x: Tensor) -> Tensor:
        t = torch.rand(len(x))
        angle = (t * math.pi / 2)[:, None, None, None]
        noise = torch.randn_like(x)
        return F.mse_loss(net(angle.cos() * (2 * x - 1) + angle.sin() * noise, t), noise)

    return fell_to(Task(net, loss, lr=4e-3), 0.5, 150, x)


class VAE(nn.Module):
    def __init__(self, latent: int = 8) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2 * latent))
        self.decoder = nn.Sequential(nn.Linear(latent, 64), nn.ReLU(), nn.Linear(64, 64))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_var = self.encoder(x.flatten(1)).chunk(2, 1)
        z = mean + torch.randn_like(mean) * (log_var / 2).exp()
        kl = 0.5 * (mean.square() + log_var.exp() - 1 - log_var).sum(1).mean()
        return self.decoder(z), kl


def beta_vae() -> Trial:
    x, _ = digits()

    def loss(net: nn.Module, x: Tensor) -> Tensor:
        out, kl = net(x)
        return F.binary_cross_entropy_with_logits(out, x.flatten(1)) * 64 + 2.0 * kl

    return fell_to(Task(VAE(), loss), 0.8, 200, x)


def vae_whose_latents_collapse_at_first() -> Trial:
    """The weight of the KL term is warmed up."""
    x, _ = digits()
    seen = [0]

    def loss(net: nn.Module, x: Tensor) -> Tensor:
        out, kl = net(x)
        seen[0] += 1
        return F.mse_loss(out, x.flatten(1), reduction="none").sum(1).mean() + kl * min(
            seen[0] / 100, 0.1
        )

    return fell_to(Task(VAE(), loss), 0.5, 200, x)


def l1_sparse_autoencoder() -> Trial:
    x, _ = flat_digits()
    net = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64))

    def loss(net: nn.Module, x: Tensor) -> Tensor:
        code = net[1](net[0](x))
        return F.mse_loss(net[2](code), x) + 0.03 * code.abs().mean(1).sum() / len(x)

    task = Task(net, loss)
    return Trial(task, batches(x, steps=200), lambda: explained(net(x), x), 0.7)


class TopK(nn.Module):
    def __init__(self, width: int = 96, k: int = 8) -> None:
        super().__init__()
        self.k = k
        self.encoder, self.act = nn.Linear(64, width), nn.ReLU()
        self.decoder = nn.Linear(width, 64)
        self.encoder.weight.data = self.decoder.weight.data.T.clone()

    def forward(self, x: Tensor) -> Tensor:
        code = self.act(self.encoder(x - self.decoder.bias))
        best = code.topk(self.k, -1)
        return self.decoder(torch.zeros_like(code).scatter(-1, best.indices, best.values))


def top_k_autoencoder() -> Trial:
    x, _ = flat_digits()
    net = TopK()
    task = Task(net, lambda net, x: F.mse_loss(net(x), x))
    return Trial(task, batches(x, steps=200), lambda: explained(net(x), x), 0.6)


class GAN(Task):
    """Two optimizers, by hand. `signed` and clipped: Wasserstein; else cross-entropy."""

    def __init__(self, generator: nn.Module, critic: nn.Module, wasserstein: bool) -> None:
        super().__init__(generator, F.mse_loss)
        self.critic = critic
        self.wasserstein = wasserstein
        self.automatic_optimization = False

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        if self.wasserstein:
            return [
                torch.optim.RMSprop(self.net.parameters(), 1e-3),
                torch.optim.RMSprop(self.critic.parameters(), 1e-3),
            ]
        return [
            torch.optim.Adam(self.net.parameters(), 2e-3, betas=(0.5, 0.999)),
            torch.optim.Adam(self.critic.parameters(), 2e-3, betas=(0.5, 0.999)),
        ]

    def training_step(self, batch, batch_idx):
        (x,) = batch
        make, judge = self.optimizers()
        z = torch.randn(len(x), 8)
        self.toggle_optimizer(judge)
        real, fake = self.critic(x), self.critic(self.net(z).detach())
        if self.wasserstein:
            loss = fake.mean() - real.mean()
        else:
            loss = F.softplus(-real).mean() + F.softplus(fake).mean()
        judge.zero_grad()
        self.manual_backward(loss)
        judge.step()
        if self.wasserstein:
            for parameter in self.critic.parameters():
                parameter.data.clamp_(-0.1, 0.1)
        self.untoggle_optimizer(judge)
        self.toggle_optimizer(make)
        fake = self.critic(self.net(z))
        loss = -fake.mean() if self.wasserstein else F.softplus(-fake).mean()
        make.zero_grad()
        self.manual_backward(loss)
        make.step()
        self.untoggle_optimizer(make)
        self.losses.append(float(loss.detach()))


def likeness(task: GAN, real: Tensor) -> float:
    """How close the made images' mean image is to that of the real ones (R²)."""
    made = task.net(torch.randn(256, 8)).mean(0).detach().flatten()
    return explained(made, real.mean(0).flatten())


def dcgan() -> Trial:
    x, _ = digits()
    x = 2 * x - 1
    generator = nn.Sequential(
        nn.Linear(8, 128), nn.Unflatten(1, (32, 2, 2)), nn.BatchNorm2d(32), nn.ReLU(),
        nn.ConvTranspose2d(32, 16, 4, 2, 1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.ConvTranspose2d(16, 1, 4, 2, 1), nn.Tanh(),
    )  # fmt: skip
    critic = nn.Sequential(
        nn.Conv2d(1, 16, 4, 2, 1), nn.LeakyReLU(0.2),
        nn.Conv2d(16, 32, 4, 2, 1), nn.BatchNorm2d(32), nn.LeakyReLU(0.2),
        nn.Flatten(), nn.Linear(128, 1),
    )  # fmt: skip
    task = GAN(generator, critic, wasserstein=False)
    return Trial(task, batches(x, steps=200), lambda: likeness(task, x), 0.7)


def wgan_clipped() -> Trial:
    x, _ = digits()
    x = (2 * x - 1).flatten(1)
    generator = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 64), nn.Tanh())
    critic = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(),
                           nn.Linear(32, 1))  # fmt: skip
    task = GAN(generator, critic, wasserstein=True)
    return Trial(task, batches(x, steps=250), lambda: likeness(task, x), 0.7)


class Coupling(nn.Module):
    """RealNVP: half of the numbers scale and shift the other; starts as the identity."""

    def __init__(self, width: int, flip: bool) -> None:
        super().__init__()
        self.flip = flip
        self.net = nn.Sequential(nn.Linear(width // 2, 32), nn.ReLU(), nn.Linear(32, width))
        nn.init.zeros_(self.net[-1].weight)
        nn.init.zeros_(self.net[-1].bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        a, b = x.chunk(2, 1)
        if self.flip:
            a, b = b, a
        scale, shift = self.net(a).chunk(2, 1)
        scale = scale.tanh()
        out = [a, b * scale.exp() + shift]
        return torch.cat(out[::-1] if self.flip else out, 1), scale.sum(1)


def normalising_flow() -> Trial:
    """Its loss is a log-density of two moons, which goes below zero."""
    angle = torch.rand(2000) * math.pi
    side = torch.randint(2, (2000,)).float()
    x = torch.stack([angle.cos() + side, (1 - 2 * side) * angle.sin() + 0.5 * side], 1)
    x = (x + 0.05 * torch.randn_like(x)) * 0.3
    net = nn.ModuleList(Coupling(2, i % 2 == 1) for i in range(6))

    def loss(net: nn.Module, x: Tensor) -> Tensor:
        log_det = 0.0
        for layer in net:
            x, more = layer(x)
            log_det = log_det + more
        return (0.5 * x.square().sum(1) + math.log(2 * math.pi) - log_det).mean()

    task = Task(net, loss)
    return Trial(task, batches(x, steps=250, size=64), lambda: task.first - task.last, 1.5)


class VQ(nn.Module):
    """A codebook; the gradient goes straight through it."""

    def __init__(self, codes: int = 32, width: int = 8) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(1, 16, 2, 2), nn.ReLU(), nn.Conv2d(16, width, 1))
        self.codes = nn.Embedding(codes, width)
        nn.init.uniform_(self.codes.weight, -0.5, 0.5)
        self.decoder = nn.Sequential(
            nn.Conv2d(width, 16, 3, padding=1), nn.ReLU(), nn.ConvTranspose2d(16, 1, 2, 2)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z = self.encoder(x).permute(0, 2, 3, 1)
        near = torch.cdist(z.reshape(-1, z.shape[-1]), self.codes.weight).argmin(1)
        q = self.codes(near).view_as(z)
        commit = F.mse_loss(q, z.detach()) + 0.25 * F.mse_loss(z, q.detach())
        return self.decoder((z + (q - z).detach()).permute(0, 3, 1, 2)), commit


def vq_vae() -> Trial:
    x, _ = digits()

    def loss(net: nn.Module, x: Tensor) -> Tensor:
        out, commit = net(x)
        return F.mse_loss(out, x) + commit

    return fell_to(Task(VQ(), loss), 0.4, 200, x)


class PixelConv(nn.Conv2d):
    """Sees what lies above and to the left only."""

    def __init__(self, i: int, o: int, size: int, itself: bool) -> None:
        super().__init__(i, o, size, padding=size // 2)
        mask = torch.ones(size * size)
        mask[size * size // 2 + itself :] = 0
        self.register_buffer("mask", mask.view(size, size))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight * self.mask, self.bias, padding=self.padding)


def pixel_cnn() -> Trial:
    x, _ = digits()
    levels = (x * 4).round().long().clamp(0, 4)
    net = nn.Sequential(
        PixelConv(1, 24, 5, itself=False), nn.ReLU(),
        PixelConv(24, 24, 3, itself=True), nn.ReLU(),
        PixelConv(24, 24, 3, itself=True), nn.ReLU(), nn.Conv2d(24, 5, 1),
    )  # fmt: skip
    task = Task(net, lambda net, x, y: F.cross_entropy(net(x), y[:, 0]))
    return fell_to(task, 0.6, 150, x, levels)


def segmentation_with_dice() -> Trial:
    """Finds the strokes in noisy images."""
    x, _ = digits()
    strokes = (x > 0.5).float()
    noisy = x + 0.4 * torch.randn_like(x)

    def loss(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        p = net(x).sigmoid()
        return 1 - 2 * (p * y).sum() / (p.sum() + y.sum())

    return fell_to(Task(UNet(8), loss), 0.5, 120, noisy, strokes)


CASES = (
    denoiser, diffusion, beta_vae, vae_whose_latents_collapse_at_first, l1_sparse_autoencoder,
    top_k_autoencoder, dcgan, wgan_clipped, normalising_flow, vq_vae, pixel_cnn,
    segmentation_with_dice,
)  # fmt: skip
