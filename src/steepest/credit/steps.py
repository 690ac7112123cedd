"""From scores of steps to a score of the answer, and to rewards. Pure: score [N, T], step [N, T], 1 where a step ends."""

from __future__ import annotations

import torch
from torch import Tensor


def worst(score: Tensor, step: Tensor) -> Tensor:
    """The least score of an answer's steps [N]. Raises ValueError for an answer without steps."""
    refuse_none(step)
    return torch.where(step > 0, score, torch.inf).amin(1)


def last(score: Tensor, step: Tensor) -> Tensor:
    """The score of an answer's last step [N]."""
    refuse_none(step)
    place = torch.arange(step.shape[1], device=step.device)
    return score.gather(1, torch.where(step > 0, place, -1).amax(1, keepdim=True)).squeeze(1)


def average(score: Tensor, step: Tensor) -> Tensor:
    """The mean score of an answer's steps [N]."""
    refuse_none(step)
    return torch.where(step > 0, score, 0.0).sum(1) / step.sum(1)


def falls(score: Tensor, step: Tensor, *, bound: float) -> Tensor:
    """By how much each step makes the least score of the answer fall, which begins at `bound`: 0 or negative [N, T].

    Their sum is min(worst, bound) - bound, so that no step can raise it. arXiv:2403.09472, Edward-Sun/easy-to-hard
    """
    least = torch.where(step > 0, score, torch.inf).clamp(max=bound).cummin(1).values
    before = torch.cat([torch.full_like(least[:, :1], bound), least[:, :-1]], 1)
    return least - before


def refuse_none(step: Tensor) -> None:
    none = (step.sum(1) == 0).nonzero()
    if len(none):
        raise ValueError(f"answer {int(none[0])} has no step ({len(none)} of {len(step)}): a verifier of steps cannot score it")
