"""Preference pairs: of two answers to one question, the one that was preferred."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from .batch import pick
from .problem import Problem


@dataclass(frozen=True)
class Pairs:
    """N pairs of answers of at most T decisions each.

    obs            what both answer: a tensor [N, ...] or a tree of tensors [N, ...]
    chosen         the preferred answer [N, T], with `chosen_mask` [N, T] 1 where a decision was made
    rejected       the other one [N, T'], with `rejected_mask`
    weight         the share of each pair in the loss [N], at least 0; sums to 1 unless N = 0

    Raises ValueError where an answer has no decision or shapes disagree; the message names the pair.
    """

    obs: Any
    chosen: Tensor
    chosen_mask: Tensor
    rejected: Tensor
    rejected_mask: Tensor
    weight: Tensor

    def __post_init__(self) -> None:
        for name in ("chosen", "rejected"):
            action, mask = getattr(self, name), getattr(self, f"{name}_mask")
            if action.shape[:2] != mask.shape or len(mask) != len(self.weight):
                raise ValueError(
                    f"pairs.{name} has shape {list(action.shape)}, its mask {list(mask.shape)}, weight {list(self.weight.shape)}: "
                    "give one mask entry for each decision and one weight for each pair"
                )
            empty = (mask.sum(1) == 0).nonzero()
            if len(empty):
                raise ValueError(f"the {name} answer of pair {int(empty[0])} has no decision: its mask row is all zero")

    def __len__(self) -> int:
        return len(self.weight)

    def rows(self, index: Tensor) -> Pairs:
        """Some of the pairs, with weights that sum to 1 again."""
        part = Pairs(*(pick(getattr(self, f.name), index) for f in fields(self)))
        total = part.weight.sum()
        return Pairs(part.obs, part.chosen, part.chosen_mask, part.rejected, part.rejected_mask, part.weight / total)


class Preferences(Problem):
    """A finite number of questions and answers, and pairs that were compared once and for all.

    log_reference  log-probabilities of the policy to start from and to stay near [X, A]
    """

    log_reference: Tensor

    @abstractmethod
    def pairs(self, count: int, generator: torch.Generator) -> Pairs:
        """`count` of the pairs, drawn by their weight with replacement; all of them where there are no more than `count`."""
