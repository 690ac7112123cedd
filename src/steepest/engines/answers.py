"""What methods for whole answers share: a State for a language model, an advantage from scores, a divergence in the reward."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..core.batch import Batch
from ..core.state import State
from .policy_gradient import Credit, Select, keep

Rule = Callable[[Tensor, Tensor], Tensor]


def by_score(rule: Rule) -> Credit:
    """One advantage for all decisions of an answer: `rule(score [N], key [N]) -> [N]`, e.g. one of `credit.group`."""
    return partial(scored, rule=rule)


def scored(state: State, batch: Batch, *, rule: Rule) -> Tensor:
    return rule(batch.score, batch.key)[:, None]


def kl_penalty(beta: float) -> Select:
    """Every decision pays beta (log pi - log reference): the sum is an estimate of KL(pi || reference). arXiv:1909.08593 eq. 2

    The State needs a `reference`. Reports `kl_ref`, nats an answer.
    """
    if beta < 0:
        raise ValueError(f"the weight of a divergence must not be negative, not {beta}: the policy would be paid for leaving")
    return partial(penalised, beta=beta) if beta else keep


@torch.no_grad()
def penalised(state: State, batch: Batch, *, beta: float) -> Batch:
    sides: tuple[Any, Any] = state.policy, state.reference
    logp, ref = (model.logp(batch.obs, batch.action, batch.mask) for model in sides)
    away = torch.where(batch.mask > 0, logp - ref, 0.0)
    return batch.having(reward=batch.reward - beta * away, info={**batch.info, "kl_ref": float(away.sum(1).mean())})
