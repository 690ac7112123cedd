"""GRAPE: a rubric's items count as much as their judge is sure of them.

Paper.  Patel, Understanding Reinforcement Learning for Model Training, and future directions with GRAPE, 2025. arXiv 2509.04501.
Claim.  Weighing what a rubric's items say by the judge's confidence makes training robust to items that are judged badly.
Idea.   R = sum_k c_k w_k s_k / sum_k c_k w_k,  c_k the mean confidence over the prompt's answers;  A = R - mean of the others' R
State.  as grpo
Note.   The paper is an exposition and leaves the advantage open: leave-one-out is the choice made here. Without a rubric the
        verdict is its one item, of which the judge is sure. The page on the methods that the paper derives is not part of this.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ...core.batch import Batch
from ...core.state import State
from ...core.system import System, extends
from ...credit import leave_one_out
from ...credit import rubric as weighed
from .grpo import grpo

Rubric = Callable[[State, Batch], tuple[Tensor, Tensor]]


def verdict(state: State, batch: Batch) -> tuple[Tensor, Tensor]:
    """The score alone, which is certain."""
    return batch.score[:, None], torch.ones(len(batch), 1, device=batch.score.device)


def by_rubric(state: State, batch: Batch, *, rubric: Rubric, weights: Sequence[float] | None) -> Tensor:
    item, sure = rubric(state, batch)
    score = weighed(item, sure, batch.key, None if weights is None else item.new_tensor(weights))  # <- the idea
    return leave_one_out(score, batch.key)[:, None]


@extends(grpo, without=("credit",))
def grape(*, rubric: Rubric = verdict, weights: Sequence[float] | None = None, **options: Any) -> System:
    """GRPO on a rubric's score, against the mean of the other answers.

    rubric   (state, batch) -> items [N, K] and the judge's confidences [N, K], all in [0, 1]
    weights  of the items; None: 1 each
    """
    if weights is not None and (min(weights) < 0 or not sum(weights) > 0):
        raise ValueError(f"weights must not be negative, nor all 0, not {weights}")
    return grpo(credit=partial(by_rubric, rubric=rubric, weights=weights), **options)
