"""BNPO: what divides an advantage follows how the success rates of the batch's prompts are spread.

Paper.  Xiao, Zhang and Cao, BNPO: Beta Normalization Policy Optimization, 2025. arXiv 2506.02864.
Claim.  Its gradients vary less during training than those of GRPO and REINFORCE, which are two fixed cases of it.
Idea.   A = (r - p) / Beta(p; a, b),  p the mean of the prompt's group, a and b by moments from the p of all prompts
State.  as grpo
Note.   a = b = 1 is REINFORCE with the group's mean as baseline, a = b = 3/2 GRPO. Rewards of several parts, whose advantages the
        paper adds, are not taken apart.
"""

from __future__ import annotations

from typing import Any

from ...core.system import System, extends
from ...credit import beta_normalized
from ...engines.answers import by_score
from .grpo import grpo


@extends(grpo, without=("credit",))
def bnpo(**options: Any) -> System:
    """GRPO whose advantages are divided by the density of the group's success rate. Scores must lie in [0, 1]."""
    return grpo(credit=by_score(beta_normalized), **options)  # <- the idea
