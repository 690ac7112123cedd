"""Running moments: what is normalised with, as buffers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..core import native


class Moments(nn.Module):
    """Mean and variance of everything `write` has seen, exactly (Chan, Golub and LeVeque, 1979); 0 and 1 before."""

    count: Tensor
    mean: Tensor
    var: Tensor

    def __init__(self, *shape: int):
        super().__init__()
        self.register_buffer("count", torch.zeros((), dtype=torch.long))
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("var", torch.ones(shape))

    @torch.no_grad()
    def write(self, x: Tensor) -> None:
        """x [..., *shape]"""
        rows = x.reshape(-1, *self.mean.shape).to(self.mean)
        var, mean = torch.var_mean(rows, 0, correction=0)
        total = self.count + len(rows)
        share = len(rows) / total
        away = mean - self.mean
        self.var.copy_((1 - share) * self.var * (self.count > 0) + share * var + share * (1 - share) * away**2)
        self.mean.add_(share * away)
        self.count.copy_(total)


class Normalizer(Moments):
    """(x - mean) / std, kept within `bound`."""

    def __init__(self, *shape: int, bound: float = 10.0):
        super().__init__(*shape)
        self.bound = bound

    def forward(self, x: Tensor) -> Tensor:
        return ((x - self.mean) / (self.var + 1e-8).sqrt()).clamp(-self.bound, self.bound)


class ReturnScale(Moments):
    """Rewards over the standard deviation of the discounted return, as it runs on in each of `count` environments."""

    running: Tensor

    def __init__(self, count: int, discount: float):
        super().__init__()
        self.discount = discount
        self.register_buffer("running", torch.zeros(count))

    @torch.no_grad()
    def forward(self, reward: Tensor, over: Tensor) -> Tensor:
        """reward [N, T], over [N, T] bool (an episode ended there) -> the rewards, scaled, these included in the moments."""
        reward, over, returns = reward.contiguous(), over.contiguous(), torch.empty_like(reward)
        if native.fits(reward, self.running) and over.device == reward.device:
            given = *reward.shape, self.discount, *(x.data_ptr() for x in (reward, over, self.running, returns))
            native.library.accrue(*given)
        else:
            running = self.running
            for t in range(reward.shape[1]):
                running = self.discount * running + reward[:, t]
                returns[:, t] = running
                running = running * ~over[:, t]
            self.running.copy_(running)
        self.write(returns)
        return (reward * (self.var + 1e-8).rsqrt()).clamp(-10.0, 10.0)
