"""Credit that depends on how often a prompt is answered rightly. Pure: score [N], key [N] -> advantage [N]."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .group import centred, group_relative, group_sums


def mixed_certainty(score: Tensor, key: Tensor, *, success: float = 0.0, eps: float = 1e-6) -> Tensor:
    """u (r - mean) / (std + eps) + (1 - u) (r - mean) / (mean + eps), u = 4 p (1 - p), p the group's share of successes.
    arXiv:2509.18849

    Raises ValueError where a score is negative: a mean of 0 or less is no scale.

    success  what a score must exceed to be one
    """
    refuse_outside(score, 0.0, math.inf, "a mean of 0 or less is no scale: shift the rewards so that the worst is 0")
    total, count = group_sums(score, key)
    rate = group_sums((score > success).to(score.dtype), key)[0] / count
    unsure = 4 * rate * (1 - rate)
    return unsure * group_relative(score, key, eps=eps) + (1 - unsure) * centred(score, key) / (total / count + eps)


def beta_normalized(score: Tensor, key: Tensor, *, most: float = 1e6) -> Tensor:
    """(r - p) / Beta(p; a, b), p the group's mean: the density's parameters follow, by moments, how p is spread over the batch's
    prompts. arXiv:2506.02864; its public code.

    With one prompt, or if all succeed equally often, a = b = 1: the density is 1. Raises ValueError where a score lies outside
    [0, 1].

    most  the most that one over the density may be
    """
    refuse_outside(score, 0.0, 1.0, "a success rate is modelled: scale the rewards to [0, 1]")
    total, count = group_sums(score, key)
    rate = (total / count).double()
    a, b = beta_shape(each_group(rate, key))
    log_density = torch.xlogy(torch.tensor(a - 1), rate) + torch.special.xlog1py(torch.tensor(b - 1), -rate)
    log_density -= math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
    return centred(score, key) * (-log_density).exp().clamp(max=most).to(score.dtype)


def beta_shape(rates: Tensor) -> tuple[float, float]:
    """Parameters of BNPO's density for success rates [P]: 1 + a third of those that the moments give, at least 1."""
    if len(rates) < 2 or float(rates.var()) == 0:
        return 1.0, 1.0
    mean, variance = float(rates.mean()), float(rates.var())
    size = mean * (1 - mean) / variance - 1
    return max(1.0, 1 + size * mean / 3), max(1.0, 1 + size * (1 - mean) / 3)


def answer_entropy(kind: Tensor, key: Tensor) -> Tensor:
    """Entropy of which answer is given to each row's prompt, in bits [N]."""
    _, index, size = torch.stack([key, kind], 1).unique(dim=0, return_inverse=True, return_counts=True)
    _, count = group_sums(torch.ones(len(key), device=key.device), key)
    surprise = -(size[index] / count).log2()
    return group_sums(surprise, key)[0] / count


def across_prompts(score: Tensor, kind: Tensor, key: Tensor, *, eps: float = 1e-6) -> Tensor:
    """How a prompt compares with the batch's others, in standard deviations: by its mean score, less the more its answers differ,
    mean (1 - l H), H their entropy in bits and l = (1 - 1/G) / log2 G. arXiv:2508.04138; its public code.

    kind  [N] long: to one prompt, equal numbers are equal answers

    Raises ValueError where there is one prompt alone.
    """
    total, count = group_sums(score, key)
    worth = total / count * (1 - (1 - 1 / count) / count.log2() * answer_entropy(kind, key))
    of_prompts = each_group(worth, key)
    if len(of_prompts) < 2:
        raise ValueError("a batch of one prompt has nothing to compare it with: raise `prompts`")
    return (worth - of_prompts.mean()) / (of_prompts.std() + eps)


def each_group(x: Tensor, key: Tensor) -> Tensor:
    """One entry for each group of x [N], which is the same throughout a group."""
    values, index = key.unique(return_inverse=True)
    return x.new_zeros(len(values)).scatter_(0, index, x)


def refuse_outside(score: Tensor, low: float, high: float, why: str) -> None:
    bad = ((score < low) | (score > high)).nonzero()
    if len(bad):
        n = int(bad[0])
        raise ValueError(f"score[{n}] is {float(score[n])}, outside [{low:g}, {high:g}]: {why}")
