"""CPGD: no ratio in the gradient, a clip of its logarithm instead, and a small pull back to the policy that answered.

Paper.  Liu et al., CPGD: Toward Stable Rule-based Reinforcement Learning for Language Models, 2025. arXiv 2505.12504.
Claim.  Where the same answers serve several updates, losses with the ratio in their gradient collapse, and it does not.
Idea.   maximise min(z A, clip(z, log(1 - e), log(1 + e)) A), z = log rho, minus drift KL(old || pi)
State.  as grpo
Note.   The drift's gradient is min(rho - 1, 0.2) grad log pi: the authors' options name a range of 0.2 and the stored code does not
        say whether 1 is added. Advantages are the group's, over its standard deviation: one of the three that the authors offer.
"""

from __future__ import annotations

from typing import Any

from ...core.system import System, extends
from ...losses import Reduce, token_mean
from ...losses import cpgd as clipped_log
from .grpo import grpo


@extends(grpo, without=("clip_range", "loss"))
def cpgd(
    *, width: float = 0.2, drift: float = 0.01, cap: float = 0.2, prompts: int = 128, group: int = 8, kl: float = 0.0,
    reduce: Reduce = token_mean, **options: Any,
) -> System:  # fmt: skip
    """Clipped policy gradient with policy drift.

    width    the band of the ratio is 1 +- this, its logarithm is clipped (authors' code: 0.2)
    drift    of the divergence from the policy that answered, a loss term (authors' code: 0.01)
    cap      rho - 1 counts at most this in it (authors' code: 0.2)
    prompts  prompts a step (paper: 128)
    group    answers to each, at least 2 (paper: 8)
    kl       of the estimated KL(pi || reference), a loss term (paper: 0)
    reduce   how decisions are averaged; the authors': every token counts the same
    """
    if not 0 < width < 1 or drift < 0 or cap < 0:
        raise ValueError(f"width must lie in (0, 1), drift and cap must not be negative, not {width}, {drift} and {cap}")
    loss = clipped_log(width=width, drift=drift, cap=cap)  # <- the idea
    return grpo(loss=loss, prompts=prompts, group=group, kl=kl, reduce=reduce, **options)
