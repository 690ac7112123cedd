"""RISE against PPO on problems alone: who knows which of its answers are right."""

from functools import partial

from ...problems.checked import CheckedSum
from ...systems.reasoning.rise import rise
from ..claim import Claim, final

both = partial(rise, prompts=16, group=8, lr=3e-4, minibatches=1, max_grad_norm=1.0)

claim = Claim(
    says="RISE judges its own answers to sums of 1 or 2 digits more accurately than PPO on the sums alone.",
    problem=partial(CheckedSum),
    ours=partial(both, share=0.5),
    baseline=partial(both, share=0.0),
    measure=final("verification"),
    unit="verdicts on the policy's own answers that are right, on average over right answers and others",
    steps=60,
    seeds=5,
    tried=(
        "One run of each arm on seed 100, 80 steps: verdicts .73 with and .44 without, accuracy of the sums .70 and .71; nothing "
        "was tuned. Both arms answer as many sums; RISE gives verdicts besides."
    ),
)
