"""Afterburner: GRPO on measured costs against imitation of cheaper programs."""

from functools import partial

from ...problems.straight import StraightLine
from ...systems.reasoning.afterburner import afterburner
from ..claim import Claim, final

claim = Claim(
    says=(
        "Behind 40 steps of imitation of cheaper programs, 60 steps of GRPO on their cost save more, over four rounds of "
        "rewriting, than 60 steps more of imitation."
    ),
    problem=partial(StraightLine, warm=300),
    ours=partial(afterburner, imitate=40, imitate_lr=1e-3, lr=3e-4, prompts=16, group=8),
    baseline=partial(afterburner, imitate=100, imitate_lr=1e-3, lr=3e-4, prompts=16, group=8),
    measure=final("saved"),
    unit="share of the operations that could be saved, after four rounds",
    steps=100,
    seeds=5,
    figure="length",
    tried=(
        "Nothing was tuned. Demonstrations are right, and cheaper by as little as can be; 64 of them a step, where GRPO samples "
        "128 answers. The problem, rates and steps were fixed before the first run; with 600 steps of warm-up the policy was seen "
        "to save .86 without training (one run, seed 100), hence 300."
    ),
)
