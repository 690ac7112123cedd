"""Reward functions: any callable (prompt, completion, answer) -> number, and those that are often needed."""

from .calls import Reward, graded, guarded
from .code import CodeReward, code_reward
from .combine import Inside, Matches, Part, Several, Tagged, exact, max_of, mixed
from .latex import Mathematical
from .numeric import final_answer, number, numeric

__all__ = [
    "CodeReward", "Inside", "Matches", "Mathematical", "Part", "Reward", "Several", "Tagged", "code_reward", "exact",
    "final_answer", "graded", "guarded", "max_of", "mixed", "number", "numeric",
]  # fmt: skip
