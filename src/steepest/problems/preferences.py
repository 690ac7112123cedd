"""Bandits whose rewards nobody sees: only which of two answers was preferred."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ..core.pairs import Pairs, Preferences
from ..core.problem import Problem
from ..core.stream import Stream


@dataclass(frozen=True)
class PrefBandit(Preferences, Problem):  # Problem is named for the command line, which reads bases as text
    """Contexts with answers, each of a hidden normal reward, compared under the Bradley-Terry model.

    contexts  X
    answers   A to each
    count     compared pairs: two different answers drawn from the reference; 0: every pair, weighted as infinitely many would be
    spread    standard deviation of the rewards
    beta      what a nat of KL(pi || reference) costs, in reward
    seed      which random instance
    """

    contexts: int = 8
    answers: int = 10
    count: int = 500
    spread: float = 1.0
    beta: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.contexts < 1 or self.answers < 2 or self.count < 0:
            raise ValueError(
                "contexts must be at least 1, answers at least 2 and count not negative, "
                f"not {self.contexts}, {self.answers} and {self.count}"
            )
        if not self.beta > 0:
            raise ValueError(f"beta must be positive, not {self.beta}")

    def normal(self, name: str) -> Tensor:
        g = (Stream(self.seed) / "PrefBandit" / name).torch()
        return torch.randn(self.contexts, self.answers, generator=g, dtype=torch.float64)

    @cached_property
    def reward(self) -> Tensor:
        """[X, A]"""
        return self.spread * self.normal("reward")

    @cached_property
    def log_reference(self) -> Tensor:  # type: ignore[override]
        return self.normal("reference").log_softmax(-1)

    @cached_property
    def data(self) -> Pairs:
        """All pairs."""
        if self.count == 0:
            x, a, b = (
                i.reshape(-1)
                for i in torch.meshgrid(*map(torch.arange, (self.contexts, self.answers, self.answers)), indexing="ij")
            )
            x, a, b = x[a != b], a[a != b], b[a != b]
            p = self.log_reference.exp()
            weight = p[x, a] * p[x, b] * torch.sigmoid(self.reward[x, a] - self.reward[x, b])
            return pairs_of(x, a, b, weight)
        g = (Stream(self.seed) / "PrefBandit" / "pairs").torch()
        x = torch.randint(self.contexts, (self.count,), generator=g)
        a, b = torch.multinomial(self.log_reference.exp()[x], 2, generator=g).T
        first = torch.rand(self.count, generator=g, dtype=torch.float64) < torch.sigmoid(self.reward[x, a] - self.reward[x, b])
        return pairs_of(x, a.where(first, b), b.where(first, a), torch.ones(self.count, dtype=torch.float64))

    def pairs(self, count: int, generator: torch.Generator) -> Pairs:
        if count >= len(self.data):
            return self.data
        index = torch.multinomial(self.data.weight, count, replacement=True, generator=generator)
        data = self.data
        return pairs_of(data.obs[index, 0], data.chosen[index, 0], data.rejected[index, 0], torch.ones(count, dtype=torch.float64))

    @cached_property
    def optimum(self) -> Tensor:
        """log pi* = log reference + reward / beta, normalised: the policy of the highest value [X, A]."""
        return (self.log_reference + self.reward / self.beta).log_softmax(-1)

    def evaluate(self, policy: Any, rng: Stream) -> dict[str, float]:
        """`value` = reward - beta KL(pi || reference), its `regret` against the best policy, `reward` and `kl` in nats; exact."""
        pi = policy.probs().detach().to(self.reward)
        reward, kl = self.figures(pi)
        best, away = self.figures(self.optimum.exp())
        value = reward - self.beta * kl
        return {"value": value, "regret": best - self.beta * away - value, "reward": reward, "kl": kl}

    def figures(self, pi: Tensor) -> tuple[float, float]:
        """Mean reward and KL(pi || reference) over contexts."""
        kl = (torch.special.xlogy(pi, pi) - pi * self.log_reference).sum(-1)
        return float((pi * self.reward).sum(-1).mean()), float(kl.mean())


def pairs_of(context: Tensor, chosen: Tensor, rejected: Tensor, weight: Tensor) -> Pairs:
    """Pairs of single decisions, from vectors [N]; weights are brought to the sum 1."""
    one = torch.ones(len(context), 1, dtype=weight.dtype)
    return Pairs(context[:, None], chosen[:, None], one, rejected[:, None], one, weight / weight.sum())
