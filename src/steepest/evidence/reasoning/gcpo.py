"""GCPO against GRPO with a reward for every construction: whether it is made where it helps."""

from functools import partial
from typing import Any

from ...core import Batch, State, Stream, System
from ...core.batch import at_end
from ...problems.detour import Detour
from ...systems.reasoning.gcpo import gcpo
from ...systems.reasoning.grpo import grpo
from ..claim import Claim, Run


def paid(state: State, batch: Batch, *, bonus: float, problem: Any) -> Batch:
    """With a reward for every construction."""
    used = problem.constructed(batch.action, batch.mask)
    return batch.having(reward=batch.reward + at_end(bonus * used, batch.mask))


def unconditional(*, bonus: float = 0.5, **options: Any) -> System:
    return grpo(select=partial(paid, bonus=bonus, problem=Detour()), **options)


def discerning(run: Run) -> float:
    """How much more often long sums are done by a chain than short ones."""
    found = run.problem.evaluate(run.state.policy, Stream(run.seed, "evaluate"))
    return found["long"] - found["short"]


claim = Claim(
    says="GCPO comes to write running sums where they help and not where they harm, a reward for all of them everywhere.",
    problem=partial(Detour),
    ours=partial(gcpo, length=0.0, kl=0.0, lr=3e-4, prompts=16, group=8),
    baseline=partial(unconditional, kl=0.0, lr=3e-4, prompts=16, group=8),
    measure=discerning,
    unit="share of chains at sums of six digits less that at sums of two",
    steps=100,
    seeds=5,
    tried=(
        "Seed 100, 100 steps. With sums of two to four digits and slips in .15 of the running sums GCPO gave chains up everywhere "
        "(.03 and .05 of short and long sums), the other reward brought them everywhere. With sums of two to six and slips in .1 "
        "(used) both write chains everywhere: no gap. Nothing else was tuned."
    ),
)
