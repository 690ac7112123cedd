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
from .grpo import grpo

Rubric = Callable[[State, Batch], tuple[Tensor, Tensor]]


def verdict(state: State, batch: Batch) -> tuple[Tensor, Tensor]:
    """The score alone, which is certain."""
    return batch.score[:, None], torch.ones(len(batch), 1, device=batch.score.device)


def graded(item: Tensor, confidence: Tensor, key: Tensor, weights: Sequence[float] | None = None) -> Tensor:
    """The rubric's score of each answer [N], of items and confidences [N, K] in [0, 1], and K weights (None: 1 each)."""
    if item.shape != confidence.shape or (weights is not None and len(weights) != item.shape[1]):
        raise ValueError(f"items {list(item.shape)}, confidences {list(confidence.shape)} and weights {weights} do not fit")
    for name, x in (("item", item), ("confidence", confidence)):
        bad = (~((x >= 0) & (x <= 1))).nonzero()
        if len(bad):
            n, k = (int(i) for i in bad[0])
            raise ValueError(f"{name} {k} of answer {n} is {float(x[n, k])}: a rubric's numbers lie in [0, 1]")
    _, index, count = key.unique(return_inverse=True, return_counts=True)
    sure = torch.zeros(len(count), item.shape[1], dtype=item.dtype, device=item.device).index_add_(0, index, confidence)
    weight = (sure / count[:, None])[index] * (1 if weights is None else item.new_tensor(weights))
    if not bool((weight.sum(1) > 0).all()):
        raise ValueError("all items of a prompt have confidence or weight 0: nothing is left to score its answers by")
    return (weight * item).sum(1) / weight.sum(1)  # <- the idea


def by_rubric(state: State, batch: Batch, *, rubric: Rubric, weights: Sequence[float] | None) -> Tensor:
    return leave_one_out(graded(*rubric(state, batch), batch.key, weights), batch.key)[:, None]


@extends(grpo, without=("credit",))
def grape(*, rubric: Rubric = verdict, weights: Sequence[float] | None = None, **options: Any) -> System:
    """GRPO on a rubric's score, against the mean of the other answers.

    rubric   (state, batch) -> items [N, K] and the judge's confidences [N, K], all in [0, 1]
    weights  of the items; None: 1 each
    """
    if weights is not None and (min(weights) < 0 or not sum(weights) > 0):
        raise ValueError(f"weights must not be negative, nor all 0, not {weights}")
    return grpo(credit=partial(by_rubric, rubric=rubric, weights=weights), **options)
