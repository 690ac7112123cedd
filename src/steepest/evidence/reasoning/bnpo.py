"""BNPO against GRPO: how steady the gradient's size is during training."""

import math
import statistics
from functools import partial

from ...problems.language import AddCliff
from ...systems.reasoning.bnpo import bnpo
from ...systems.reasoning.grpo import grpo
from ..claim import Claim, Run


def steadiness(run: Run) -> float:
    """The spread is taken relative to the mean, because the two methods scale their advantages differently."""
    norms = [step["grad_norm"] for step in run.steps if "grad_norm" in step]
    return -math.log(statistics.stdev(norms) / statistics.fmean(norms))


claim = Claim(
    says="From the same number of answers, the norm of BNPO's gradient varies less over training than that of GRPO's.",
    problem=partial(AddCliff),
    ours=partial(bnpo, kl=0.0, lr=3e-4, prompts=16, group=8),
    baseline=partial(grpo, kl=0.0, lr=3e-4, prompts=16, group=8),
    measure=steadiness,
    unit="minus the logarithm of the gradient norm's standard deviation over its mean, over training",
    steps=60,
    seeds=5,
    figure="grad_norm",
    tried=(
        "Nothing was tuned: the learning rate is the one that the claim of grpo found best for the baseline. The measure was fixed "
        "before the first run."
    ),
    why=(
        "Written after the run. Here success rates are spread over all of [0, 1], so that the fitted density is nearly flat "
        "or not far from GRPO's, and the norm of either gradient varies mostly with which prompts were drawn."
    ),
)
