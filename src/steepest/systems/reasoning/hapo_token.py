"""HAPO (tokens): tokens at which the policy hesitates are sampled warmer, count for more and may move further than sure ones.

Paper.  Liu et al., From Uniform to Heterogeneous: Tailoring Policy Optimization to Every Token's Nature, 2025. arXiv 2509.16591.
Claim.  It learns more than DAPO, and keeps more entropy.
Idea.   h in [-1, 1] from log-entropy: temperature T (1 + 0.05 h), advantage A (1 + h), band 1 - 0.2 (1 - h) to 1 + 0.2 (1 + h)
State.  as grpo, and the scale of h of the last batch, by which the next one is sampled
Note.   h is 0 at the 0.8-quantile, 1 at the largest and -1 at the smallest log-entropy. The authors' code divides what is negative
        by a negative number, so that h is positive everywhere and its rules for sure tokens never act; here they do. Entropies are
        those of the policy that answered, once a batch; log-probabilities are at the plain temperature.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ...collectors.generate import generate
from ...core.batch import Batch
from ...core.state import State
from ...core.system import System, extends, holding
from ...credit import token_relative
from ...credit.nature import Scale, nature, scale_of
from ...losses import Reduce, hapo, token_mean
from ...memory import Table
from .grpo import grpo

ONLY = torch.zeros(1, dtype=torch.long)  # the row of a table of one


def warmer(swing: float, state: State) -> Callable[[Tensor], Tensor]:
    """What the temperature of a decision is multiplied by, on the scale of the last batch."""
    held: Any = state.scale
    scale = Scale(*(float(held.read(ONLY, name)) for name in Scale._fields))

    def warm(log_probs: Tensor) -> Tensor:
        entropy = -(log_probs.exp() * log_probs.masked_fill(log_probs == -torch.inf, 0.0)).sum(-1)
        return 1 + swing * nature(entropy, scale)

    return warm


@torch.no_grad()
def judged(state: State, batch: Batch) -> Batch:
    """With the nature of each decision beside it."""
    _, entropy = state.policy.logp_entropy(batch.obs, batch.action, batch.mask)
    scale = scale_of(entropy, batch.mask)
    told = {f"nature_{name}": x for name, x in scale._asdict().items()}
    return batch.having(extra={**batch.extra, "nature": nature(entropy, scale) * batch.mask}, info={**batch.info, **told})


def credit(state: State, batch: Batch) -> Tensor:
    return token_relative(batch.score, batch.key, batch.length)[:, None]


def remember(state: State, batch: Batch) -> None:
    held: Any = state.scale
    for name in Scale._fields:
        held.write(ONLY, name, torch.tensor([batch.info[f"nature_{name}"]]))


@extends(grpo, without=("clip_range", "loss", "select", "credit", "after", "collect"))
def hapo_token(
    *, swing: float = 0.05, width: float = 0.2, widen: float = 1.0, boost: float = 1.0, dual: float = 10.0, kl: float = 0.0,
    prompts: int = 512, group: int = 16, minibatches: int = 16, reduce: Reduce = token_mean, **options: Any,
) -> System:  # fmt: skip
    """Heterogeneous adaptive policy optimization.

    swing        the temperature of a decision is 1 +- this, times the plain one (authors' code: 0.05)
    width        the band of the ratio of a decision of middling nature is 1 +- this (authors' code: 0.2)
    widen        how much a band widens with its decision's nature (authors' code: 1)
    boost        how much an advantage grows with it (authors' code: 1)
    dual         an answer that was worse than expected costs at most this many |A| (authors' code: 10)
    kl           of the estimated KL(pi || reference), a loss term (authors' code: 0)
    prompts      prompts a step (as DAPO: 512)
    group        answers to each, at least 2 (as DAPO: 16)
    minibatches  optimizer steps of a pass (as DAPO: 16)
    reduce       how decisions are averaged; the authors': every token counts the same
    """
    if not (0 <= swing < 1 and 0 < width * (1 + widen) < 1 and 0 <= boost <= 1 and widen >= 0 and dual > 1):
        raise ValueError(
            f"needs swing in [0, 1), width (1 + widen) in (0, 1), boost in [0, 1] and dual > 1, not {swing}, {width}, {widen}, "
            f"{boost} and {dual}"
        )
    system = grpo(
        loss=hapo(width=width, widen=widen, boost=boost, dual=dual), select=judged, credit=credit, after=remember,  # <- the idea
        collect=partial(generate, warm=partial(warmer, swing)), kl=kl, prompts=prompts, group=group, minibatches=minibatches,
        reduce=reduce, **options,
    )  # fmt: skip
    return holding(system, scale=lambda state, problem, rng: Table(1, middle=0.0, top=0.0, bottom=0.0))
