"""Where to clip, chosen over a whole minibatch. Terms -> bounds of the ratio; without gradient."""

from __future__ import annotations

import torch
from torch import Tensor

from .terms import Terms

Pair = tuple[float, float]


def pulls(t: Terms, low: float, high: float) -> tuple[Tensor, Tensor]:
    """How strongly what was better than expected and what was worse still pull under a clip: sum of r |A| over the decisions that
    it leaves a gradient."""
    ratio, made = t.ratio, t.mask > 0
    size = ratio * t.advantage.abs()
    good, bad = made & (t.advantage >= 0) & (ratio <= high), made & (t.advantage < 0) & (ratio >= low)
    return torch.where(good, size, 0.0).sum(), torch.where(bad, size, 0.0).sum()


@torch.no_grad()
def balanced(t: Terms, target: float, start: Pair, most: Pair, step: Pair) -> Pair:
    """From `start` on, raise the lower bound, then the upper one, by `step` up to `most`, until the better pull at least `target`
    times as strongly as the worse. -> (low, high)"""
    low, high = start

    def short() -> bool:
        good, bad = pulls(t, low, high)
        return bool(good < target * bad)

    while low < most[0] and short():
        low = min(low + step[0], most[0])
    while high < most[1] and short():
        high = min(high + step[1], most[1])
    return low, high


@torch.no_grad()
def second_moment(t: Terms, budget: float) -> Tensor:
    """The tau at which the mean of min((log r)^2, tau^2) is `budget`, over the decisions that were better than expected and grew
    likelier or worse and grew less likely; inf where that mean never reaches it. arXiv:2510.01161 sec. 4"""
    away = t.log_ratio
    harmful = (t.mask > 0) & (away * t.advantage > 0)
    square = away[harmful].square().sort().values
    if square.numel() == 0 or bool(square.mean() <= budget):
        return away.new_tensor(torch.inf)
    rest = torch.arange(len(square), 0, -1, device=square.device)  # how many are at least as large
    before = square.cumsum(0) - square
    first = int((before + rest * square >= budget * len(square)).nonzero()[0])
    return ((budget * len(square) - before[first]) / rest[first]).clamp(min=0).sqrt()
