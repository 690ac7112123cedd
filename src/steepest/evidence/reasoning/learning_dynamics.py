"""What DPO does to answers that it is not about, with and without imitation of both answers first."""

from functools import partial

from ...problems.language import AddCliff
from ...systems.reasoning.learning_dynamics import learning_dynamics
from ..analysis import Analysis, Treatment
from ..claim import Claim, Run

DPO, FIRST = 40, 20  # steps of DPO, and of imitation before it
plain = partial(learning_dynamics, lr=3e-4, imitate_lr=3e-4, count=32, watch=32, every=5)
imitated = partial(plain, imitate=FIRST)


def gained(run: Run, name: str) -> float:
    """How much a log-probability of what is watched changed over the steps of DPO, from its first measurement to its last."""
    told = [step[name] for step in run.steps[-DPO:] if name in step]
    return float(told[-1] - told[0])


def spread(run: Run) -> float:
    return -gained(run, "likeliest")


def measured(run: Run) -> dict[str, float]:
    changes = {f"change of the {name} answer's log-probability": gained(run, name) for name in ("chosen", "rejected", "likeliest")}
    foretold = [step["foretold"] for step in run.steps if "foretold" in step]
    return changes | {"correlation of changes with their first order": sum(foretold) / len(foretold)}


claim = Claim(
    says="Over as many steps of DPO, the likeliest answers gain less probability where both answers of pairs were imitated first.",
    problem=partial(AddCliff, width=4, least=2, warm=400),
    ours=imitated,
    baseline=plain,
    measure=spread,
    unit="minus the change of the likeliest answers' log-probability (nats a token) over 40 steps of DPO",
    steps=FIRST + DPO,
    baseline_steps=DPO,
    seeds=5,
    figure="likeliest",
    tried=(
        "Seed 100, one run of each with these settings: the change was -.08 with imitation and .15 without. In an earlier session, "
        "on seed 100 of another setting, the likeliest answer was no lower after imitation at an equal fall of the rejected one."
    ),
    why=(
        "Written after the run. On three of five seeds the likeliest answers gained more after imitation, on two less; five "
        "pairs do not tell the arms apart, and in neither do the likeliest answers gain much over 40 steps."
    ),
)

analysis = Analysis(
    asks="What does a step on pairs of answers do to answers that it is not about, and is it foretold by a straight line?",
    problem=partial(AddCliff, width=4, least=2, warm=400),
    treatments=(
        Treatment("DPO", plain, DPO),
        Treatment("imitation of both answers, then DPO", imitated, FIRST + DPO),
        Treatment("imitation of both answers alone", partial(plain, imitate=DPO), DPO),
    ),
    measure=measured,
    seeds=5,
    figure="likeliest",
    tried="The first two on seed 100; nothing was changed.",
    finds=(
        "Written after the run. At this size DPO has no one direction: over 40 steps chosen, rejected and likeliest answers "
        "gain on some seeds and lose on others, whether both were imitated first or not. A straight line foretells what "
        "imitation does (correlation .99) and part of what DPO does (.75, and .83 after imitation)."
    ),
)
