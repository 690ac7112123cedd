"""Engines: the few shapes of `learn` that many papers share."""

from .answers import by_score, kl_penalty
from .policy_gradient import PolicyObjective, keep, nothing, policy_gradient

__all__ = ["PolicyObjective", "by_score", "keep", "kl_penalty", "nothing", "policy_gradient"]
