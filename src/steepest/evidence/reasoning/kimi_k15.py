"""Kimi k1.5 with its length reward against without: how long answers become."""

from functools import partial

from ...core.stream import Stream
from ...problems.language import ChainSum
from ...systems.reasoning.kimi_k15 import kimi_k15
from ..claim import Claim, Run


def spared(run: Run) -> float:
    """Tokens saved, with a tenth of accuracy worth one token: to say less and less rightly is no gain."""
    found = run.problem.evaluate(run.state.policy, Stream(run.seed, "evaluate"))
    return 10 * found["accuracy"] - found["length"]


claim = Claim(
    says="With the length reward answers become shorter than without, at little cost of accuracy.",
    problem=partial(ChainSum, width=4, warm=200, tests=64),
    ours=partial(kimi_k15, short=0.5, lr=5e-5, prompts=16, group=8, minibatches=4),
    baseline=partial(kimi_k15, short=0.0, lr=5e-5, prompts=16, group=8, minibatches=4),
    measure=spared,
    unit="minus the tokens of an answer to sums of 2 to 4 digits, plus ten times their accuracy",
    steps=50,
    seeds=5,
    figure="length",
    tried=(
        "Nothing was tuned. The task is scaled down (at most 4 digits, 200 steps of warm-up) for time; weight of the length "
        "reward, learning rate, steps and the price of accuracy were fixed before the first run. Moments that begin anew make "
        "Adam's first steps as long as the learning rate, whence a small one."
    ),
)
