"""SFT against the warmed-up policy that it starts from."""

from functools import partial

from ...problems.short_cliff import ShortCliff
from ...systems.reasoning.sft import sft
from ..claim import Claim, final

claim = Claim(
    says="Shown right answers to sums of three digits, which it was taught wrongly before, a model gives right ones more often.",
    problem=partial(ShortCliff),
    ours=partial(sft, lr=1e-3, prompts=64),
    baseline=partial(sft, lr=1e-12, prompts=64),  # no weight changes in float32
    measure=final("accuracy"),
    unit="accuracy of sampled answers on sums of 3 digits",
    steps=100,
    baseline_steps=1,
    seeds=5,
    figure="loss",
    tried="Nothing was tuned.",
)
