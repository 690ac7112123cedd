"""Sums whose prompts say how long the answer shall be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..core.problem import Prompts
from ..core.stream import Stream
from .language import ChainSum
from .symbolic import ZERO, made, places, random


@dataclass(frozen=True)
class BudgetSum(ChainSum):
    """ChainSum, with the wanted length of the answer as two digits before the equals sign, lowest first. Only the sum is verified.

    The teacher pays no heed to it, so a warmed-up policy does not either.

    shortest  the least length that is asked for, in tokens
    longest   the most
    """

    width: int = 4
    shortest: int = 4
    longest: int = 20

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.shortest <= self.longest <= self.max_new:
            raise ValueError(
                f"lengths asked for lie in 1..{self.max_new}, shortest first, not {self.shortest} to {self.longest} tokens"
            )

    def ask(self, length: Tensor, generator: torch.Generator) -> Prompts:
        plain = super().ask(length, generator)
        return self.wanted(plain, self.shortest + random(self.longest - self.shortest + 1, (len(length),), generator))

    def wanted(self, plain: Prompts, budget: Tensor) -> Prompts:
        """Prompts of ChainSum with the lengths `budget` [N] asked for."""
        ids = torch.cat([plain.ids[:, :-1], ZERO + places(budget, 2), plain.ids[:, -1:]], 1)
        return Prompts(ids, made(ids), plain.key + 10 ** (self.width + 1) * budget)

    def budget(self, key: Tensor) -> Tensor:
        """The length that each prompt asks for, in tokens [N]."""
        return key // 10 ** (self.width + 1)

    def plain(self, prompts: Prompts) -> Prompts:
        return Prompts(prompts.ids, prompts.mask, prompts.key % 10 ** (self.width + 1))

    def score(self, prompts: Prompts, tokens: Tensor, mask: Tensor) -> Tensor:
        return super().score(self.plain(prompts), tokens, mask)

    def evaluate(self, policy: Any, rng: Stream) -> dict[str, float]:
        """As ChainSum, and by how many tokens an answer `missed` the length asked for, in the mean."""
        found = super().evaluate(policy, rng)
        prompts = self.prompts(self.tests, (rng / "lengths").torch())
        _, mask, _ = self.answered(policy, prompts, rng / "kept")
        return {**found, "missed": float((self.budget(prompts.key) - mask.sum(1)).abs().mean())}
