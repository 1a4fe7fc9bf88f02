"""Reinforcement learning: signed losses, targets that move, losses that rise while one learns."""

from __future__ import annotations

import copy
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.silence.case import Task, Trial
from tests.silence.data import flat_digits

SIZE = 6


def policy() -> nn.Sequential:
    return nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 10))


def right(net: nn.Module) -> float:
    """Return the mean reward of what the policy thinks best."""
    x, y = flat_digits()
    with torch.no_grad():
        return float((net(x).argmax(1) == y).float().mean())


def states(steps: int, size: int = 64) -> list[tuple[Tensor, Tensor]]:
    x, y = flat_digits()
    at = [torch.randint(len(x), (size,)) for _ in range(steps)]
    return [(x[i], y[i]) for i in at]


def policy_gradient() -> Trial:
    """REINFORCE with a baseline: reward 1 for naming a digit; the loss means nothing."""

    def loss(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        chosen = torch.distributions.Categorical(logits=net(x))
        action = chosen.sample()
        reward = (action == y).float()
        gain = (reward - reward.mean()) / (reward.std() + 1e-6)
        return -(gain * chosen.log_prob(action)).mean() - 0.01 * chosen.entropy().mean()

    net = policy()
    return Trial(Task(net, loss, lr=5e-3), states(250), lambda: right(net), 0.5)


class ActorCritic(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(64, 64), nn.Tanh())
        self.actor, self.critic = nn.Linear(64, 10), nn.Linear(64, 1)
        nn.init.orthogonal_(self.actor.weight, 0.01)

    def forward(self, x: Tensor) -> Tensor:
        return self.actor(self.body(x))


class PPO(Task):
    """Clipped surrogate, four updates a batch, by hand."""

    def __init__(self) -> None:
        super().__init__(ActorCritic(), F.mse_loss)
        self.automatic_optimization = False

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), 3e-3, eps=1e-5)

    def training_step(self, batch, batch_idx):
        x, y = batch
        net, optimizer = self.net, self.optimizers()
        with torch.no_grad():
            old = torch.distributions.Categorical(logits=net(x))
            action = old.sample()
            reward = (action == y).float()
            before = old.log_prob(action)
        for _ in range(4):
            h = net.body(x)
            new = torch.distributions.Categorical(logits=net.actor(h))
            value = net.critic(h)[:, 0]
            gain = reward - value.detach()
            gain = (gain - gain.mean()) / (gain.std() + 1e-8)
            ratio = (new.log_prob(action) - before).exp()
            surrogate = torch.min(ratio * gain, ratio.clamp(0.8, 1.2) * gain).mean()
            loss = 0.5 * F.mse_loss(value, reward) - surrogate - 0.01 * new.entropy().mean()
            optimizer.zero_grad()
            self.manual_backward(loss)
            nn.utils.clip_grad_norm_(net.parameters(), 0.5)
            optimizer.step()
        self.losses.append(float(loss.detach()))


def ppo() -> Trial:
    task = PPO()
    return Trial(task, states(70), lambda: right(task.net), 0.5)


def step(at: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Move on a 6 x 6 board; the far corner pays 1 and ends the episode."""
    moves = torch.tensor([[1, 0], [-1, 0], [0, 1], [0, -1]])
    after = (at + moves[action]).clamp(0, SIZE - 1)
    done = (after == SIZE - 1).all(1)
    return after, done.float(), done


class DQN(Task):
    """Targets move every 25 steps: the loss starts near zero and rises while it learns."""

    def __init__(self) -> None:
        net = nn.Sequential(nn.Linear(2 * SIZE, 64), nn.ReLU(), nn.Linear(64, 4))
        super().__init__(net, F.mse_loss, lr=5e-3)
        self.target = copy.deepcopy(net).requires_grad_(False)

    @staticmethod
    def see(at: Tensor) -> Tensor:
        return F.one_hot(at, SIZE).flatten(1).float()

    def training_step(self, batch, batch_idx):
        at, action = batch
        if batch_idx % 25 == 0:
            self.target.load_state_dict(self.net.state_dict())
        after, reward, done = step(at, action)
        with torch.no_grad():
            best = self.target(self.see(after)).max(1).values
            goal = reward + 0.9 * best * ~done
        value = self.net(self.see(at)).gather(1, action[:, None])[:, 0]
        loss = F.smooth_l1_loss(value, goal)
        self.losses.append(float(loss.detach()))
        return loss

    def won(self) -> float:
        """Return the share of squares from which greedy play arrives."""
        at = torch.cartesian_prod(torch.arange(SIZE), torch.arange(SIZE))
        arrived = (at == SIZE - 1).all(1)
        for _ in range(3 * SIZE):
            with torch.no_grad():
                at, _, done = step(at, self.net(self.see(at)).argmax(1))
            arrived |= done
        return float(arrived.float().mean())


def dqn() -> Trial:
    task = DQN()
    data = [(torch.randint(SIZE, (64, 2)), torch.randint(4, (64,))) for _ in range(300)]
    return Trial(task, data, task.won, 0.8)


class DDPG(Task):
    """An actor with a tanh output, a critic, slow copies of both, two optimizers."""

    def __init__(self) -> None:
        actor = nn.Sequential(nn.Linear(3, 48), nn.ReLU(), nn.Linear(48, 1), nn.Tanh())
        super().__init__(actor, F.mse_loss)
        self.critic = nn.Sequential(nn.Linear(4, 48), nn.ReLU(), nn.Linear(48, 1))
        self.slow = copy.deepcopy(nn.ModuleList([self.net, self.critic])).requires_grad_(False)
        self.automatic_optimization = False

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        return [
            torch.optim.Adam(self.net.parameters(), 2e-3),
            torch.optim.Adam(self.critic.parameters(), 5e-3),
        ]

    @staticmethod
    def reward(x: Tensor, a: Tensor) -> Tensor:
        return -(a - (x[:, :1] + x[:, 1:2]).sin()).square()

    def training_step(self, batch, batch_idx):
        (x,) = batch
        act, judge = self.optimizers()
        with torch.no_grad():
            a = (self.net(x) + 0.5 * torch.randn(len(x), 1)).clamp(-1, 1)
            after = torch.cat([x[:, 1:], a], 1)
            goal = self.reward(x, a) + 0.5 * self.slow[1](
                torch.cat([after, self.slow[0](after)], 1)
            )
        loss = F.mse_loss(self.critic(torch.cat([x, a], 1)), goal)
        judge.zero_grad()
        self.manual_backward(loss)
        judge.step()
        gain = self.critic(torch.cat([x, self.net(x)], 1)).mean()
        act.zero_grad()
        self.manual_backward(-gain)
        act.step()
        with torch.no_grad():
            fast = [*self.net.parameters(), *self.critic.parameters()]
            for a_slow, a_fast in zip(self.slow.parameters(), fast, strict=True):
                a_slow.lerp_(a_fast, 0.05)
        self.losses.append(float(loss.detach()))


def ddpg() -> Trial:
    task = DDPG()
    x = torch.randn(500, 3)

    def score() -> float:
        with torch.no_grad():
            return float(self_reward(task, x))

    def self_reward(task: DDPG, x: Tensor) -> Tensor:
        return 1 + task.reward(x, task.net(x)).mean()

    return Trial(task, [(torch.randn(64, 3),) for _ in range(250)], score, 0.8)


class SAC(nn.Module):
    """A squashed Gaussian policy and the temperature of its entropy."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, 48), nn.ReLU(), nn.Linear(48, 2))
        self.log_alpha = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_std = self.body(x).chunk(2, 1)
        normal = torch.distributions.Normal(mean, log_std.clamp(-5, 2).exp())
        u = normal.rsample()
        log_p = normal.log_prob(u) - 2 * (math.log(2) - u - F.softplus(-2 * u))
        return u.tanh(), log_p[:, 0]


def soft_policy() -> Trial:
    def loss(net: nn.Module, x: Tensor) -> Tensor:
        a, log_p = net(x)
        alpha = net.log_alpha.exp()
        cost = (a - (x[:, :1] + x[:, 1:2]).sin()).square()[:, 0]
        return (4 * cost + alpha.detach() * log_p - alpha * (log_p.detach() + 1)).mean()

    net = SAC()
    task = Task(net, loss, lr=5e-3)
    x = torch.randn(500, 3)

    def score() -> float:
        with torch.no_grad():
            mean = net.body(x)[:, :1].tanh()
            return float(1 - (mean - (x[:, :1] + x[:, 1:2]).sin()).square().mean())

    return Trial(task, [(torch.randn(64, 3),) for _ in range(250)], score, 0.8)


CASES = (policy_gradient, ppo, dqn, ddpg, soft_policy)
