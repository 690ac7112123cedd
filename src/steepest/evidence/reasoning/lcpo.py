"""LCPO against GRPO: by how much answers miss the length that is asked for."""

from functools import partial

from ...problems.budget import BudgetSum
from ...systems.reasoning.grpo import grpo
from ...systems.reasoning.lcpo import lcpo
from ..claim import Claim, Run, evaluated


def kept(run: Run) -> float:
    return -evaluated(run, figure="missed")


claim = Claim(
    says="Asked for a length, a model trained with LCPO comes nearer to it than one trained with GRPO.",
    problem=partial(BudgetSum, width=2, warm=400),
    ours=partial(lcpo, alpha=0.05, kl=0.0, lr=3e-4, prompts=8, group=8),
    baseline=partial(grpo, kl=0.0, lr=3e-4, prompts=8, group=8),
    measure=kept,
    unit="minus the distance from the length asked for, tokens",
    steps=80,
    seeds=5,
    figure="length",
    tried="Nothing was tuned: alpha times the longest length that is asked for is 1, as in the paper.",
)
