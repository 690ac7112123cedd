"""EHPO: thinking in easy and in hard units; groups fork where it turns hard, and on easy questions the easy units pay.

Paper.  Zhang et al., Adaptive Dual Reasoner: Large Reasoning Models Can Think Efficiently by Hybrid Reasoning, 2025.
        arXiv 2510.10207.
Claim.  Answers become shorter at the same accuracy: easy questions are answered fast, hard ones slowly.
Idea.   R = right * fits * (b + (1 - b) (q p_easy + (1 - q) p_hard)), q the share of right answers in the group, p_easy and p_hard
        the shares of an answer's units
State.  as grpo
Note.   Built from what others tell of the paper, which gives no code: b, the number of forks and that a place forks with the chance
        1/2 + the difference of entropies may differ from it. What a unit is, and whether it is what it announces, the problem
        says; an answer without a unit has the wrong form and earns nothing. The cold start is the model that is given.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor

from ...collectors.branches import branched
from ...core.batch import Batch, at_end
from ...core.state import State
from ...core.system import System, extends
from ...credit.group import group_sums
from .grpo import grpo


def dual_reward(right: Tensor, key: Tensor, easy: Tensor, hard: Tensor, *, base: float) -> Tensor:
    """The reward [N] of answers that are right or not [N], with so many easy and hard units [N]; 0 where there is no unit."""
    total, count = group_sums(right, key)
    passed, share = total / count, easy / (easy + hard).clamp(min=1)
    mode = base + (1 - base) * (passed * share + (1 - passed) * (1 - share))  # <- the idea
    return right * mode * (easy + hard > 0)


def paid(state: State, batch: Batch, *, base: float, right: float) -> Batch:
    good = ((batch.score >= right) & batch.info["fits"]).to(batch.mask)
    easy, hard = batch.extra["easy"].sum(1), batch.extra["hard"].sum(1)
    reward = dual_reward(good, batch.key, easy, hard, base=base)
    return batch.having(reward=at_end(reward, batch.mask), info={**batch.info, "reward": float(reward.mean())})


@extends(grpo, without=("collect", "select"))
def ehpo(*, forks: int = 4, base: float = 0.5, right: float = 1.0, group: int = 8, kl: float = 0.0, **options: Any) -> System:
    """GRPO with forked groups and a reward that weighs easy and hard units by how hard the question is.

    forks  answers to a prompt, at most, that fork from others where a hard unit begins
    base   of the reward of a right answer, the part that does not depend on its units, in [0, 1]
    right  an answer with at least this score is right
    group  answers to each prompt before they fork
    kl     of the estimated KL(pi || reference), a loss term
    """
    if not 0 <= base <= 1:
        raise ValueError(f"base must lie in [0, 1], not {base}: it is a share of the reward")
    return grpo(collect=branched(forks), select=partial(paid, base=base, right=right), group=group, kl=kl, **options)
