"""Credit inside a group of answers to one prompt. Pure: score [N], key [N] -> advantage [N]."""

from __future__ import annotations

import torch
from torch import Tensor


def group_sums(x: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of x over each row's group, and the group's size, both [N]."""
    _, index = key.unique(return_inverse=True)
    size = int(index.max()) + 1
    total = torch.zeros(size, dtype=x.dtype, device=x.device).index_add_(0, index, x)
    count = torch.zeros(size, dtype=x.dtype, device=x.device).index_add_(0, index, torch.ones_like(x))
    if (count < 2).any():
        lonely = int(key[(count[index] < 2).nonzero()[0, 0]])
        raise ValueError(
            f"prompt {lonely} has a group of one answer: a group baseline needs at least two. "
            "Raise `group`, keep more of it in `select`, or use a batch baseline (reinforce)"
        )
    return total[index], count[index]


def centred(score: Tensor, key: Tensor) -> Tensor:
    """r - mean of its group."""
    total, count = group_sums(score, key)
    return score - total / count


def group_relative(score: Tensor, key: Tensor, *, eps: float = 1e-6) -> Tensor:
    """(r - mean) / (std + eps) inside each group, std with n - 1 as in the public implementations. arXiv:2402.03300 sec. 4.1"""
    away = centred(score, key)
    total, count = group_sums(away**2, key)
    return away / ((total / (count - 1)).sqrt() + eps)


def leave_one_out(score: Tensor, key: Tensor) -> Tensor:
    """r minus the mean of the others in its group: unbiased. arXiv:2402.14740 eq. 8"""
    total, count = group_sums(score, key)
    return score - (total - score) / (count - 1)


def token_relative(score: Tensor, key: Tensor, length: Tensor, *, cap: float = 5.0, eps: float = 1e-6) -> Tensor:
    """(r - mean) / (std + eps) inside each group, every token a sample: long answers weigh more in mean and std. A group in which
    that exceeds `cap` takes `group_relative` instead. [N], [N] and the lengths [N] -> [N]"""
    tokens, _ = group_sums(length, key)
    away = score - group_sums(length * score, key)[0] / tokens
    ours = away / ((group_sums(length * away**2, key)[0] / tokens).sqrt() + eps)
    tall = group_sums((ours.abs() >= cap).to(ours), key)[0] > 0
    return group_relative(score, key, eps=eps).where(tall, ours)
