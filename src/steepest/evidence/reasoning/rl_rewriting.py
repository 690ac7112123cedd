"""Rewriting by two judges against the policy that it starts from; what the weight between them does."""

from functools import partial

from ...problems.rude import Rude
from ...systems.reasoning.rl_rewriting import rl_rewriting
from ..analysis import Analysis, Treatment
from ..claim import Claim, Run, tail

settings = partial(rl_rewriting, lr=3e-4, critic_lr=1e-3, prompts=64, group=2, minibatches=1, temperature=1.0)


def measured(run: Run) -> dict[str, float]:
    return {"appropriate": tail("appropriate")(run), "alike": tail("alike")(run)}


claim = Claim(
    says="With a weight of .6 on being appropriate, rewriting earns more than the copying policy that it starts from.",
    problem=partial(Rude),
    ours=partial(settings, weight=0.6),
    baseline=partial(settings, weight=0.6, lr=1e-12),  # no weight changes in float32
    measure=tail("score"),
    unit="weighted mean of appropriateness and likeness of answers to fresh texts, over the last tenth of the steps",
    steps=60,
    seeds=5,
    tried=(
        "One run on seed 100 with weight .5, 80 steps: from .81 to .86, where it copied (likeness .99); weight 1: appropriateness "
        "1, likeness .6. At .5 copying a text and leaving out what is rude earn the same here, hence .6. Nothing else was tried."
    ),
)

analysis = Analysis(
    asks="What does the weight between the judges trade?",
    problem=partial(Rude),
    treatments=(
        Treatment("before", partial(settings, lr=1e-12), 8),
        *(Treatment(f"weight {w:g}", partial(settings, weight=w), 60) for w in (0.0, 0.4, 0.5, 0.6, 1.0)),
    ),
    measure=measured,
    seeds=3,
    tried="Nothing was tuned.",
)
