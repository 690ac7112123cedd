"""Engines: the few shapes of `learn` that many papers share."""

from .policy_gradient import PolicyObjective, keep, nothing, policy_gradient

__all__ = ["PolicyObjective", "keep", "nothing", "policy_gradient"]
