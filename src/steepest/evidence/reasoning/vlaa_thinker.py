"""VLAA-Thinker: GRPO alone against GRPO after imitation of an expert's traces."""

from functools import partial

from ...problems.pseudo import PseudoSum
from ...systems.reasoning.vlaa_thinker import vlaa_thinker
from ..claim import Claim, final

claim = Claim(
    says=(
        "With 60 updates of GRPO, a policy that first imitated an expert's drawn-out traces, of whose steps some are wrong, "
        "answers sums of 2 to 5 digits less well than one that did not."
    ),
    problem=partial(PseudoSum, width=5, warm=300, tests=64),
    ours=partial(vlaa_thinker, kl=0.0, lr=2e-4, prompts=16, group=8),
    baseline=partial(vlaa_thinker, imitate=60, imitate_lr=1e-3, kl=0.0, lr=2e-4, prompts=16, group=8),
    measure=final("accuracy"),
    unit="accuracy of sampled answers on sums of 2 to 5 digits",
    steps=60,
    baseline_steps=120,
    seeds=5,
    figure="length",
    tried=(
        "Nothing was tuned. The baseline has the same updates of GRPO, and 60 steps of imitation more. What the expert does (15 % "
        "of the running sums are wrong, dots behind most), rates and steps were fixed before the first run."
    ),
)
