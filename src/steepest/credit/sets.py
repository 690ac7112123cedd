"""Credit from parts of a group of answers: the best few, or sets that share what they earned together."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def best_relative(score: Tensor, key: Tensor, merit: Tensor, *, keep: int, eps: float = 1e-6) -> Tensor:
    """(r - mean) / (std + eps) inside the `keep` answers of each group with the greatest merit [N], std with n; 0 for the others.
    arXiv:2508.09726

    Of equal merit, the earlier. Raises ValueError where a group has fewer than `keep` answers.
    """
    _, index, count = key.unique(return_inverse=True, return_counts=True)
    if int(count.min()) < keep:
        raise ValueError(f"a group of {int(count.min())} answers cannot keep {keep}: raise `group`, or keep fewer")
    order = merit.argsort(descending=True, stable=True)
    order = order[index[order].argsort(stable=True)]  # group by group, the best first
    place = torch.arange(len(key), device=key.device) - (count.cumsum(0) - count)[index[order]]
    kept = order[place < keep].view(-1, keep)
    inside = score[kept]
    spread, mean = torch.std_mean(inside, 1, correction=0, keepdim=True)
    return torch.zeros_like(score).index_put((kept,), (inside - mean) / (spread + eps))


def set_relative(score: Tensor, key: Tensor, kind: Tensor, *, size: int) -> Tensor:
    """What the sets of `size` answers that hold an answer earn on average, less what all sets of its group do. A set earns its
    mean score times the share of different kinds among its members. arXiv:2509.25424

    All sets of a group count, without being listed: the chance that a set holds one answer and misses a kind is a quotient of
    binomial coefficients.

    kind  [N] long: to one prompt, equal numbers are one kind

    Raises ValueError where a group has no more than `size` answers: there would be one set and nothing to compare.
    """
    advantage = torch.zeros_like(score)
    for one in key.unique():
        rows = (key == one).nonzero().squeeze(1)
        if len(rows) <= size:
            raise ValueError(f"prompt {int(one)} has {len(rows)} answers: sets of {size} need more; raise `group`")
        earned = sets_with_each(score[rows].double(), kind[rows], size)
        advantage[rows] = (earned - earned.mean()).to(score.dtype)
    return advantage


def sets_with_each(score: Tensor, kind: Tensor, size: int) -> Tensor:
    """Mean of what the sets that hold answer i earn, for each of G answers: [G], [G] -> [G]"""
    count = len(score)
    alike = kind[:, None] == kind
    many = alike.sum(1)
    sets = math.comb(count - 1, size - 1)  # that hold answer i
    kinds = float((1 / many).sum())

    def missing(held: int) -> Tensor:
        """Among the sets that hold i: the chance to hold `held` given answers, i one of them, and none of each answer's kind."""
        left = (count - held - m for m in many.tolist())  # to fill the set from
        return score.new_tensor([math.comb(n, size - held) / sets if n >= 0 else 0.0 for n in left])

    alone, beside = missing(1), missing(2)
    # expected kinds: 1 for those of the answers held, else the chance not to be missing
    own = score * (kinds - (alone / many).sum() + alone)
    lacking = (beside / many).sum() - beside[:, None] - torch.where(alike, 0.0, beside)
    other = kinds * (size - 1) / (count - 1) - lacking
    other.fill_diagonal_(0.0)
    return (own + other @ score) / size**2
