"""Rewards of length, rubrics and character errors, as functions of tensors. Pure; lengths are in tokens, as floats.

`right` [N] is 1 for a right answer and 0 for a wrong one; `length` [N]; `key` [N] says which answers are of one prompt. What is
returned is a reward [N]: `l1_exact`, `l1_max` and `cosine` are the whole reward, the others are added to that of being right.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def l1_exact(length: Tensor, right: Tensor, wanted: Tensor, *, rate: float = 3e-4) -> Tensor:
    """right - rate |wanted - length|: right and of the wanted length. L1-Exact, arXiv:2503.04697

    wanted  tokens that the prompt asks for [N]
    rate    reward that each token away from it costs (paper: 0.0003)
    """
    check_wanted(wanted, rate)
    return right - rate * (wanted - length).abs()


def l1_max(length: Tensor, right: Tensor, wanted: Tensor, *, rate: float = 3e-4, level: float = 0.5) -> Tensor:
    """right clip(rate (wanted - length) + level, 0, 1): right within the wanted length. L1-Max, arXiv:2503.04697

    level  reward of a right answer that is exactly as long as wanted (paper: 0.5)
    """
    check_wanted(wanted, rate)
    return right * (rate * (wanted - length) + level).clamp(0, 1)


def hapo(length: Tensor, right: Tensor, shortest: Tensor, *, floor: float = -0.7) -> Tensor:
    """How short an answer is beside the shortest right one so far, `shortest` [N] (infinite: none yet, and the reward is 0).

    f = cos(min(length / shortest, 2) pi / 2); right: max(floor, f), wrong: min(0, f). HAPO, arXiv:2505.11225, as in its code;
    with a weight of at most 1 beside a reward of 1 for being right, a right answer beats every wrong one.

    floor  the least that a right answer gets (code: -0.7)
    """
    if not -1 < floor <= 0:
        raise ValueError(f"floor lies in (-1, 0], not {floor}: at -1 a long right answer is worth no more than a wrong one")
    if (length < 1).any():
        raise ValueError(f"an answer has {float(length.min()):g} tokens: HAPO's ratio needs at least 1")
    f = torch.cos((length / shortest).clamp(max=2) * (math.pi / 2))
    known = torch.isfinite(shortest)
    return torch.where(right > 0, f.clamp(min=floor), f.clamp(max=0)).where(known, 0.0)


def shortest_right(length: Tensor, right: Tensor, key: Tensor, before: Tensor) -> Tensor:
    """The length of the shortest right answer to each prompt [P] after a step, from that `before` [P]; key [N] is in 0..P-1."""
    seen = length.masked_fill(right <= 0, math.inf)
    return before.clone().scatter_reduce(0, key, seen.to(before), "amin")


def kimi_length(length: Tensor, right: Tensor, key: Tensor) -> Tensor:
    """0.5 - (length - least) / (most - least) within the answers to a prompt; a wrong one gets no more than 0. Where all are
    equally long it is 0. Kimi k1.5, arXiv:2501.12599 sec. 2.3.3"""
    _, group = key.unique(return_inverse=True)
    count = int(group.max()) + 1
    start = torch.zeros(count, dtype=length.dtype, device=length.device)
    least = start.scatter_reduce(0, group, length, "amin", include_self=False)[group]
    most = start.scatter_reduce(0, group, length, "amax", include_self=False)[group]
    shorter = 0.5 - (length - least) / (most - least).clamp(min=1e-9)
    return torch.where(right > 0, shorter, shorter.clamp(max=0)).where(most > least, 0.0)


def overlong(length: Tensor, *, most: float, buffer: float) -> Tensor:
    """0 up to most - buffer tokens, then evenly down to -1 at most, and -1 beyond. DAPO, arXiv:2503.14476 eq. 13

    most    the longest answer, tokens (paper: 20480)
    buffer  tokens before it in which the penalty grows (paper: 4096)
    """
    if not 0 < buffer <= most:
        raise ValueError(f"needs 0 < buffer <= most, not {buffer} and {most}")
    return ((most - buffer - length) / buffer).clamp(-1, 0)


def cosine(
    length: Tensor, right: Tensor, *, most: float,
    right_short: float = 2.0, right_long: float = 1.0, wrong_short: float = -10.0, wrong_long: float = 0.0, exceeded: float = -10.0,
) -> Tensor:  # fmt: skip
    """From one end to the other of half a cosine as answers grow from 0 to `most`: for right ones from `right_short` down to
    `right_long`, for wrong ones from `wrong_short` up to `wrong_long`; `exceeded` from `most` on. arXiv:2502.03373

    CosFn(t, T, a, b) = b + (a - b)(1 + cos(pi t / T)) / 2. Defaults are the paper's.
    """
    if not most > 0:
        raise ValueError(f"most must be positive, not {most}")
    wave = (1 + torch.cos(math.pi * length / most)) / 2
    of_right = right_long + (right_short - right_long) * wave
    of_wrong = wrong_long + (wrong_short - wrong_long) * wave
    return torch.where(right > 0, of_right, of_wrong).masked_fill(length >= most, exceeded)


def check_wanted(wanted: Tensor, rate: float) -> None:
    if not rate >= 0:
        raise ValueError(f"rate must not be negative, not {rate}: being far from the wanted length would pay")
    if (wanted < 1).any():
        raise ValueError(f"a wanted length is {float(wanted.min()):g}: each must be at least 1 token")


# ------------------------------------------------------------------------------------ rubrics


def rubric(score: Tensor, confidence: Tensor, key: Tensor, weight: Tensor | None = None) -> Tensor:
    """Items of a rubric as one reward [N], each counted as far as its judge is sure of it. GRAPE, arXiv:2509.04501

    R_i = sum_k c_k w_k s_ik / sum_k c_k w_k, where c_k is the mean confidence in item k over the answers to the prompt.

    score       [N, K] in [0, 1]
    confidence  [N, K], not negative
    weight      of items [K]; None: equal
    Raises ValueError where no item of a prompt has any confidence.
    """
    if score.shape != confidence.shape or score.ndim != 2:
        raise ValueError(f"score and confidence are both [N, K], not {list(score.shape)} and {list(confidence.shape)}")
    if not bool(((score >= 0) & (score <= 1)).all()):
        raise ValueError(f"scores lie in [0, 1], not between {float(score.min()):g} and {float(score.max()):g}")
    if not bool((confidence >= 0).all()):
        raise ValueError(f"a confidence is {float(confidence.min()):g}: none may be negative")
    _, group = key.unique(return_inverse=True)
    count = torch.bincount(group).to(score)[:, None]
    sure = torch.zeros(len(count), score.shape[1], dtype=score.dtype, device=score.device).index_add_(0, group, confidence) / count
    share = sure[group] * (1 if weight is None else weight)
    whole = share.sum(1)
    if not bool((whole > 0).all()):
        lost = int(key[(whole <= 0).nonzero()[0, 0]])
        raise ValueError(f"all confidences of prompt {lost} are 0, so its rubric says nothing: leave the prompt out")
    return (share * score).sum(1) / whole


# ------------------------------------------------------------------------------------ character errors


def prefix_cer(tokens: Tensor, mask: Tensor, target: Tensor, target_mask: Tensor) -> Tensor:
    """Character error rate of each prefix of an answer [N, T + 1]: edits from tokens [N, t] to target [N, M], over its length.

    Edits are insertions, deletions and substitutions (Levenshtein). Column 0 is that of the empty answer, 1; where the mask [N, T]
    has ended the rate stays. Raises ValueError for an empty target.
    """
    size = target_mask.sum(1).long()
    if (size < 1).any():
        raise ValueError(f"target {int((size < 1).nonzero()[0, 0])} is empty: it has no error rate")
    place = torch.arange(target.shape[1] + 1, device=tokens.device, dtype=mask.dtype)
    row = place.expand(len(tokens), -1)  # edits from the empty answer to each prefix of the target
    rates = [row.gather(1, size[:, None])]
    for said, made in zip(tokens.unbind(1), mask.unbind(1), strict=True):
        swapped = row[:, :-1] + (said[:, None] != target).to(row)
        best = torch.minimum(row[:, 1:] + 1, swapped)
        best = torch.cat([row[:, :1] + 1, best], 1)
        best = (best - place).cummin(1).values + place  # insertions: from the left, one edit each
        row = best.where(made[:, None] > 0, row)
        rates.append(row.gather(1, size[:, None]))
    return torch.cat(rates, 1) / size[:, None]


def cer(tokens: Tensor, mask: Tensor, target: Tensor, target_mask: Tensor) -> Tensor:
    """Character error rate of whole answers [N]."""
    return prefix_cer(tokens, mask, target, target_mask)[:, -1]


def cer_decrements(tokens: Tensor, mask: Tensor, target: Tensor, target_mask: Tensor) -> Tensor:
    """By how much each token lowers the character error rate [N, T]: rewards of steps, which sum to 1 - `cer`.
    arXiv:2003.03983 trains on their sliding mean."""
    rate = prefix_cer(tokens, mask, target, target_mask)
    return (rate[:, :-1] - rate[:, 1:]) * mask
