"""PAPO: what is learned from right answers, and to answer otherwise than one would without seeing what the question is about.

Paper.  Wang et al., Perception-Aware Policy Optimization for Multimodal Reasoning, 2025. arXiv 2507.06448.
Claim.  Answers depend more on what is to be seen, and become more accurate than with GRPO, most where much must be seen.
Idea.   GRPO - gamma KL(pi(. | prompt) || pi(. | prompt with a hidden context)) + two entropies, estimated by - log pi
State.  as grpo
Note.   The problem has ``hidden(prompts)`` (`problems.language.BlindSpot`): tokens of a text stand in the place of an image's
        patches. The divergence is estimated as in the authors' code (MikeWangWZHL/PAPO, low_var_kl); its gradient passes both
        sides, as in the paper's formula, where the code takes the blind side of before the step unless it is told otherwise. As
        with grpo a batch in which every group agrees is skipped.
"""

from __future__ import annotations

from typing import Any

from ...collectors.generate import Gather, generate
from ...collectors.hidden import with_hidden
from ...core.system import System, extends
from ...losses import Reduce, clip, double_entropy, perception, token_mean
from .grpo import grpo


@extends(grpo, without=("clip_range", "loss"))
def papo(
    *, gamma: float = 0.02, hide: float = 0.6, seeing: float = 0.0, blind: float = 0.0, low: float = 0.2, high: float = 0.3,
    dual: float = 3.0, kl: float = 0.01, prompts: int = 384, group: int = 5, minibatches: int = 3, reduce: Reduce = token_mean,
    collect: Gather = generate, **options: Any,
) -> System:  # fmt: skip
    """Group relative policy optimization with a reward for what the hidden context changes.

    gamma        of the divergence (authors' scripts: 0.02; 0.01 without a reference)
    hide         probability that a token of the context is hidden (authors' code: 0.6 of the patches)
    seeing       of the entropy with the context, which is kept low (authors' scripts: 0; 0.03 without a reference)
    blind        and of that without (authors' scripts: 0; 0.03 without a reference)
    low          below 1 - low the ratio is held (authors' code: 0.2)
    high         and above 1 + high (authors' code: 0.3)
    dual         an answer that was worse than expected costs at most this many |A| (authors' code: 3)
    kl           of the estimated KL(pi || reference), a loss term (authors' scripts: 0.01, or 0)
    prompts      prompts a step (authors' scripts: 384)
    group        answers to each, at least 2 (authors' scripts: 5)
    minibatches  optimizer steps of a pass (authors' scripts: 3)
    reduce       how decisions are averaged; the authors': every token counts the same
    collect      (prompts=, group=) -> a collector of answers
    """
    if min(gamma, seeing, blind) < 0:
        raise ValueError(f"gamma, seeing and blind must not be negative, not {gamma}, {seeing} and {blind}")
    loss = clip(low=low, high=high, dual=dual)
    if gamma:
        loss = loss + gamma * perception()  # <- the idea
    if seeing or blind:
        loss = loss + double_entropy(seeing=seeing, blind=blind)
    return grpo(
        loss=loss, collect=with_hidden(hide, collect), kl=kl, prompts=prompts, group=group, minibatches=minibatches, reduce=reduce,
        **options,
    )  # fmt: skip
