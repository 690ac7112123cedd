"""Kimi k1.5: mirror descent by regression on rewards less their group's mean, with a reward for being short among the right.

Paper.  Kimi Team, Kimi k1.5: Scaling Reinforcement Learning with LLMs, 2025. arXiv 2501.12599.
Claim.  Without value function and search it reaches what long reasoning needs; the length reward stops answers from growing.
Idea.   minimise (r_j - mean r - tau log rho_j)^2;  r_j gets 1/2 - (n_j - min n) / (max n - min n), and if wrong at most 0 of it
State.  as grpo; Adam's moments begin anew every step
Note.   The optimization and the length reward of the recipe. Sampling prompts by success rate, partial rollouts and what makes long
        reasoning short afterwards (merging, rejection sampling, DPO) are not built.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor

from ...core.batch import Batch
from ...core.state import State
from ...core.system import System, extends
from ...credit import centred, kimi_length
from ...losses import Reduce, regress, sequence_sum
from .grpo import grpo


def rewarded(state: State, batch: Batch, *, short: float, after: int) -> Tensor:
    """The reward, with that for length from step `after` on, less its group's mean."""
    extra = kimi_length(batch.length, (batch.score > 0).float(), batch.key) if state.step >= after else 0.0
    return centred(batch.score + short * extra, batch.key)[:, None]


def forget_moments(state: State, batch: Batch) -> None:
    """Each step is a problem of its own, from the policy that it begins with. arXiv:2501.12599 sec. 2.3.2"""
    state.optimizers["policy"].state.clear()


@extends(grpo, without=("credit", "loss", "clip_range", "after"))
def kimi_k15(
    *, tau: float = 0.1, short: float = 1.0, short_after: int = 0, group: int = 8, kl: float = 0.0, reduce: Reduce = sequence_sum,
    **options: Any,
) -> System:  # fmt: skip
    """Policy mirror descent with a length reward.

    tau          the price of a nat of KL(pi || policy of the step's beginning), in reward
    short        weight of the length reward (0: none)
    short_after  steps of training before the length reward counts: it hinders at first
    group        answers to each prompt
    kl           of the estimated KL(pi || reference), a loss term (0: the square alone)
    reduce       how decisions are averaged; the square is the sum over an answer's
    """
    if not tau > 0 or short < 0 or short_after < 0:
        raise ValueError(f"tau must be positive, short and short_after not negative, not {tau}, {short} and {short_after}")
    return grpo(
        loss=regress(scale=1 / tau), credit=partial(rewarded, short=short, after=short_after),  # <- the idea
        after=forget_moments, group=group, kl=kl, reduce=reduce, **options,
    )  # fmt: skip
