"""QwenLong-L1: stages of growing input against long input alone."""

from functools import partial
from typing import Any

from torch import Tensor

from ...problems.fixed import Fixed
from ...problems.language import AddCliff
from ...systems.reasoning.qwenlong_l1 import qwenlong_l1
from ..claim import Claim, final


def digits(problem: Any) -> Tensor:
    """How many digits each number of a prompt has [size]."""
    return problem.category_of + problem.problem.least


claim = Claim(
    says=(
        "Of 60 updates, 20 on sums of up to 4 digits, 20 on 5 and 20 on 6, each with a quarter of earlier hard ones, lead to more "
        "right answers at 6 digits than 60 updates on 6 digits."
    ),
    problem=partial(Fixed, AddCliff(), 256),
    ours=partial(
        qwenlong_l1, bounds=(4, 5, 6), ends=(20, 40), size=digits, lr=3e-4, prompts=16, group=8, minibatches=1, soft=0.01, rounds=3
    ),
    baseline=partial(
        qwenlong_l1, bounds=(5, 6), ends=(1,), share=0.0, size=digits, lr=3e-4, prompts=16, group=8, minibatches=1, soft=0.01, rounds=3
    ),
    measure=final("6 digits"),
    unit="accuracy of sampled answers on sums of 6 digits",
    steps=60,
    seeds=5,
    tried=(
        "Nothing was tuned. The length of an input is how many digits its numbers have. The baseline is the same system whose only "
        "step with shorter sums is the first. At most three rounds of dynamic sampling, for time; almost no penalty on length "
        "(soft=0.01), as in the claim of dapo. Fixed before the first run."
    ),
)
