"""PAPO against GRPO: whether the context is read where training never asks for it."""

from functools import partial

from ...problems.language import BlindSpot
from ...systems.reasoning.grpo import grpo
from ...systems.reasoning.papo import papo
from ..claim import Claim, final

claim = Claim(
    says="Where a suggestion is right all through training, PAPO comes to read the context beside it more than GRPO does.",
    problem=partial(BlindSpot, honest=1.0),
    ours=partial(papo, gamma=0.5, kl=0.0, lr=3e-4, prompts=16, group=8, minibatches=1),
    baseline=partial(grpo, kl=0.0, lr=3e-4, prompts=16, group=8),
    measure=final("accuracy"),
    unit="accuracy of sampled answers where the suggestion is wrong",
    steps=150,
    seeds=5,
    tried=(
        "The learning rate is the one that the claim of grpo found for the baseline. Accuracy on seeds 100 and 101: GRPO .27 and "
        ".07; PAPO with gamma 0.2 .98 and .23, with 0.5 .98 and .79 (used), with 1 and entropies of 0.05 .94 and .79, which costs "
        "right answers where the suggestion is right. Entropies of 0.05 changed little at 0.5 and held 0.2 back. The paper's "
        "gamma is 0.01 to 0.02 for large models."
    ),
)
