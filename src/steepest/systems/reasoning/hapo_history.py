"""HAPO: a right answer is praised for being shorter than the shortest right one so far.

Paper.  Huang et al., HAPO: Training Language Models to Reason Concisely via History-Aware Policy Optimization, 2025.
        arXiv 2505.11225.
Claim.  Answers become much shorter at little cost in accuracy.
Idea.   h(prompt) = length of its shortest right answer; f = cos(min(n / h, 2) pi / 2); r = verdict + w max(-0.7, f) where right,
        verdict + w min(0, f) where wrong
State.  as grpo, and `history` (the shortest right answer of each prompt, tokens)
Note.   As in the authors' code (HCY123902/HAPO, utils.py), whose weight is 1. The problem is a known set of prompts.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

from ...collectors.asking import pool
from ...core import Batch, State, System, extends, holding
from ...core.batch import at_end
from ...credit import hapo
from ...memory import Table
from .grpo import grpo


@extends(grpo, without=("select", "after"))
def hapo_history(*, weight: float = 1.0, worst: float = -0.7, right: float = 1.0, group: int = 2, **options: Any) -> System:
    """Group relative policy optimization with a reward for beating each prompt's own record in length.

    weight  of that reward (authors' script: 1)
    worst   the least that a right answer gets for its length (authors' code: -0.7)
    right   an answer with at least this score is right
    group   answers to each prompt (authors' script: 2)
    """
    if weight < 0 or not -1 < worst <= 0 or not right + weight * worst > 0:
        raise ValueError(
            f"with weight {weight} and worst {worst} a long right answer would get {right + weight * worst:g}, no more than a "
            "short wrong one: weight must not be negative, worst lie in (-1, 0] and right + weight * worst be positive"
        )
    parent = grpo(select=partial(shaped, weight=weight, worst=worst, right=right), after=record, group=group, **options)
    return holding(parent, history=lambda state, problem, rng: Table(pool(problem).size, shortest=math.inf))


def shaped(state: State, batch: Batch, *, weight: float, worst: float, right: float) -> Batch:
    good, past = batch.score >= right, state.history.read(batch.key, "shortest")
    bonus = hapo(batch.length, good.float(), past, floor=worst)  # <- the idea
    reward = batch.reward + at_end(weight * bonus, batch.mask)
    told = {"bonus": float(bonus.mean()), "right": float(good.float().mean())}
    return batch.having(reward=reward, extra=batch.extra | {"right": good[:, None] * batch.mask}, info=batch.info | told)


def record(state: State, batch: Batch) -> None:
    good = batch.extra["right"][:, 0] > 0
    state.history.write(batch.key[good], "shortest", batch.length[good], "amin")
