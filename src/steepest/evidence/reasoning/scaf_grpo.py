"""Scaf-GRPO against GRPO beyond a learning cliff."""

from functools import partial

from ...problems.short_cliff import ShortCliff
from ...systems.reasoning.grpo import grpo
from ...systems.reasoning.scaf_grpo import scaf_grpo
from ..claim import Claim, final

claim = Claim(
    says=(
        "From sums of which hardly any answer is right, Scaf-GRPO learns to answer without hints; GRPO from as many prompts does "
        "not."
    ),
    problem=partial(ShortCliff),
    ours=partial(scaf_grpo, levels=(0.25, 0.5, 0.75), start=0, lr=1e-3, prompts=8, group=8),
    baseline=partial(grpo, kl=0.0, lr=1e-3, prompts=8, group=8),
    measure=final("accuracy"),
    unit="accuracy of sampled answers on sums of 3 digits, without hints",
    steps=80,
    seeds=5,
    tried=(
        "Nothing of its own: the problem, the rate, the sizes and the steps are those of the claim of ghpo. A sum of three digits "
        "has four digits, so three levels are all that differ. A first run gave 0 on every seed, for the reason told there."
    ),
    why=(
        "Written after the run. With hints about a tenth of the answers in training are right, without them none on four of five "
        "seeds, in both arms: what is learned under hints is not said without. On seed 1 both learn, GRPO a little more."
    ),
)
