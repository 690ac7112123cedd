"""Scaf-GRPO: where a whole group fails, one success with the smallest hint that brings it about takes the place of one failure.

Paper.  Zhang et al., Scaf-GRPO: Scaffolded Group Relative Policy Optimization for Enhancing LLM Reasoning, 2025.
        arXiv 2510.19807.
Claim.  From prompts of which every answer would be wrong it learns, where GRPO learns nothing.
Idea.   a group of failures: its first answer <- the right answer under the smallest hint that had one
State.  as grpo
Note.   The success keeps the prompt that it answered, so its ratio begins at 1: the default of the authors' code
        (dvlab-research/Scaf-GRPO, replace_num=1, replace_hint_prompt=False). It asks all levels at once and keeps the
        smallest that succeeded; here the next level is asked only where the last one failed, which has the same outcome for
        fewer answers. The paper's twelve hints are three kinds (knowledge, plan, solution) in four parts; here a hint is a
        share of the solution.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from ...collectors.generate import Gather, generate, joined
from ...collectors.hints import helped, hinted, refuse_levels
from ...core import Batch, State, Stream, System, extends
from .grpo import grpo

TWELVE = tuple(part / 13 for part in range(1, 13))


@extends(grpo, without=("kl",))
def scaf_grpo(
    *, levels: tuple[float, ...] = TWELVE, start: int = 50, right: float = 1.0, collect: Gather = generate, **options: Any
) -> System:
    """Group relative policy optimization in which the smallest sufficient hint saves a group of failures.

    levels   shares of the solution (paper: 12 hints that contain one another)
    start    the first step with hints: before it nobody knows what is really too hard (authors' script: 50)
    right    an answer with at least this score is right
    collect  (prompts=, group=) -> a collector of answers without hints
    """
    refuse_levels(levels)
    mend = partial(scaffold, levels=levels, right=right)
    return grpo(collect=helped(mend, start=start, right=right, plain=collect), kl=0.0, **options)


def scaffold(state: State, problem: Any, batch: Batch, rng: Stream, *, levels: tuple[float, ...], right: float) -> Batch:
    """The groups, the first answer of each replaced where a level brought a right one."""
    batch = batch.rows(batch.key.argsort(stable=True))
    first = torch.ones_like(batch.key, dtype=torch.bool)
    first[1:] = batch.key[1:] != batch.key[:-1]
    asked, saved = batch.rows(first), []
    for index, level in enumerate(levels):
        one = hinted(state, problem, asked, level, rng / index)
        good = one.score >= right
        saved.append(one.rows(good))  # <- the idea
        asked = asked.rows(~good)
        if not len(asked):
            break
    keys = torch.cat([one.key for one in saved])
    return joined(batch.rows(~(first & torch.isin(batch.key, keys))), *saved)
