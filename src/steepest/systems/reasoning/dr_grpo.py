"""Dr. GRPO: GRPO without the two divisions that favour long wrong answers and questions that are too easy or too hard.

Paper.  Liu et al., Understanding R1-Zero-Like Training: A Critical Perspective, 2025. arXiv 2503.20783.
Claim.  It learns as much as GRPO, and wrong answers do not grow longer.
Idea.   A_i = r_i - mean over the group, and the sum over tokens / a constant: no std, no 1 / length
State.  as grpo
"""

from __future__ import annotations

from typing import Any

from ...core.system import System, extends
from ...credit import centred
from ...engines.answers import by_score
from ...losses import constant_norm
from .grpo import grpo


@extends(grpo, without=("credit", "reduce"))
def dr_grpo(*, longest: float = 3000.0, prompts: int = 128, group: int = 8, kl: float = 0.0, **options: Any) -> System:
    """GRPO with an unbiased advantage and an unbiased average over tokens.

    longest  the constant by which an answer's sum is divided, tokens (paper: 3,000, the longest answer)
    prompts  prompts a step (paper: 128)
    group    answers to each, at least 2 (paper: 8)
    kl       of the estimated KL(pi || reference), a loss term (paper: 0)
    """
    average = constant_norm(longest)
    return grpo(credit=by_score(centred), reduce=average, prompts=prompts, group=group, kl=kl, **options)  # <- the idea
