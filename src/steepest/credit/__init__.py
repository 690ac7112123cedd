"""Credit: rewards -> advantages. Pure functions of tensors."""

from .group import centred, group_relative, leave_one_out
from .returns import beyond_others, gae, reward_to_go, standardize
from .sets import best_relative, set_relative
from .success import across_prompts, answer_entropy, beta_normalized, mixed_certainty

__all__ = [
    "across_prompts", "answer_entropy", "best_relative", "beta_normalized", "beyond_others", "centred", "gae", "group_relative",
    "leave_one_out", "mixed_certainty", "reward_to_go", "set_relative", "standardize",
]  # fmt: skip
