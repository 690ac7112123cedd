"""COPO: where all answers to a prompt agree, the prompt is compared with the others instead.

Paper.  Han et al., COPO: Consistency-Aware Policy Optimization, 2025. arXiv 2508.04138.
Claim.  Learning also from groups that agree, in which GRPO's advantages vanish, gives more accurate answers.
Idea.   w clip(rho, A_group) + (1 - w) clip(rho, A_prompt);  w = sigmoid(k (H - b)), H the answers' entropy; 0 if A_group is
State.  as grpo
Note.   The authors' code has this as its recommended mode ("soft", and "forced" where a group agrees); the others are not built.
        Nor is the third bound on the ratio, against advantages below 0, which the code has from verl.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ...collectors.generate import Gather, generate, recognised
from ...core.batch import Batch
from ...core.state import State
from ...core.system import System, extends
from ...credit import across_prompts, answer_entropy, group_relative
from ...losses import Terms, clip, loss
from .grpo import grpo


@loss("local")
def clip_twice(t: Terms, *, low: float = 0.2, high: float = 0.2) -> tuple[Tensor, dict[str, Tensor]]:
    """`clip` of the part of the advantage that is `local`, and of the rest."""
    bounded = clip(low=low, high=high)
    own, told = bounded(replace(t, advantage=t.extra["local"]))
    return own + bounded(replace(t, advantage=t.advantage - t.extra["local"])).loss, told


def blended(state: State, batch: Batch, *, sharpness: float, turn: float) -> dict[str, Tensor]:
    """The advantage, and the part of it that is local: [N, 1] each."""
    kind = batch.info["kind"]
    local = group_relative(batch.score, batch.key)
    weight = torch.sigmoid(sharpness * (answer_entropy(kind, batch.key) - turn)) * (local != 0)
    own = weight * local
    both = own + (1 - weight) * across_prompts(batch.score, kind, batch.key)  # <- the idea
    return {"advantage": both[:, None], "local": own[:, None]}


@extends(grpo, without=("credit", "loss"))
def copo(
    *, sharpness: float = 1.0, turn: float = 0.5, clip_range: float = 0.2, prompts: int = 16, collect: Gather = generate,
    **options: Any,
) -> System:  # fmt: skip
    """GRPO that compares answers where they differ, and prompts where their answers agree.

    sharpness   k: how fast the weight turns from one to the other (code: 1)
    turn        b: the entropy in bits at which both weigh the same (code: 0.5)
    clip_range  the band of the ratio is 1 +- this
    prompts     prompts a step, at least 2
    collect     (prompts=, group=) -> a collector of answers
    """
    if prompts < 2 or not sharpness >= 0:
        raise ValueError(f"prompts must be at least 2, to be compared, and sharpness not negative, not {prompts} and {sharpness}")
    return grpo(
        credit=partial(blended, sharpness=sharpness, turn=turn), loss=clip_twice(low=clip_range, high=clip_range),
        clip_range=clip_range, prompts=prompts, collect=recognised(collect), **options,
    )  # fmt: skip
