"""BAPO: move the clip until what was better than expected pulls strongly enough against what was worse.

Paper.  Xi et al., BAPO: Stabilizing Off-Policy Reinforcement Learning for LLMs via Balanced Policy Optimization with Adaptive
        Clipping, 2025. arXiv 2510.18927.
Claim.  On stale answers a fixed clip lets bad tokens rule and entropy collapse; with bounds that move it stays and learns more.
Idea.   raise the lower bound, then the upper one, until sum of rho |A| over good tokens >= target x that over bad ones
State.  as grpo; with a lag the batches that wait
Note.   A token that the clip leaves no gradient counts for nothing. The authors' code counts it with the bound as its ratio, so
        that raising the lower bound makes the bad side heavier, which the text does not mean.
"""

from __future__ import annotations

from typing import Any

from ...collectors.stale import delayed, stale
from ...core.system import System, extends
from ...losses import Reduce, token_mean
from ...losses import bapo as balanced_clip
from .grpo import grpo


@extends(grpo, without=("clip_range", "loss", "collect"))
def bapo(
    *, target: float = 0.5, low: float = 0.8, high: float = 1.2, low_most: float = 0.95, high_most: float = 2.0,
    low_step: float = 0.05, high_step: float = 0.1, dual: float = 3.0, lag: int = 0, room: int = 512, prompts: int = 16,
    group: int = 8, kl: float = 0.0, reduce: Reduce = token_mean, **options: Any,
) -> System:  # fmt: skip
    """Balanced policy optimization.

    target     how strongly the good pulls at least, in parts of the bad (authors' recipe: 0.5)
    low        the band of the ratio begins here (authors' recipe: 0.8)
    high       and ends here (authors' recipe: 1.2)
    low_most   the highest that it may begin (authors' recipe: 0.95)
    high_most  the highest that it may end (authors' recipe: 2)
    low_step   what the lower bound rises by (authors' recipe: 0.05)
    high_step  what the upper bound rises by (authors' recipe: 0.1)
    dual       a bad token costs at most this many |A| (authors' code: 3)
    lag        updates between sampling a batch and learning from it
    room       the longest prompt of batches that wait, tokens
    prompts    prompts a step
    group      answers to each, at least 2 (authors' recipe: 8)
    kl         of the estimated KL(pi || reference), a loss term (authors' recipe: 0)
    reduce     how decisions are averaged; the authors': every token counts the same
    """
    if not (0 < low <= low_most <= 1 <= high <= high_most and min(low_step, high_step) > 0 and target >= 0):
        raise ValueError(
            f"needs 0 < low <= low_most <= 1 <= high <= high_most, positive steps and a target of at least 0, not low={low}, "
            f"low_most={low_most}, high={high}, high_most={high_most}, steps {low_step} and {high_step}, target={target}"
        )
    loss = balanced_clip(  # <- the idea
        target=target, low=low, high=high, low_most=low_most, high_most=high_most, low_step=low_step, high_step=high_step, dual=dual
    )
    system = grpo(loss=loss, collect=stale(lag), prompts=prompts, group=group, kl=kl, reduce=reduce, **options)
    return delayed(system, lag, rows=prompts * group, room=room)
