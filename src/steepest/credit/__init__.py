"""Credit: rewards -> advantages. Pure functions of tensors."""

from .group import centred, group_relative, leave_one_out, token_relative
from .length import cer, cer_decrements, cosine, hapo, kimi_length, l1_exact, l1_max, overlong, prefix_cer, rubric, shortest_right
from .returns import beyond_others, gae, reward_to_go, standardize
from .sets import best_relative, set_relative
from .sliding import sliding
from .success import across_prompts, answer_entropy, beta_normalized, mixed_certainty

__all__ = [
    "across_prompts", "answer_entropy", "best_relative", "beta_normalized", "beyond_others", "centred", "cer", "cer_decrements",
    "cosine", "gae", "group_relative", "hapo", "kimi_length", "l1_exact", "l1_max", "leave_one_out", "mixed_certainty",
    "overlong", "prefix_cer", "reward_to_go", "rubric", "set_relative", "shortest_right", "sliding", "standardize",
    "token_relative",
]  # fmt: skip
