"""HAPO against GRPO: how long right answers are."""

from functools import partial

from ...problems.fixed import Fixed
from ...problems.language import ChainSum
from ...systems.reasoning.grpo import grpo
from ...systems.reasoning.hapo_history import hapo_history
from ..claim import Claim, Run, evaluated


def brevity(run: Run) -> float:
    return -evaluated(run, figure="length")


claim = Claim(
    says="Sums that may be answered at once or by a long chain HAPO answers in fewer tokens than GRPO.",
    problem=partial(Fixed, problem=ChainSum(width=3, warm=400), count=96),
    ours=partial(hapo_history, kl=0.0, lr=3e-4, prompts=8, group=8),
    baseline=partial(grpo, kl=0.0, lr=3e-4, prompts=8, group=8),
    measure=brevity,
    unit="minus the length of an answer, tokens",
    steps=60,
    seeds=5,
    figure="length",
    tried="Nothing was tuned: weight and shape of the reward are the authors'.",
)
