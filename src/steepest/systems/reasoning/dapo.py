"""DAPO: a wider upper clip, no group that agrees, tokens that all count the same, and a soft end to long answers.

Paper.  Yu et al., DAPO: An Open-Source LLM Reinforcement Learning System at Scale, 2025. arXiv 2503.14476.
Claim.  Of the same number of updates it makes more than GRPO, whose batches hold ever more groups that say nothing.
Idea.   GRPO on groups with 0 < accuracy < 1, asked again until there are enough; clip(rho, 1 - 0.2, 1 + 0.28); mean over tokens
State.  as grpo
Note.   The paper's penalty begins 4,096 of 20,480 tokens before the longest answer; here that share of the problem's own longest
        answer. The dual clip at 10 stands in the authors' recipe only. Where ten rounds do not find enough groups the recipe
        stops; here the batch is filled with groups that agree, which move nothing.
"""

from __future__ import annotations

from typing import Any

from ...collectors.generate import Gather
from ...collectors.refilled import refilled
from ...core.batch import Batch, at_end
from ...core.state import State
from ...core.system import System, extends
from ...credit.length import overlong
from ...engines.policy_gradient import Select
from ...losses import Reduce, clip, token_mean
from .grpo import grpo


def soft_end(share: float) -> Select:
    """The last decision pays for a length in the last `share` of what the policy may say."""

    def select(state: State, batch: Batch) -> Batch:
        paid = overlong(batch.length, most=state.policy.max_new, buffer=share * state.policy.max_new)
        reward = batch.reward + at_end(paid, batch.mask)
        return batch.having(reward=reward, info={**batch.info, "overlong": float(paid.mean())})

    return select


@extends(grpo, without=("clip_range", "loss", "select"))
def dapo(
    *, low: float = 0.2, high: float = 0.28, dual: float = 10.0, soft: float = 0.2, prompts: int = 512, group: int = 16,
    minibatches: int = 16, kl: float = 0.0, reduce: Reduce = token_mean, collect: Gather = refilled(rounds=10), **options: Any,
) -> System:  # fmt: skip
    """Decoupled clip and dynamic sampling policy optimization.

    low          the band of the ratio begins at 1 - this (paper: 0.2)
    high         and ends at 1 + this (paper: 0.28)
    dual         an answer that was worse than expected costs at most this many |A| (authors' recipe: 10)
    soft         the last share of the longest answer over which the penalty grows from 0 to 1 (paper: 0.2)
    prompts      prompts a step (paper: 512)
    group        answers to each, at least 2 (paper: 16)
    minibatches  optimizer steps of a pass (paper: 16)
    kl           of the estimated KL(pi || reference), a loss term (paper: 0)
    reduce       how decisions are averaged; the paper's: every token counts the same
    collect      (prompts=, group=) -> a collector of answers; the paper's asks again for groups that agree (authors' recipe: ten
                 rounds)
    """
    if not (0 < low < 1 and high > 0 and dual > 1 and 0 < soft <= 1):
        raise ValueError(f"needs low in (0, 1), high > 0, dual > 1 and soft in (0, 1], not {low}, {high}, {dual} and {soft}")
    return grpo(
        loss=clip(low=low, high=high, dual=dual), select=soft_end(soft), collect=collect,  # <- the idea
        reduce=reduce, prompts=prompts, group=group, minibatches=minibatches, kl=kl, **options,
    )  # fmt: skip
