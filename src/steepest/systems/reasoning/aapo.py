"""AAPO: beside the rest of its group, an answer is compared with one of the policy that training began from.

Paper.  Xiong et al., AAPO: Enhancing the Reasoning Capabilities of LLMs with Advantage Momentum, 2025. arXiv 2505.14264.
Claim.  What is learned from goes on where all answers of a group earn the same, and answers become more accurate than with GRPO.
Idea.   A_i = (r_i - mean) / (std + 1e-4) + clip(r_i - r_i', -0.2, 0.28), r' the reward of the reference's answer; loss -A log pi
State.  as grpo, and the frozen reference
Note.   The reference answers anew in every step, as in the authors' code, which doubles the answers that are sampled. The code sets
        a weight for a divergence that its loss does not use; here it is 0.
"""

from __future__ import annotations

import warnings
from functools import partial
from typing import Any

from torch import Tensor

from ...collectors.generate import Gather, beside_reference, generate
from ...core.batch import Batch
from ...core.state import State
from ...core.system import System, extends, holding
from ...credit import group_relative
from ...losses import Reduce, reinforce, token_mean
from ...models.build import as_it_began
from .grpo import grpo


def beyond_reference(state: State, batch: Batch, *, low: float, high: float) -> Tensor:
    if float(batch.score.abs().max()) > 5:
        warnings.warn(
            f"scores reach {float(batch.score.abs().max()):g}: beside them, a gain clipped to [{-low:g}, {high:g}] hardly counts; "
            "scale the rewards to about 1", stacklevel=2,
        )  # fmt: skip
    gained = (batch.score - batch.info["reference_score"]).clamp(-low, high)
    return (group_relative(batch.score, batch.key, eps=1e-4) + gained)[:, None]  # <- the idea


@extends(grpo, without=("credit", "loss", "clip_range", "kl"))
def aapo(
    *, low: float = 0.2, high: float = 0.28, group: int = 6, temperature: float = 0.7, reduce: Reduce = token_mean,
    collect: Gather = generate, **options: Any,
) -> System:  # fmt: skip
    """GRPO's advantage and a clipped gain over the reference, on the plain log-likelihood.

    low          the gain counts down to minus this (code: 0.2)
    high         and up to this (code: 0.28)
    group        answers to each prompt, of the policy and of the reference (code: 6)
    temperature  of sampling (code: 0.7)
    reduce       how decisions are averaged (code: all tokens count the same)
    collect      (prompts=, group=) -> a collector of answers
    """
    if low < 0 or high < 0:
        raise ValueError(f"low and high must not be negative, not {low} and {high}: a gain of 0 must stay 0")
    system = grpo(
        loss=reinforce(), credit=partial(beyond_reference, low=low, high=high), collect=beside_reference(collect), kl=0.0,
        group=group, temperature=temperature, reduce=reduce, **options,
    )  # fmt: skip
    return holding(system, reference=as_it_began)
