"""COPO against GRPO: what groups that agree are good for."""

from functools import partial

from ...problems.language import AddCliff
from ...systems.reasoning.copo import copo
from ...systems.reasoning.grpo import grpo
from ..claim import Claim, final

claim = Claim(
    says="Learning also from groups that agree, COPO learns sums of 3 to 6 digits better than GRPO from the same answers.",
    problem=partial(AddCliff),
    ours=partial(copo, kl=0.0, lr=3e-4, prompts=16, group=8),
    baseline=partial(grpo, kl=0.0, lr=3e-4, prompts=16, group=8),
    measure=final("accuracy"),
    unit="accuracy of sampled answers on sums of 3 to 6 digits",
    steps=60,
    seeds=5,
    tried=(
        "Nothing was tuned: the learning rate is the one that the claim of grpo found best for the baseline; steps were fixed "
        "before the first run."
    ),
    why=(
        "Written after the run. At 60 steps some groups agree, but the sums they are about are the easy ones or the hopeless "
        "ones: to make all answers to an easy prompt likelier than those to a hard one changes little in what is right. One "
        "seed gains, four do not differ."
    ),
)
