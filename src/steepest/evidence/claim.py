"""A claim: two systems that differ in what the paper says matters, a problem, and a number to compare."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from ..core.state import State
from ..core.stream import Stream
from ..core.system import System


@dataclass(frozen=True)
class Run:
    """One finished training run, as a claim's `measure` sees it."""

    seed: int
    steps: list[dict[str, Any]]  # the metrics of every step
    state: State
    problem: Any


@dataclass(frozen=True)
class Claim:
    """The sentence of a system's card, as an experiment that anyone can run.

    says       the sentence that is tested
    problem    ``partial(AddCliff, width=6)``: also what ``steepest train`` runs by default
    ours       ``partial(grpo, lr=2e-4)``: scaled-down options live here, never in the system
    baseline   the same for the baseline, tuned with the same care
    measure    Run -> number, higher is better (return minus the quantity where lower is)
    unit       what the number is, in words, e.g. "accuracy on 3-6 digit sums"
    steps      training steps of ours
    seeds      paired runs, seeds 0, 1, ...; fixed before the first run
    baseline_steps  training steps of the baseline; None: the same
    vary       the problem's option that takes the seed (a random instance for each pair), or None
    margin     the gap that the paper's claim must exceed; 0 unless the claim is "no worse than"
    tried      what was tried beforehand and what was tuned, on which seeds
    figure     the metric that learning curves show
    why        a sentence on why, when it is recorded as not shown
    """

    says: str
    problem: partial[Any]
    ours: partial[System]
    baseline: partial[System]
    measure: Callable[[Run], float]
    unit: str
    steps: int
    seeds: int = 5
    baseline_steps: int | None = None
    vary: str | None = None
    margin: float = 0.0
    tried: str = ""
    figure: str = "score"
    why: str = ""


def final(figure: str) -> Callable[[Run], float]:
    """What the problem's evaluation of the last policy says of `figure`, on what no training drew."""
    return partial(evaluated, figure=figure)


def evaluated(run: Run, *, figure: str) -> float:
    return run.problem.evaluate(run.state.policy, Stream(run.seed, "evaluate"))[figure]


def tail(metric: str, share: float = 0.1) -> Callable[[Run], float]:
    """The mean of a metric over the last `share` of the steps that reported it."""
    return partial(mean_of_last, metric=metric, share=share)


def mean_of_last(run: Run, *, metric: str, share: float) -> float:
    rows = [step[metric] for step in run.steps if metric in step]
    if not rows:
        raise ValueError(f"no step reported {metric!r}; reported were {sorted(run.steps[-1])}")
    last = rows[-max(1, round(share * len(rows))) :]
    return sum(last) / len(last)


def nearness(run: Run) -> float:
    """Minus log10 of the largest KL(old || new) that any update made in any state of its batch."""
    return -math.log10(max(step["kl_max"] for step in run.steps))
