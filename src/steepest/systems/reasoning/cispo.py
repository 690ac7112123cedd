"""CISPO: clip how much a token counts, and let every token count.

Paper.  MiniMax, MiniMax-M1: Scaling Test-Time Compute Efficiently with Lightning Attention, 2025. arXiv 2506.13585.
Claim.  With 16 updates on the same answers it learns faster than GRPO and DAPO: the clip takes rare tokens out for good.
Idea.   gradient = sum over tokens of clip(rho, 0, 1 + e) A grad log pi, the weight held fixed
State.  as grpo
Note.   The paper tunes e and does not give it; 0.28 is the value of a public implementation (modelscope/Trinity-RFT).
"""

from __future__ import annotations

from typing import Any

from ...core.system import System, extends
from ...losses import Reduce, token_mean
from ...losses import cispo as clipped_weight
from .grpo import grpo


@extends(grpo, without=("clip_range", "loss"))
def cispo(
    *, low: float = 1.0, high: float = 0.28, minibatches: int = 16, kl: float = 0.0, reduce: Reduce = token_mean, **options: Any
) -> System:
    """GRPO whose clipped ratio is a weight.

    low          no weight lies below 1 - this; 1: no bound (paper)
    high         nor above 1 + this
    minibatches  optimizer steps of a pass (paper: 16)
    kl           of the estimated KL(pi || reference), a loss term (paper: 0)
    reduce       how decisions are averaged; the paper's: every token counts the same
    """
    if not (0 < low <= 1 and high > 0):
        raise ValueError(f"low must lie in (0, 1] and high be positive, not {low} and {high}")
    return grpo(loss=clipped_weight(low=low, high=high), minibatches=minibatches, kl=kl, reduce=reduce, **options)  # <- the idea
