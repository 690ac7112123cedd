"""SEC: a bandit asks the categories of prompts from which most is being learned.

Paper.  Chen et al., Self-Evolving Curriculum for LLM Reasoning, 2025. arXiv 2505.14970.
Claim.  It generalises better to harder problems than prompts drawn evenly.
Idea.   a prompt's category ~ softmax(Q / tau); Q(c) <- Q(c) + a (mean |A| of category c's answers - Q(c))
State.  as grpo, and `bandit` (the category of each prompt, the value of each category)
Note.   Values of a and tau differ between the paper's tasks; the defaults here are the specification's. The problem is a known
        set of prompts that knows the category of each (`category_of` [size]).
"""

from __future__ import annotations

from functools import partial
from typing import Any

from ...collectors.asking import by_weight, pool, softmax_of
from ...collectors.generate import generate
from ...core import Batch, State, System, extends, holding
from ...memory.tracker import Bandit
from .grpo import grpo


@extends(grpo, without=("collect", "after"))
def sec(*, rate: float = 0.5, tau: float = 1.0, **options: Any) -> System:
    """Group relative policy optimization on prompts that a bandit of categories chooses.

    rate  of a category's value towards what its answers of a step had to teach
    tau   temperature of the choice, in units of |advantage|
    """
    ask = by_weight(softmax_of(tau=tau), repeated=True)
    parent = grpo(collect=partial(generate, ask=ask), after=learned, **options)
    return holding(parent, bandit=lambda state, problem, rng: Bandit(pool(problem).category_of, rate=rate))


def learned(state: State, batch: Batch) -> None:
    state.bandit.write(batch.key, batch.advantage[:, 0].abs())  # <- the idea
