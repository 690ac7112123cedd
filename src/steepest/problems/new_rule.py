"""A new rule beside what is known, to see what learning it makes a policy forget."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..core.problem import Prompts
from ..core.stream import Stream
from .language import DIGITS, ModeLottery
from .symbolic import END, PAD, ZERO, Taught, chance, places


@dataclass(frozen=True)
class NewRule(ModeLottery):
    """Five digits as in ModeLottery, where any of the four strategies is right; behind ``?`` instead of ``=`` the answer has to say
    an even digit, whatever the strategy. Only the latter is trained.

    Before training the policy answers both alike, so that half of what it says behind ``?`` is right already. `right` is one
    of five digits for each prompt, chosen without regard to what the policy would say: labels from elsewhere.

    accept  only "any" strategy
    """

    accept: Any = "any"

    alphabet = (*DIGITS, "=", "S0", "S1", "S2", "S3", "?")

    def __post_init__(self) -> None:
        if self.accept != "any":
            raise ValueError(f"behind '=' any strategy counts here: accept must stay 'any', not {self.accept!r}")
        super().__post_init__()

    def marked(self, drawn: Prompts, new: Tensor) -> Prompts:
        """The same digits, with ``?`` behind them where `new` [N] is and ``=`` elsewhere."""
        mark = torch.full_like(drawn.ids[:, -1:], self.symbol("=")).masked_fill(new[:, None], self.symbol("?"))
        return Prompts(torch.cat([drawn.ids[:, :-1], mark], 1), drawn.mask, drawn.key)

    def prompts(self, count: int, generator: torch.Generator) -> Prompts:
        drawn = super().prompts(count, generator)
        return self.marked(drawn, torch.ones(count, dtype=torch.bool))

    def right(self, key: Tensor) -> Tensor:
        digits = places(key, 5)
        said = 2 * (digits.sum(1, keepdim=True) % 5)
        return torch.cat([self.symbol("S0") + digits[:, :1] % 4, ZERO + said, torch.full_like(said, END)], 1)

    def score(self, prompts: Prompts, tokens: Tensor, mask: Tensor) -> Tensor:
        name, digit, end = pad(tokens.masked_fill(mask == 0, PAD), (0, 3), value=PAD)[:, :3].unbind(1)
        even = (digit >= ZERO) & (digit < ZERO + 10) & ((digit - ZERO) % 2 == 0)
        named = (name >= self.symbol("S0")) & (name <= self.symbol("S3"))
        obeyed = (even & named & (end == END)).float()
        return obeyed.where(prompts.ids[:, -1] == self.symbol("?"), super().score(prompts, tokens, mask))

    def teach(self, count: int, generator: torch.Generator) -> Taught:
        prompts, tokens, mask = super().teach(count, generator)
        return self.marked(prompts, chance(0.5, (count,), generator)), tokens, mask

    def evaluate(self, policy: Any, rng: Stream) -> dict[str, float]:
        """`accuracy` of one sampled answer behind ``?``, and of what is `known`: behind ``=``."""
        drawn, told = self.prompts(self.tests, (rng / "prompts").torch()), {}
        for name, new in (("accuracy", True), ("known", False)):
            asked = self.marked(drawn, torch.full((self.tests,), new))
            told[name] = float(self.answered(policy, asked, rng / name)[2].mean())
        return told
