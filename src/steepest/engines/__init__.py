"""Engines: the few shapes of `learn` that many papers share."""

from .answers import by_score, kl_penalty
from .imitation import after_imitation, imitation
from .policy_gradient import PolicyObjective, keep, nothing, policy_gradient

__all__ = ["PolicyObjective", "after_imitation", "by_score", "imitation", "keep", "kl_penalty", "nothing", "policy_gradient"]
