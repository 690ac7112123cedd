"""NFT: learn from wrong answers by likelihood too, for they say what is left of the old policy when its right part is taken out.

Paper.  Chen et al., Bridging Supervised Learning and Reinforcement Learning in Math Reasoning, 2025. arXiv 2505.18116.
Claim.  It learns more than fine-tuning on right answers alone, as much as GRPO, whose gradient it has as long as rho = 1.
Idea.   maximise log rho of right answers and log max((1 - q rho) / (1 - q), e) of wrong ones, q the prompt's share of right ones
State.  as grpo
Note.   Prompts are weighed by sqrt((1 - q) / q), one of the paper's three. Sampling, batch and average over tokens are DAPO's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ...collectors.generate import Gather
from ...collectors.refilled import refilled
from ...core.batch import Batch
from ...core.state import State
from ...core.system import System, extends
from ...credit import centred
from ...engines.policy_gradient import Credit
from ...losses import Reduce, token_mean
from ...losses import nft as both_likelihoods
from .grpo import grpo

Weight = Callable[[Tensor], Tensor]


def hard_first(q: Tensor) -> Tensor:
    """sqrt((1 - q) / q): the gradient at ratio 1 is then GRPO's."""
    return ((1 - q) / q).sqrt()


def plain(q: Tensor) -> Tensor:
    """1 - q: the gradient at ratio 1 is then Dr. GRPO's."""
    return 1 - q


def verdicts(weight: Weight) -> Credit:
    """w(q) for right answers, -w(q) q / (1 - q) for wrong ones, and q beside it; 0 where all answers agree."""

    def credit(state: State, batch: Batch) -> dict[str, Tensor]:
        score = batch.score
        if bool(((score != 0) & (score != 1)).any()):
            odd = int(((score != 0) & (score != 1)).nonzero()[0, 0])
            raise ValueError(f"answer {odd} has score {float(score[odd])}: NFT reads verdicts, 0 for wrong and 1 for right")
        q = score - centred(score, batch.key)
        mixed = (q > 0.5 / len(q)) & (q < 1 - 0.5 / len(q))
        q = q.where(mixed, 0.5)
        advantage = torch.where(score > 0, 1.0, -q / (1 - q)) * weight(q)
        return {"advantage": (advantage * mixed)[:, None], "success": q[:, None]}

    return credit


@extends(grpo, without=("clip_range", "loss", "credit"))
def nft(
    *, floor: float = 1.0, weight: Weight = hard_first, prompts: int = 512, group: int = 16, minibatches: int = 16, kl: float = 0.0,
    reduce: Reduce = token_mean, collect: Gather = refilled(rounds=10), **options: Any,
) -> System:  # fmt: skip
    """Negative-aware fine-tuning.

    floor        what is left of the old policy counts as at least this, e (paper: 1)
    weight       q -> how much a prompt counts
    prompts      prompts a step (paper: 512)
    group        answers to each, at least 2 (paper: 16)
    minibatches  optimizer steps of a pass (paper: 16)
    kl           of the estimated KL(pi || reference), a loss term (paper: 0)
    reduce       how decisions are averaged; the paper's: every token counts the same
    collect      (prompts=, group=) -> a collector of answers; the paper's asks again for groups that agree
    """
    if not 0 < floor < math.inf:
        raise ValueError(f"floor must be positive, not {floor}: the logarithm of what is left would not exist")
    return grpo(
        loss=both_likelihoods(floor=floor), credit=verdicts(weight), collect=collect,  # <- the idea
        prompts=prompts, group=group, minibatches=minibatches, kl=kl, reduce=reduce, **options,
    )  # fmt: skip
