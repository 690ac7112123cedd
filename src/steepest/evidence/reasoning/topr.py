"""TOPR against REINFORCE without a ratio on answers that are 16 updates old."""

from functools import partial

from ...problems.language import AddCliff
from ...systems.reasoning.topr import topr
from ..claim import Claim, final

claim = Claim(
    says="From answers that are 16 updates old TOPR learns sums of 3 to 6 digits, where REINFORCE without a ratio collapses.",
    problem=partial(AddCliff),
    ours=partial(topr, lr=3e-4, prompts=16, group=8, lag=16, room=16),
    baseline=partial(topr, bad_low=1.0, lr=3e-4, prompts=16, group=8, lag=16, room=16),  # all weights are 1
    measure=final("accuracy"),
    unit="accuracy of sampled answers on sums of 3 to 6 digits",
    steps=80,
    seeds=5,
    tried="Nothing is tuned: both arms have the learning rate and the batch of GRPO's own claim. Fixed before the first run.",
)
