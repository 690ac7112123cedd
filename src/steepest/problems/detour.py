"""Sums for which writing running sums is a detour where they are short, and the only way where they are long."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..core.stream import Stream
from .language import ChainSum


@dataclass(frozen=True)
class Detour(ChainSum):
    """ChainSum of two to six digits whose teacher slips in one of ten running sums: said at once, sums of two are right more often
    than by a chain, and sums of six hardly more often than by chance."""

    width: int = 6
    warm: int = 500

    filler, slip = 0.05, 0.1
    max_new = 12

    @property
    def openings(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The tokens with which an answer by a chain begins, and those of one without."""
        return (self.symbol("chain"),), (self.symbol("now"),)

    def constructed(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """1 for answers with a chain that came to its end, else 0 [N]."""
        ended = ((tokens == self.symbol("so")) & (mask > 0)).any(1)
        return ((tokens[:, 0] == self.symbol("chain")) & ended).float()

    def evaluate(self, policy: Any, rng: Stream) -> dict[str, float]:
        """As ChainSum, and the share of chains at the `short` sums and at the `long` ones."""
        found = super().evaluate(policy, rng)
        for name, size in (("short", self.least), ("long", self.width)):
            prompts = self.ask(torch.full((self.tests,), size), (rng / name).torch())
            tokens, mask, _ = self.answered(policy, prompts, rng / name / "answers")
            found[name] = float(self.constructed(tokens, mask).mean())
        return found
