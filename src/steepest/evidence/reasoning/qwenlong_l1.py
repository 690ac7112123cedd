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
        "Of 60 updates, 20 on sums of 3 digits, 20 on 4 and 20 on 5, the latter with a quarter of earlier hard ones, lead to more "
        "right answers at 5 digits than 60 updates on 5 digits."
    ),
    problem=partial(Fixed, problem=AddCliff(most=5), count=256),
    ours=partial(
        qwenlong_l1, bounds=(3, 4, 5), ends=(20, 40), size=digits, lr=3e-4, prompts=16, group=8, minibatches=1, soft=0.01, rounds=3
    ),
    baseline=partial(
        qwenlong_l1, bounds=(4, 5), ends=(1,), size=digits, share=0.0, lr=3e-4, prompts=16, group=8, minibatches=1, soft=0.01,
        rounds=3,
    ),
    measure=final("5 digits"),
    unit="accuracy of sampled answers on sums of 5 digits",
    steps=60,
    seeds=5,
    tried=(
        "Nothing was tuned. The length of an input is how many digits its numbers have. The baseline is the same system whose only "
        "step with shorter sums is the first. At most three rounds of dynamic sampling, for time. A first run, with stages of 4, 5 "
        "and 6 digits, taught neither arm 6 digits (0 in nine of ten runs, gap +.12 [-.21, +.44]): right answers there are as long "
        "as the longest answer there is, and DAPO's penalty takes all that they earn. Hence one digit less, all else as it was."
    ),
    why=(
        "Written after the run: stages are ahead on four of five seeds, by .01 to .10, and behind on one by .01, which five "
        "pairs do not tell from chance. From 5 digits alone DAPO, which asks again for groups that say something, learned 5 "
        "digits too."
    ),
)
