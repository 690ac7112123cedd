"""RFT against the warmed-up policy that it starts from."""

from functools import partial

from ...problems.short_cliff import ShortCliff
from ...systems.reasoning.rft import rft
from ..claim import Claim, final

claim = Claim(
    says="From nothing but verdicts, imitating its own right answers raises a model's accuracy on sums of two digits.",
    problem=partial(ShortCliff, least=2, most=2),
    ours=partial(rft, lr=1e-3, prompts=16, group=8),
    baseline=partial(rft, lr=1e-12, prompts=16, group=8),  # no weight changes in float32
    measure=final("accuracy"),
    unit="accuracy of sampled answers on sums of 2 digits",
    steps=60,
    baseline_steps=1,
    seeds=5,
    tried="Nothing was tuned.",
    why=(
        "Written after the run: imitating about forty right answers a step at a rate of 1e-3 costs first what it gains later, and "
        "60 steps end where it began; the rate was not tuned."
    ),
)
