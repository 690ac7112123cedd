"""Polychromic PPO: a set of answers earns what its members earn times how different they are, and all of them share it.

Paper.  Hamid et al., Polychromic Objectives for Reinforcement Learning, 2025. arXiv 2509.25424.
Claim.  The policy keeps more ways of succeeding than with PPO: it succeeds more often at least once in many attempts (pass@k).
Idea.   A_i = mean of f(S) over sets S that hold i - mean over all sets;  f(S) = mean of r in S times share of different kinds in S
State.  as grpo
Note.   For text. The paper forks episodes at some of their states and uses a critic at the others; the state forked here is the
        prompt, so its answers are the fork and no state is left for a critic. Every set of the group counts, where the paper draws
        some. What is of one kind, the problem says.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor

from ...collectors.generate import Gather, generate, recognised
from ...core.batch import Batch
from ...core.state import State
from ...core.system import System, extends
from ...credit import set_relative
from .grpo import grpo


def in_sets(state: State, batch: Batch, *, size: int) -> Tensor:
    bad = ((batch.score < 0) | (batch.score > 1)).nonzero()
    if len(bad):
        n = int(bad[0])
        raise ValueError(f"score[{n}] is {float(batch.score[n])}: what is multiplied by a share of kinds must lie in [0, 1]")
    return set_relative(batch.score, batch.key, batch.info["kind"], size=size)[:, None]  # <- the idea


@extends(grpo, without=("credit",))
def polychromic_ppo(*, size: int = 4, group: int = 8, kl: float = 0.0, collect: Gather = generate, **options: Any) -> System:
    """GRPO whose advantages are those of sets of answers.

    size     answers of a set, at least 2 (paper: 4)
    group    answers to each prompt, more than size (paper: 8)
    kl       of the estimated KL(pi || reference), a loss term
    collect  (prompts=, group=) -> a collector of answers
    """
    if not 2 <= size < group:
        raise ValueError(f"size must be at least 2 and less than group, not {size} and {group}: one set has nothing to compare")
    return grpo(credit=partial(in_sets, size=size), collect=recognised(collect), group=group, kl=kl, **options)
