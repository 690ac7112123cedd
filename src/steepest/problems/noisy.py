"""Writing down what was heard badly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..core.problem import Prompts
from ..core.stream import Stream
from .language import DIGITS
from .symbolic import END, PAD, ZERO, Symbolic, Taught, chance, made, packed, places, random, upto_end


@dataclass(frozen=True)
class NoisyCopy(Symbolic):
    """Copy a string of digits of which some were replaced and some lost on the way: 1 for exactly the clean string, else 0.

    A digit of the clean string is the one before plus 1 or plus 3, modulo 10, so that most of what was replaced or lost can be told
    from what stands around it. The teacher slips in a share of its digits.

    width   digits of the longest strings; all prompts are laid out for them
    least   digits of the shortest
    noise   chance that a digit was changed: one half of these is replaced, the other lost
    tests   fresh prompts of an evaluation
    warm    optimizer steps of the warm-up
    """

    width: int = 8
    least: int = 5
    noise: float = 0.2
    tests: int = 256
    warm: int = 300

    alphabet = (*DIGITS, "_", "=")
    slip = 0.1

    def __post_init__(self) -> None:
        if not 2 <= self.least <= self.width <= 8 or not 0 <= self.noise <= 1 or self.tests < 1:
            raise ValueError(
                "needs 2 <= least <= width <= 8, noise in [0, 1] and tests >= 1, not "
                f"{self.least}, {self.width}, {self.noise} and {self.tests}"
            )

    @property
    def max_new(self) -> int:  # type: ignore[override]
        return self.width + 2

    def prompts(self, count: int, generator: torch.Generator) -> Prompts:
        shape = (count, self.width)
        length = self.least + random(self.width - self.least + 1, (count, 1), generator)
        steps = 1 + 2 * random(2, shape, generator)
        steps[:, :1] = random(10, (count, 1), generator)
        there = torch.arange(self.width) < length
        clean = (steps.cumsum(1) % 10).where(there, 0)
        changed, lost = chance(self.noise, shape, generator), chance(0.5, shape, generator)
        heard = ((clean + 1 + random(9, shape, generator)) % 10).where(changed, clean)
        kept = there & ~(changed & lost)
        order = (~kept).long().argsort(dim=1, stable=True)  # what was lost leaves no gap
        ids = (ZERO + heard).where(kept, self.symbol("_")).gather(1, order)
        ids = torch.cat([ids, torch.full((count, 1), self.symbol("="))], 1)
        salt = random(10**6, (count,), generator)  # the same string heard twice is two prompts
        return Prompts(ids, made(ids), packed(clean) + 10**self.width * (length[:, 0] + 10 * salt))

    def right(self, key: Tensor) -> Tensor:
        length = (key // 10**self.width % 10)[:, None]
        place = torch.arange(self.width + 1)
        clean = torch.cat([places(key, self.width), torch.zeros_like(length)], 1)
        return (ZERO + clean).where(place < length, END).where(place <= length, PAD)

    def teach(self, count: int, generator: torch.Generator) -> Taught:
        prompts = self.prompts(count, generator)
        right = self.right(prompts.key)
        wrong = ZERO + (right - ZERO + 1 + random(9, right.shape, generator)) % 10
        tokens = wrong.where(chance(self.slip, right.shape, generator) & (right >= ZERO), right)
        return prompts, tokens, upto_end(tokens)

    def evaluate(self, policy: Any, rng: Stream) -> dict[str, float]:
        """`accuracy`: the share of sampled answers without a mistake."""
        prompts = self.prompts(self.tests, (rng / "prompts").torch())
        return {"accuracy": float(self.answered(policy, prompts, rng / "answers")[2].mean())}
