"""Rewriting a text that is in part inappropriate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..core.problem import Prompts
from ..core.stream import Stream
from .language import DIGITS
from .symbolic import END, PAD, ZERO, Symbolic, Taught, chance, made, random, same, upto_end

KINDS = 11  # of symbols of a text: ten digits, and what is rude


@dataclass(frozen=True)
class Rude(Symbolic):
    """Write a text of digits and exclamation marks again: the score is the share of an answer's symbols that are no exclamation
    mark, 1 for an empty answer. What the text said is not the score's concern (see `source`).

    The teacher copies, leaves out `mild` of the exclamation marks, and slips in a share of the digits.

    width  symbols of a text
    rude   chance of an exclamation mark
    mild   of these, the share that the teacher leaves out
    tests  fresh texts of an evaluation
    warm   optimizer steps of the warm-up
    """

    width: int = 8
    rude: float = 0.3
    mild: float = 0.3
    tests: int = 256
    warm: int = 300

    alphabet = (*DIGITS, "!", "=")
    slip = 0.03

    def __post_init__(self) -> None:
        if not 1 <= self.width <= 12 or not 0 <= min(self.rude, self.mild) <= max(self.rude, self.mild) <= 1 or self.tests < 1:
            raise ValueError(
                "needs 1 <= width <= 12, rude and mild in [0, 1] and tests >= 1, not "
                f"{self.width}, {self.rude}, {self.mild} and {self.tests}"
            )

    @property
    def max_new(self) -> int:  # type: ignore[override]
        return self.width + 1

    def prompts(self, count: int, generator: torch.Generator) -> Prompts:
        said = random(10, (count, self.width), generator)
        said = said.masked_fill(chance(self.rude, (count, self.width), generator), KINDS - 1)
        ids = torch.cat([ZERO + said, torch.full((count, 1), self.symbol("="))], 1)
        return Prompts(ids, made(ids), (said * KINDS ** torch.arange(self.width)).sum(1))

    def source(self, prompts: Prompts) -> tuple[Tensor, Tensor]:
        """The text that is to be rewritten: tokens and mask [N, width]."""
        text = prompts.ids[:, -1 - self.width : -1]
        return text, torch.ones(text.shape)

    def without(self, text: Tensor, dropped: Tensor) -> Tensor:
        """Texts [N, width] as answers, in which what is dropped leaves no gap."""
        order = dropped.long().argsort(dim=1, stable=True)
        kept = text.gather(1, order)
        place, length = torch.arange(self.width + 1), (~dropped).sum(1, keepdim=True)
        kept = torch.cat([kept, torch.full_like(length, PAD)], 1)
        return kept.where(place < length, END).where(place <= length, PAD)

    def right(self, key: Tensor) -> Tensor:
        text = ZERO + key[:, None] // KINDS ** torch.arange(self.width) % KINDS
        return self.without(text, text == self.symbol("!"))

    def score(self, prompts: Prompts, tokens: Tensor, mask: Tensor) -> Tensor:
        said = (mask > 0) & (tokens != END)
        rude = (said & (tokens == self.symbol("!"))).sum(1)
        return 1 - rude / said.sum(1).clamp(min=1)

    def teach(self, count: int, generator: torch.Generator) -> Taught:
        prompts = self.prompts(count, generator)
        text, shape = self.source(prompts)[0], (count, self.width)
        rude = text == self.symbol("!")
        wrong = ZERO + (text - ZERO + 1 + random(9, shape, generator)) % 10
        text = wrong.where(chance(self.slip, shape, generator) & ~rude, text)
        tokens = self.without(text, rude & chance(self.mild, shape, generator))
        return prompts, tokens, upto_end(tokens)

    def evaluate(self, policy: Any, rng: Stream) -> dict[str, float]:
        """`appropriate`: the mean score of sampled answers; `accuracy`: how many leave out what is rude and nothing else."""
        prompts = self.prompts(self.tests, (rng / "prompts").torch())
        tokens, mask, score = self.answered(policy, prompts, rng / "answers")
        return {"accuracy": float(same(tokens, mask, self.right(prompts.key)).mean()), "appropriate": float(score.mean())}
