"""A verifier of steps against one of outcomes, both with labels of easy prompts alone, on answers to hard ones."""

from functools import partial

from ...problems.language import ChainSum
from ...systems.reasoning.easy_to_hard import easy_to_hard
from ..claim import Claim, tail

settings = partial(
    easy_to_hard, easy=3, fit=80, fit_lr=1e-3, lr=1e-6, prompts=32, group=8, epochs=1, minibatches=1,
)  # fmt: skip

claim = Claim(
    says=(
        "Labelled on sums of 2 to 4 digits alone, a verifier of steps finds the right one of 8 answers to sums of 5 and 6 digits "
        "more often than a verifier of outcomes."
    ),
    problem=partial(ChainSum, width=6, warm=400, tests=128),
    ours=settings,
    baseline=partial(settings, process=False),
    measure=tail("voted", 1.0),
    unit="share of hard sums on which the verifier's vote of 8 answers is right",
    steps=100,
    seeds=5,
    figure="voted",
    tried=(
        "One run of each on seed 0 with 12 steps behind the fit, which should have been on another seed: .30 of ours, .30 of the "
        "baseline, .21 for the majority, .16 for one answer. With three times as many steps for the verifier, on seed 100: .16, "
        ".16, .16 and .14. Nothing was changed after these but the steps that are averaged, now 20. The policy's rate is so low "
        "that it stays as it is: what is compared is the verifiers."
    ),
    why=(
        "Written after the run: the two verifiers vote alike, within .03 on every seed. About half of what the first policy was "
        "taught says the digit at once, and such an answer has no step but its end, of which both verifiers learn the same."
    ),
)
