"""RLOO against REINFORCE with one baseline for all: how much the gradient of a fixed policy varies."""

import math
from functools import partial

from ...problems.language import AddCliff
from ...systems.reasoning.reinforce import reinforce
from ...systems.reasoning.rloo import rloo
from ..claim import Claim, Run

STILL = 1e-12  # a learning rate at which no weight changes in float32


def calm(run: Run) -> float:
    """Minus the logarithm of the mean square of the gradient's norm. Both estimators have the same mean but for 1 part in 128,
    so the one with the smaller square has the smaller variance."""
    squares = [step["grad_norm"] ** 2 for step in run.steps if "grad_norm" in step]
    return -math.log(sum(squares) / len(squares))


claim = Claim(
    says="From the same 16 prompts with 8 answers each, the gradient of RLOO varies less than that of REINFORCE.",
    problem=partial(AddCliff, least=1),
    ours=partial(rloo, kl=0.0, lr=STILL, prompts=16, group=8),
    baseline=partial(reinforce, kl=0.0, lr=STILL, prompts=16, group=8),
    measure=calm,
    unit="minus the logarithm of the gradient's mean square, of the warmed-up policy",
    steps=60,
    seeds=5,
    figure="grad_norm",
    tried=(
        "Nothing is tuned: neither arm learns. Prompts of all lengths are asked (least=1), so that some are easy and some are "
        "hopeless: the case that a baseline for each prompt is for. Fixed before the first run."
    ),
    why=(
        "Between prompts of different length the reward varies, but so does the size of the score: the answers whose reward the "
        "batch's mean misjudges most are those whose gradient is small; and a mean of 7 other answers is itself noisy, which costs "
        "about 1/7 of the variance."
    ),
)
