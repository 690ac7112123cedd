"""Reward functions: any callable (prompt, completion, answer) -> number, and those that are often needed."""

from .calls import Reward, graded, guarded
from .code import CodeReward, code_reward
from .combine import Inside, Matches, Part, Several, Tagged, exact, max_of, mixed
from .latex import Mathematical
from .numeric import final_answer, number, numeric
from .routed import Routed, by_answer, letter, one_of, overlap

__all__ = [
    "CodeReward", "Inside", "Matches", "Mathematical", "Part", "Reward", "Routed", "Several", "Tagged", "by_answer", "code_reward",
    "exact", "final_answer", "graded", "guarded", "letter", "max_of", "mixed", "number", "numeric", "one_of", "overlap",
]  # fmt: skip
