"""GSPO: where the reward is for the answer, the ratio that is clipped is the answer's.

Paper.  Zheng et al., Group Sequence Policy Optimization, 2025. arXiv 2507.18071.
Claim.  From the same answers, used for several updates, it learns more than GRPO, and its training is steadier.
Idea.   s = (pi(answer) / pi_old(answer))^(1 / length); maximise min(s A, clip(s, 1 - 0.0003, 1 + 0.0004) A)
State.  as grpo
Note.   The band fits answers of thousands of tokens: the mean log-ratio of a short answer leaves it at the first update.
"""

from __future__ import annotations

from typing import Any

from ...core.system import System, extends
from ...losses import gspo as sequence_clip
from .grpo import grpo


@extends(grpo, without=("clip_range", "loss"))
def gspo(*, low: float = 3e-4, high: float = 4e-4, minibatches: int = 4, kl: float = 0.0, **options: Any) -> System:
    """GRPO whose ratio belongs to the whole answer.

    low          the band of the ratio begins at 1 - this (paper: 0.0003)
    high         and ends at 1 + this (paper: 0.0004)
    minibatches  optimizer steps of a pass (paper: 4)
    kl           of the estimated KL(pi || reference), a loss term (paper: none)
    """
    if not (0 < low < 1 and high > 0):
        raise ValueError(f"low must lie in (0, 1) and high be positive, not {low} and {high}")
    return grpo(loss=sequence_clip(low=low, high=high), minibatches=minibatches, kl=kl, **options)  # <- the idea
