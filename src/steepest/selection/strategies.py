"""Which of several strategies a prompt is given, by how hard it is. Pure."""

from __future__ import annotations

import torch
from torch import Tensor


def difficulty(rate: Tensor, *, easy: float = 0.5, hard: float = 0.1) -> Tensor:
    """0 where a prompt's rate of right answers [P] is at least `easy`, 2 where it is below `hard`, else 1: absolute thresholds, so
    that a bin means the same for every policy. arXiv:2502.06703 sec. 3.2"""
    if not 0 <= hard <= easy <= 1:
        raise ValueError(f"needs 0 <= hard <= easy <= 1, not {hard} and {easy}")
    bad = ((rate < 0) | (rate > 1)).nonzero()
    if len(bad):
        raise ValueError(f"rate[{int(bad[0])}] is {float(rate[bad[0]])}: a rate of right answers lies in [0, 1]")
    return (rate < easy).long() + (rate < hard).long()


def best_in_bin(right: Tensor, count: Tensor) -> Tensor:
    """The strategy that was right most often in each bin, of equal ones the first: [bins, strategies], twice -> [bins]. In a bin of
    which nothing is known, the one that was best in all bins together."""
    overall = (right.sum(0) / count.sum(0).clamp(min=1)).argmax()
    rate = right / count.clamp(min=1)
    return torch.where(count.sum(1) > 0, rate.argmax(1), overall)


def halves(key: Tensor) -> Tensor:
    """Whether a prompt is of the half on which strategies are compared [N], or of the other, on which the choice is judged. It
    depends on the prompt alone, so that no prompt is in both."""
    mixed = (key * 0x9E3779B1) ^ (key >> 16)
    return (mixed >> 13) % 2 == 0
