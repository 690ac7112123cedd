"""M2PO: on stale answers, cut off only the few tokens that make the second moment of the log-ratio too large.

Paper.  Zheng et al., Prosperity before Collapse: How Far Can Off-Policy RL Reach with Stale Data on LLMs?, 2025. arXiv 2510.01161.
Claim.  On answers that are many updates old it learns nearly as well as on fresh ones, and better than with PPO's clip.
Idea.   clip at exp(+-tau), tau the largest with mean min((log rho)^2, tau^2) <= 0.04 over the tokens that are being pushed away
State.  as grpo; with a lag the batches that wait
Note.   The paper masks the outliers; clipped on the side they are pushed to they have no gradient, which is the same, and what the
        authors' code does. With the budget at nothing and low = high it is PPO's clip.
"""

from __future__ import annotations

from typing import Any

from ...collectors.stale import delayed, stale
from ...core.system import System, extends
from ...losses import Reduce, token_mean
from ...losses import m2po as second_moment_clip
from .grpo import grpo


@extends(grpo, without=("clip_range", "loss", "collect"))
def m2po(
    *, budget: float = 0.04, low: float = 0.3, high: float = 0.5, lag: int = 256, room: int = 512, prompts: int = 128,
    group: int = 8, kl: float = 0.0, reduce: Reduce = token_mean, **options: Any,
) -> System:  # fmt: skip
    """Second-moment trust policy optimization.

    budget   of the mean square of the log-ratio (paper: 0.04)
    low      the band of the ratio begins at 1 - this or lower (authors' code: 0.3)
    high     and ends at 1 + this or higher (authors' code: 0.5)
    lag      updates between sampling a batch and learning from it (paper: up to 256)
    room     the longest prompt of batches that wait, tokens
    prompts  prompts a step (paper: 128)
    group    answers to each, at least 2 (paper: 8)
    kl       of the estimated KL(pi || reference), a loss term (paper: 0)
    reduce   how decisions are averaged; the authors': every token counts the same
    """
    if not (budget > 0 and 0 <= low < 1 and high >= 0):
        raise ValueError(f"needs a positive budget, low in [0, 1) and high of at least 0, not {budget}, {low} and {high}")
    loss = second_moment_clip(budget=budget, low=low, high=high)  # <- the idea
    system = grpo(loss=loss, collect=stale(lag), prompts=prompts, group=group, kl=kl, reduce=reduce, **options)
    return delayed(system, lag, rows=prompts * group, room=room)
