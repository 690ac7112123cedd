"""RLEP against GRPO that begins again without replay."""

from functools import partial

from ...problems.fixed import Fixed
from ...problems.short_cliff import ShortCliff
from ...systems.reasoning.rlep import rlep
from ..claim import Claim, final

claim = Claim(
    says="With two successes of a first run in each group, a second run from the same weights becomes better than without.",
    problem=partial(Fixed, problem=ShortCliff(least=2, most=2), count=64),
    ours=partial(rlep, harvest=40, replay=2, lr=3e-4, prompts=8, group=8),
    baseline=partial(rlep, harvest=40, replay=0, lr=3e-4, prompts=8, group=8),
    measure=final("accuracy"),
    unit="accuracy of sampled answers on sums of 2 digits",
    steps=80,
    seeds=5,
    tried="Nothing was tuned: the baseline is the same with nothing replayed.",
)
