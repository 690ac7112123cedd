"""The majority of eight answers against one."""

from functools import partial

from ...problems.language import ChainSum
from ...systems.reasoning.best_of_n import best_of_n
from ..claim import Claim, final

claim = Claim(
    says="On sums of 2 to 6 digits, what most of 8 samples say is right more often than what one says.",
    problem=partial(ChainSum, width=6, warm=400, tests=128),
    ours=partial(best_of_n, count=8, temperature=1.0),
    baseline=partial(best_of_n, count=1, temperature=1.0),
    measure=final("accuracy"),
    unit="accuracy of what is said on sums of 2 to 6 digits",
    steps=1,
    seeds=5,
    figure="chosen",
    tried="Nothing was tuned. The warm-up is shorter than the task's own, for time.",
)
