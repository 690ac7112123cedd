"""RLOO: what an answer is compared with is the mean of the other answers to the same prompt.

Paper.  Kool, van Hoof and Welling, Buy 4 REINFORCE Samples, Get a Baseline for Free!, 2019;
        for language models: Ahmadian et al., Back to Basics, 2024. arXiv 2402.14740.
Claim.  At the same number of answers its gradient varies less than that of REINFORCE with the mean of the batch.
Idea.   A_i = r_i - mean of the r_j, j != i, to the same prompt
State.  as reinforce
"""

from __future__ import annotations

from typing import Any

from ...core.system import System, extends
from ...credit import leave_one_out
from ...engines.answers import by_score
from .reinforce import reinforce


@extends(reinforce, without=("credit",))
def rloo(*, prompts: int = 128, group: int = 4, **options: Any) -> System:
    """REINFORCE with a leave-one-out baseline.

    prompts  prompts a step (Ahmadian et al.: 512 answers)
    group    answers to each, at least 2 (Ahmadian et al.: 2 and 4)
    """
    if group < 2:
        raise ValueError(f"leave-one-out needs at least 2 answers to a prompt, not {group}: raise group, or use reinforce")
    return reinforce(prompts=prompts, group=group, credit=by_score(leave_one_out), **options)  # <- the idea
