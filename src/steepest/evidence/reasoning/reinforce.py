"""REINFORCE against the warmed-up policy that it starts from."""

from functools import partial

from ...problems.language import AddCliff
from ...systems.reasoning.reinforce import reinforce
from ..claim import Claim, final

claim = Claim(
    says="From nothing but verdicts, REINFORCE raises a warmed-up model's accuracy on sums of 3 to 6 digits.",
    problem=partial(AddCliff),
    ours=partial(reinforce, kl=0.0, lr=3e-4, prompts=16, group=8),
    baseline=partial(reinforce, kl=0.0, lr=1e-12, prompts=16, group=8),  # no weight changes in float32
    measure=final("accuracy"),
    unit="accuracy of sampled answers on sums of 3 to 6 digits",
    steps=150,
    baseline_steps=1,
    seeds=5,
    tried=(
        "Accuracy after 150 steps on seeds 100, 101: lr 1e-4 .69 .75, 3e-4 .81 .84 (used), 1e-3 .78 .88. The same without any "
        "baseline for the reward: 1e-4 .74 .81, 3e-4 .85 .92, 1e-3 .76 .96, so with verdicts of 0 and 1 and Adam the baseline "
        "costs more than it gives here, whatever its use for the gradient's variance (see the claim of rloo)."
    ),
)
