"""What is remembered of each prompt: how often it was answered rightly; and of each category: how much there was to learn."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Tracker(nn.Module):
    """The success rate of each of `rows` prompts, as a Beta distribution that forgets: mean alpha / (alpha + beta).

    A reward r in [0, 1] makes alpha <- rho alpha + r and beta <- rho beta + 1 - r, where rho = 2^(-drift / halving) says how much
    of the past still holds after the policy has moved by `drift` (SPO). With the bounds of rho at 1 nothing is forgotten.

    prior      the mean before the first reward
    weight     how many rewards that prior counts as; 0: the first reward is believed
    halving    drift after which half of the past counts, nats of KL
    low, high  bounds of rho
    """

    alpha: Tensor
    beta: Tensor
    seen: Tensor

    def __init__(
        self, rows: int, *, prior: float = 0.5, weight: float = 0.0, halving: float = 1.0, low: float = 1.0, high: float = 1.0
    ):
        super().__init__()
        if rows < 1 or not 0 <= prior <= 1 or weight < 0 or not halving > 0 or not 0 <= low <= high <= 1:
            raise ValueError(
                f"a tracker of {rows} rows has prior={prior} in [0, 1], weight={weight} not negative, halving={halving} positive "
                f"and 0 <= low={low} <= high={high} <= 1: one of these does not hold"
            )
        self.prior, self.halving, self.low, self.high = prior, halving, low, high
        self.register_buffer("alpha", torch.full((rows,), prior * weight))
        self.register_buffer("beta", torch.full((rows,), (1 - prior) * weight))
        self.register_buffer("seen", torch.zeros(rows))

    def read(self, key: Tensor | None = None) -> Tensor:
        """The mean of each row, or of the rows `key`."""
        alpha, weight = (self.alpha, self.weight()) if key is None else (self.alpha[key], self.weight(key))
        return torch.where(weight > 0, alpha / weight.clamp(min=1e-12), self.prior)

    def weight(self, key: Tensor | None = None) -> Tensor:
        """How many rewards it rests on, those forgotten discounted."""
        whole = self.alpha + self.beta
        return whole if key is None else whole[key]

    @torch.no_grad()
    def write(self, key: Tensor, reward: Tensor, drift: Tensor | None = None) -> None:
        """Rewards [N] of answers to the prompts `key` [N]; several to one prompt count each, their drift [N] as its mean."""
        if bool(((reward < 0) | (reward > 1)).any()):
            wrong = float(reward[(reward < 0) | (reward > 1)][0])
            raise ValueError(f"a tracker takes rewards in [0, 1], as shares of a success, not {wrong:g}: rescale the reward")
        rows, which = key.unique(return_inverse=True)
        count = torch.bincount(which).to(self.alpha)
        moved = torch.zeros_like(count) if drift is None else self.sums(which, drift, len(rows)) / count
        rho = (2.0 ** (-moved / self.halving)).clamp(self.low, self.high)
        right = self.sums(which, reward, len(rows))
        self.alpha[rows] = rho * self.alpha[rows] + right
        self.beta[rows] = rho * self.beta[rows] + (count - right)
        self.seen[rows] += count

    def sums(self, which: Tensor, value: Tensor, rows: int) -> Tensor:
        return torch.zeros(rows, device=self.alpha.device).index_add_(0, which, value.to(self.alpha))


class Bandit(nn.Module):
    """The value of each of `arms` categories: Q <- Q + rate (mean gain - Q), for those that the batch holds (SEC).

    of    the category of each prompt [size] long
    rate  of that step
    """

    of: Tensor
    value: Tensor

    def __init__(self, of: Tensor, *, arms: int | None = None, rate: float = 0.5):
        super().__init__()
        arms = int(of.max()) + 1 if arms is None else arms
        if not 0 < rate <= 1:
            raise ValueError(f"rate must lie in (0, 1], not {rate}")
        empty = [arm for arm, count in enumerate(torch.bincount(of, minlength=arms).tolist()) if not count]
        if empty:
            raise ValueError(f"category {empty[0]} of {arms} has no prompt: leave it out")
        self.rate = rate
        self.register_buffer("of", of.clone())
        self.register_buffer("value", torch.zeros(arms))

    def read(self) -> Tensor:
        return self.value

    @torch.no_grad()
    def write(self, key: Tensor, gain: Tensor) -> None:
        """What the answers [N] to prompts `key` [N] had to teach: mean |advantage| of each, for one."""
        arm = self.of[key]
        count = torch.bincount(arm, minlength=len(self.value)).to(self.value)
        mean = torch.zeros_like(self.value).index_add_(0, arm, gain.to(self.value)) / count.clamp(min=1)
        self.value.copy_(torch.where(count > 0, self.value + self.rate * (mean - self.value), self.value))
