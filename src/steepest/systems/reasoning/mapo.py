"""MAPO: the surer a group's outcome, the more an answer counts by its share of the mean instead of by standard deviations.

Paper.  Huang et al., MAPO: Mixed Advantage Policy Optimization, 2025. arXiv 2509.18849.
Claim.  Weighing deviations by how certain a prompt's outcome is gives more accurate answers than GRPO's standard deviation alone.
Idea.   A = u (r - mean) / std + (1 - u) (r - mean) / mean,  u = 4 p (1 - p),  p the share of right answers
State.  as grpo
Note.   An answer is right if its score exceeds `success`; the paper's are 0 or 1. The result does not depend on the scale of the
        rewards, but on their zero: shifting them changes it.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from ...core.system import System, extends
from ...credit import mixed_certainty
from ...engines.answers import by_score
from .grpo import grpo


@extends(grpo, without=("credit",))
def mapo(*, success: float = 0.0, **options: Any) -> System:
    """GRPO with two measures of an advantage, mixed by the group's certainty.

    success  what the score of a right answer exceeds
    """
    if success < 0:
        raise ValueError(f"success must not be negative, not {success}: scores start at 0")
    return grpo(credit=by_score(partial(mixed_certainty, success=success)), **options)  # <- the idea
