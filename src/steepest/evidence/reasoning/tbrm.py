"""TBRM against GRPO: one answer a prompt, and the logits as values."""

from functools import partial

from ...problems.language import AddCliff
from ...systems.reasoning.grpo import grpo
from ...systems.reasoning.tbrm import tbrm
from ..claim import Claim, final

claim = Claim(
    says="From as many answers, one to each prompt, TBRM learns sums of 3 to 6 digits as well as GRPO from groups of 8.",
    problem=partial(AddCliff),
    ours=partial(tbrm, beta=0.1, lr=3e-4, prompts=128),
    baseline=partial(grpo, kl=0.0, lr=3e-4, prompts=16, group=8),
    measure=final("accuracy"),
    unit="accuracy of sampled answers on sums of 3 to 6 digits",
    steps=60,
    seeds=5,
    margin=-0.03,
    tried=(
        "One run of TBRM on seed 100 at beta = .1 and .5: .74 (used) and .42. The learning rate is what the claim of grpo found "
        "best for the baseline. As well as means: at most .03 of accuracy less."
    ),
)
