"""Many small bandits at once: where a rule of learning, not a policy, is to be judged in milliseconds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..core.problem import Problem
from ..core.stream import Stream


@dataclass(frozen=True)
class Luck:
    """B bandits and all the chance that a learner meets on them: equal decisions meet equal rewards, whoever learns.

    means  expected reward of each arm [B, K]
    spot   where on (0, 1) each pull falls [R, B, S]
    noise  what its reward has too much [R, B, S]
    """

    means: Tensor
    spot: Tensor
    noise: Tensor

    def pull(self, probs: Tensor, turn: int) -> tuple[Tensor, Tensor]:
        """The arms that policies [P, B, K] choose in a round, S of each bandit, and their rewards: [P, B, S] both."""
        spot = self.spot[turn].expand(len(probs), -1, -1).contiguous()
        arm = torch.searchsorted(probs.cumsum(-1), spot).clamp(max=probs.shape[-1] - 1)
        return arm, self.means.expand(len(probs), -1, -1).gather(-1, arm) + self.noise[turn]

    def lost(self, probs: Tensor) -> Tensor:
        """How much less than the best arm a policy earns, the mean of the bandits: [P, B, K] -> [P]"""
        return (self.means.amax(-1) - (probs * self.means).sum(-1)).mean(-1)


@dataclass(frozen=True)
class Bandits(Problem):
    """Bandits with normal means and rewards. A learner begins each at equal chances, sees a few noisy rewards a round, and is
    judged by its last policy.

    What is judged has ``learned(luck) -> probabilities [B, K]``.

    arms    of a bandit
    count   bandits of a run
    noise   standard deviation of a reward; that of the arms' means is 1
    rounds  of a run
    pulls   of each bandit in a round
    tests   bandits that `evaluate` takes
    """

    arms: int = 8
    count: int = 16
    noise: float = 1.0
    rounds: int = 8
    pulls: int = 16
    tests: int = 512

    def __post_init__(self) -> None:
        if self.arms < 2 or self.pulls < 2 or min(self.count, self.rounds, self.tests) < 1 or self.noise < 0:
            raise ValueError(
                f"arms and pulls must be at least 2, count, rounds and tests at least 1 and noise not negative, not {self.arms}, "
                f"{self.pulls}, {self.count}, {self.rounds}, {self.tests} and {self.noise}"
            )

    def draw(self, count: int, generator: torch.Generator) -> Luck:
        """`count` bandits, and a run's chance."""
        means = torch.randn(count, self.arms, generator=generator)
        shape = self.rounds, count, self.pulls
        return Luck(means, torch.rand(shape, generator=generator), self.noise * torch.randn(shape, generator=generator))

    def evaluate(self, policy: Any, rng: Stream) -> dict[str, float]:
        """`return`: what the last policy earns, the best arm earning 0."""
        luck = self.draw(self.tests, rng.torch())
        return {"return": -float(luck.lost(policy.learned(luck)[None]))}
