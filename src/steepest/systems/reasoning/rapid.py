"""RAPID: sample many answers at once, which is cheap, then take several steps on them, weighed by how far the policy has come.

Paper.  Huang et al., RAPID: An Efficient Reinforcement Learning Algorithm for Small Language Models, 2025. arXiv 2510.03515.
Claim.  It takes less time than methods that sample for every step, at the same accuracy.
Idea.   gradient = mean of min(pi / pi_old, w) (r - mean of the group) grad log pi(answer), over minibatches of one large batch
State.  as grpo
Note.   The abstract names a group advantage and clipped importance weights; that the weight is the whole answer's, its bound of 2
        and the advantage without standard deviation are this file's reading, the text beyond the abstract was not at hand.
"""

from __future__ import annotations

from typing import Any

from ...core.system import System, extends
from ...credit import centred
from ...engines.answers import by_score
from ...losses import rapid as weighted
from ...losses import sequence_sum
from .grpo import grpo


@extends(grpo, without=("clip_range", "loss", "credit", "reduce"))
def rapid(
    *, most: float = 2.0, minibatches: int = 4, prompts: int = 64, group: int = 8, kl: float = 0.0, **options: Any
) -> System:
    """Large batches of answers, small importance-weighted steps.

    most         no answer's weight exceeds this; inf: no bound, and no bias
    minibatches  optimizer steps on the answers of one sampling; it divides their number
    prompts      prompts of one sampling
    group        answers to each, at least 2
    kl           of the estimated KL(pi || reference), a loss term
    """
    if not most >= 1:
        raise ValueError(f"most must be at least 1, not {most}: even answers of the policy itself would be weighed down")
    if prompts * group % minibatches:
        raise ValueError(f"{minibatches} minibatches do not divide {prompts} x {group} answers: steps would differ in size")
    return grpo(
        loss=weighted(most=most), credit=by_score(centred), reduce=sequence_sum,  # <- the idea
        minibatches=minibatches, prompts=prompts, group=group, kl=kl, **options,
    )  # fmt: skip
