"""A diffusion policy: actions, or chunks of them, by denoising. Axes: K denoising steps, D numbers of an action."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn


def cosine_alpha_bar(steps: int) -> Tensor:
    """Share of the data's variance left after each noising step [K]; betas capped at 0.999. arXiv:2102.09672 eq. 17"""
    t = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    curve = ((t + 0.008) / 1.008 * math.pi / 2).cos() ** 2
    beta = (1 - curve[1:] / curve[:-1]).clamp(max=0.999)
    return (1 - beta).cumprod(0).float()


class Schedule(nn.Module):
    """DDPM's constants, K steps; step K-1 is the noisiest. x_t = alpha_t x_0 + sigma_t eps. arXiv:2006.11239"""

    bar: Tensor
    alpha: Tensor
    sigma: Tensor
    on_x0: Tensor
    on_x: Tensor
    std: Tensor

    def __init__(self, steps: int):
        super().__init__()
        bar = cosine_alpha_bar(steps)
        before = torch.cat([torch.ones(1), bar[:-1]])
        keep = bar / before
        self.register_buffer("bar", bar)
        self.register_buffer("alpha", bar.sqrt())
        self.register_buffer("sigma", (1 - bar).sqrt())
        self.register_buffer("on_x0", before.sqrt() * (1 - keep) / (1 - bar))
        self.register_buffer("on_x", keep.sqrt() * (1 - before) / (1 - bar))
        self.register_buffer("std", ((1 - keep) * (1 - before) / (1 - bar)).clamp(min=0).sqrt())

    def noised(self, x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        return self.alpha[t][..., None] * x0 + self.sigma[t][..., None] * eps

    def x0_of(self, x: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        return (x - self.sigma[t][..., None] * eps) / self.alpha[t][..., None]

    def eps_of(self, x: Tensor, x0: Tensor, t: Tensor) -> Tensor:
        return (x - self.alpha[t][..., None] * x0) / self.sigma[t][..., None]

    def mean(self, x: Tensor, x0: Tensor, t: Tensor) -> Tensor:
        """Of q(x_{t-1} | x_t, x_0)."""
        return self.on_x0[t][..., None] * x0 + self.on_x[t][..., None] * x


class Denoiser(nn.Module):
    """MLP: (x [..., D], t [...], cond [..., S]) -> the noise in x [..., D]."""

    rates: Tensor

    def __init__(self, dims: int, cond: int, hidden: int):
        super().__init__()
        self.register_buffer("rates", torch.exp(torch.arange(8) * -math.log(1e4) / 7), persistent=False)
        self.net = nn.Sequential(
            nn.Linear(dims + cond + 16, hidden), nn.Mish(), nn.Linear(hidden, hidden), nn.Mish(),
            nn.Linear(hidden, hidden), nn.Mish(), nn.Linear(hidden, dims),
        )  # fmt: skip

    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        phase = t[..., None] * self.rates
        return self.net(torch.cat([x, phase.sin(), phase.cos(), cond], -1))


def normal_logp(x: Tensor, mean: Tensor, std: Tensor | float) -> Tensor:
    """log N(x; mean, std) of each number, clamped to [-5, 2], mean over the last axis. [repo irom-princeton/dppo]"""
    std = torch.as_tensor(std, dtype=x.dtype, device=x.device)
    each = -0.5 * ((x - mean) / std) ** 2 - std.log() - 0.5 * math.log(2 * math.pi)
    return each.clamp(-5, 2).mean(-1)


def normal_entropy(std: Tensor) -> Tensor:
    """Entropy of a number of N(., std), mean over the last axis: on the scale of `normal_logp`."""
    return (std.log() + 0.5 * math.log(2 * math.pi * math.e)).mean(-1)


class DiffusionPolicy(nn.Module):
    """N chains; a decision is one of the last T = `tuned` of K denoising steps, before them the frozen `base` acts.

    obs = {"cond": [N, S], "x": [N, T, D] before each decision}; action [N, T, D] is x after it.
    floor  smallest standard deviation of a decision, in sampling and in logp
    """

    def __init__(self, cond: int, dims: int, *, steps: int, tuned: int, hidden: int, floor: float):
        super().__init__()
        if not 1 <= tuned <= steps:
            raise ValueError(f"of {steps} denoising steps {tuned} cannot be tuned: tuned lies in 1..{steps}")
        if not floor > 0:
            raise ValueError(f"the floor of the standard deviation must be positive, not {floor}: without noise logp is undefined")
        self.dims, self.steps, self.tuned, self.floor = dims, steps, tuned, floor
        self.schedule, self.net = Schedule(steps), Denoiser(dims, cond, hidden)
        self.base = copy.deepcopy(self.net).requires_grad_(False)

    def freeze(self) -> None:
        """Let the base be what the network is now."""
        self.base.load_state_dict(self.net.state_dict())

    def loss(self, x0: Tensor, cond: Tensor, generator: torch.Generator) -> Tensor:
        """Denoising loss of demonstrations x0 [B, D]: behaviour cloning."""
        t = torch.randint(self.steps, (len(x0),), generator=generator, device=x0.device)
        eps = torch.randn(x0.shape, generator=generator, device=x0.device)
        return ((self.net(self.schedule.noised(x0, eps, t), t, cond) - eps) ** 2).mean()

    def mean(self, net: nn.Module, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        x0 = self.schedule.x0_of(x, net(x, t, cond), t).clamp(-1, 1)
        return self.schedule.mean(x, x0, t)

    def logp_entropy(self, obs: dict[str, Tensor], action: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Both [N, T]; the entropy is that of the schedule's noise, which no parameter changes."""
        x = obs["x"]
        t = torch.arange(self.tuned - 1, -1, -1, device=x.device).expand(len(x), -1)
        cond = obs["cond"][:, None].expand(-1, self.tuned, -1)
        std = self.schedule.std[t].clamp(min=self.floor)[..., None]
        return normal_logp(action, self.mean(self.net, x, t, cond), std), normal_entropy(std)

    def logp(self, obs: dict[str, Tensor], action: Tensor, mask: Tensor) -> Tensor:
        return self.logp_entropy(obs, action, mask)[0]

    def chain(self, cond: Tensor, generator: torch.Generator, greedy: bool) -> Tensor:
        """x before the first decision and after each [B, T+1, D]. Greedy: no floor, and no noise in the last step."""
        x = torch.randn(len(cond), self.dims, generator=generator, device=cond.device)
        states = []
        for i in reversed(range(self.steps)):
            if i < self.tuned:
                states.append(x)
            t = torch.full((len(cond),), i, device=cond.device)
            noise = torch.randn(x.shape, generator=generator, device=cond.device).clamp(-3, 3)
            std = self.schedule.std[i].clamp(min=0.0 if greedy else self.floor)
            x = self.mean(self.net if i < self.tuned else self.base, x, t, cond) + std * noise
        return torch.stack([*states, x], 1)

    @torch.no_grad()
    def decide(self, cond: Tensor, generator: torch.Generator) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """-> (obs, action [B, T, D], the chunk for the environment [B, D])"""
        chain = self.chain(cond, generator, greedy=False)
        return {"cond": cond, "x": chain[:, :-1]}, chain[:, 1:], chain[:, -1].clamp(-1, 1)

    @torch.no_grad()
    def act(self, obs: Tensor, generator: torch.Generator, greedy: bool = False) -> Tensor:
        return self.chain(obs, generator, greedy)[:, -1].clamp(-1, 1)


class GaussianChunk(nn.Module):
    """One decision: a Gaussian over the whole action, its mean an MLP, its standard deviation free above `floor`."""

    tuned = 1

    def __init__(self, cond: int, dims: int, *, hidden: int, floor: float, std: float):
        super().__init__()
        if not 0 < floor <= std:
            raise ValueError(f"standard deviations need 0 < floor <= std, not floor {floor} and std {std}")
        self.floor = floor
        self.net = nn.Sequential(
            nn.Linear(cond, hidden), nn.Mish(), nn.Linear(hidden, hidden), nn.Mish(), nn.Linear(hidden, hidden), nn.Mish(),
            nn.Linear(hidden, dims), nn.Tanh(),
        )  # fmt: skip
        self.log_std = nn.Parameter(torch.full((dims,), math.log(std)))

    @property
    def std(self) -> Tensor:
        return self.log_std.exp().clamp(min=self.floor)

    def freeze(self) -> None:
        """There is no base."""

    def loss(self, x0: Tensor, cond: Tensor, generator: torch.Generator) -> Tensor:
        return ((self.net(cond) - x0) ** 2).mean()

    def logp(self, obs: dict[str, Tensor], action: Tensor, mask: Tensor) -> Tensor:
        return normal_logp(action, self.net(obs["cond"])[:, None], self.std)

    def logp_entropy(self, obs: dict[str, Tensor], action: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        return self.logp(obs, action, mask), normal_entropy(self.std).expand_as(mask)

    @torch.no_grad()
    def decide(self, cond: Tensor, generator: torch.Generator) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        mean = self.net(cond)
        x = mean + self.std * torch.randn(mean.shape, generator=generator, device=mean.device).clamp(-3, 3)
        return {"cond": cond}, x[:, None], x.clamp(-1, 1)

    @torch.no_grad()
    def act(self, obs: Tensor, generator: torch.Generator, greedy: bool = False) -> Tensor:
        return self.net(obs) if greedy else self.decide(obs, generator)[2]
