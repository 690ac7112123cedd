"""Credit: rewards -> advantages. Pure functions of tensors."""

from .group import centred, group_relative, leave_one_out
from .returns import beyond_others, gae, reward_to_go, standardize

__all__ = ["beyond_others", "centred", "gae", "group_relative", "leave_one_out", "reward_to_go", "standardize"]
