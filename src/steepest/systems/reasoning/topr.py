"""TOPR: right answers are imitated whatever their age; wrong ones are pushed away only as long as the policy still gives them.

Paper.  Le Roux et al., Tapered Off-Policy REINFORCE: Stable and efficient reinforcement learning for LLMs, 2025. arXiv 2503.14286.
Claim.  On stale answers it learns stably without a divergence, where REINFORCE without a ratio collapses.
Idea.   gradient = sum of w R grad log pi(answer), w = 1 where R >= 0, else min(pi / pi_old, 1) of the whole answer
State.  as grpo; with a lag the batches that wait
Note.   R is 1 for right, -1 for wrong, minus the baseline: a verdict in [0, 1] is stretched to that. The baseline sets how much of
        the pull is upward (`positive_share`), best near 0.1 to 0.2 in the paper.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ...collectors.stale import delayed, stale
from ...core.batch import Batch
from ...core.state import State
from ...core.system import System, extends
from ...engines.policy_gradient import Credit, Select
from ...losses import topr as tapered
from .grpo import grpo


def signed(baseline: float) -> Credit:
    """A verdict in [0, 1] as R in [-1, 1], minus the baseline."""

    def credit(state: State, batch: Batch) -> Tensor:
        score = batch.score
        if bool(((score < 0) | (score > 1)).any()):
            wrong = int(((score < 0) | (score > 1)).nonzero()[0, 0])
            raise ValueError(f"answer {wrong} has score {float(score[wrong])}: TOPR reads verdicts, 0 for wrong to 1 for right")
        return (2 * score - 1 - baseline)[:, None]

    return credit


def positive_share(right: float, baseline: float) -> float:
    """The share of the upward pull where that many answers are right: p (1 - c) / (1 + c (1 - 2 p)). arXiv:2503.14286 sec. 3.3"""
    up, down = right * (1 - baseline), (1 - right) * (1 + baseline)
    return up / (up + down) if up + down else 0.0


def counted(baseline: float) -> Select:
    """Reports the share."""

    def select(state: State, batch: Batch) -> Batch:
        share = positive_share(float(batch.score.mean()), baseline)
        return batch.having(info={**batch.info, "positive_share": share})

    return select


@extends(grpo, without=("clip_range", "loss", "collect", "credit", "select"))
def topr(
    *, baseline: float = 0.0, good_low: float = 1.0, good_high: float = 1.0, bad_low: float = 0.0, bad_high: float = 1.0,
    lag: int = 0, room: int = 512, lr: float = 5e-7, prompts: int = 16, group: int = 16, kl: float = 0.0, **options: Any,
) -> System:  # fmt: skip
    """Tapered off-policy REINFORCE.

    baseline   what is taken off R, in [-1, 1) (paper: 0); at -1 wrong answers do not count
    good_low   the weight of a right answer is at least this (paper: 1)
    good_high  and at most this (paper: 1)
    bad_low    that of a wrong answer at least this (paper: 0); with all four at 1 it is REINFORCE on whatever data
    bad_high   and at most this (paper: 1)
    lag        updates between sampling a batch and learning from it
    room       the longest prompt of batches that wait, tokens
    lr         learning rate of Adam (paper: 5e-7)
    prompts    prompts a step
    group      answers to each, at least 2 (paper: 16)
    kl         of the estimated KL(pi || reference), a loss term (paper: 0)
    """
    if not (-1 <= baseline < 1 and 0 <= good_low <= good_high and 0 <= bad_low <= bad_high):
        raise ValueError(
            f"needs a baseline in [-1, 1) and bounds 0 <= low <= high, not {baseline}, [{good_low}, {good_high}] and "
            f"[{bad_low}, {bad_high}]"
        )
    loss = tapered(good_low=good_low, good_high=good_high, bad_low=bad_low, bad_high=bad_high)  # <- the idea
    system = grpo(
        loss=loss, credit=signed(baseline), select=counted(baseline), collect=stale(lag), lr=lr, prompts=prompts, group=group,
        kl=kl, **options,
    )  # fmt: skip
    return delayed(system, lag, rows=prompts * group, room=room)
