"""GHPO: where a whole group fails, the first part of the solution stands in the prompt, as much of it as it takes.

Paper.  Liu et al., GHPO: Adaptive Guidance for Stable and Efficient LLM Reinforcement Learning, 2025. arXiv 2507.10628.
Claim.  From prompts of which every answer would be wrong it learns, where GRPO learns nothing.
Idea.   while every answer of a group is wrong, ask all of it again with the next share of the solution: 1/4, 1/2, 3/4
State.  as grpo
Note.   The loss is that of the prompt that was really asked, hint included, as in the authors' code. There (hkgc-1/GHPO,
        ghpo_trainer.py) a later level may pair an answer with its prompt without the hint; here it never does.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from ...collectors.generate import Gather, generate, joined
from ...collectors.hints import helped, hinted, hopeless, refuse_levels
from ...core import Batch, State, Stream, System, extends
from .grpo import grpo


@extends(grpo)
def ghpo(
    *, levels: tuple[float, ...] = (0.25, 0.5, 0.75), start: int = 0, right: float = 1.0, collect: Gather = generate, **options: Any
) -> System:
    """Group relative policy optimization with a growing part of the solution where it is needed.

    levels   shares of the solution, told one after the other while a group still fails (authors' code: quarters)
    start    the first step with hints (authors' code: an option without a default)
    right    an answer with at least this score is right
    collect  (prompts=, group=) -> a collector of answers without hints
    """
    refuse_levels(levels)
    mend = partial(climb, levels=levels, right=right)
    return grpo(collect=helped(mend, start=start, right=right, plain=collect), **options)


def climb(state: State, problem: Any, batch: Batch, rng: Stream, *, levels: tuple[float, ...], right: float) -> Batch:
    """Groups that failed, each asked again until somebody is right or the last level is reached."""
    done = []
    for index, level in enumerate(levels):
        batch = hinted(state, problem, batch, level, rng / index)  # <- the idea
        lost = hopeless(batch, right)
        done.append(batch.rows(~lost))
        batch = batch.rows(lost)
        if not len(batch):
            break
    return joined(*done, batch)
