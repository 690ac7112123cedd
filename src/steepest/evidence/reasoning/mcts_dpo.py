"""MCTS-DPO against DPO on whole answers, answer for answer."""

from functools import partial

from ...problems.language import ChainSum
from ...systems.preferences.dpo import dpo
from ...systems.reasoning.mcts_dpo import mcts_dpo
from ..claim import Claim, final

claim = Claim(
    says="From about as many answers, pairs of steps that a tree search found teach more than pairs of whole answers.",
    problem=partial(ChainSum, width=4, warm=200, tests=64),
    ours=partial(mcts_dpo, prompts=8, breadth=4, rounds=4, first=2, lr=1e-4),
    baseline=partial(dpo, count=80, lr=1e-4),
    measure=final("accuracy"),
    unit="accuracy of sampled answers on sums of 2 to 4 digits",
    steps=30,
    seeds=5,
    figure="accuracy",
    tried="",
)
