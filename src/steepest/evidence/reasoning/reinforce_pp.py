"""REINFORCE++ against GRPO at the same number of answers: many prompts with one answer each, or few with eight."""

from functools import partial

from ...problems.language import AddCliff
from ...systems.reasoning.grpo import grpo
from ...systems.reasoning.reinforce_pp import reinforce_pp
from ..claim import Claim, final

claim = Claim(
    says="From 128 answers, one to a prompt, REINFORCE++ learns sums of 3 to 6 digits no worse (by 0.05) than GRPO with groups.",
    problem=partial(AddCliff),
    ours=partial(reinforce_pp, kl=0.0, lr=3e-4, prompts=128),
    baseline=partial(grpo, kl=0.0, lr=3e-4, prompts=16, group=8),
    measure=final("accuracy"),
    unit="accuracy of sampled answers on sums of 3 to 6 digits",
    steps=25,
    seeds=5,
    margin=-0.05,
    tried="Nothing is tuned: both arms have the learning rate and the batch of GRPO's own claim. Fixed before the first run.",
)
