"""An analysis: many runs of several treatments, what each leaves behind in several numbers, and how two of them hang together."""

from __future__ import annotations

import dataclasses
import importlib
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

import numpy as np

from ..core.system import System
from .claim import Run
from .parallel import Progress, scatter
from .run import commit, described, trained, versions

FEWEST = 6  # runs that a curve is fitted to


@dataclass(frozen=True)
class Treatment:
    """What is done to a policy: `steps` training steps of a system; 0: nothing."""

    name: str
    system: partial[System]
    steps: int


@dataclass(frozen=True)
class Fit:
    """Whether one number is told by another: a polynomial of `y` over `x`, through the runs of all treatments."""

    x: str
    y: str
    degree: int = 2


@dataclass(frozen=True)
class Analysis:
    """A question that a gap between two systems does not answer.

    asks        the question
    problem     ``partial(AddCliff)``
    treatments  what is compared
    measure     Run -> {what it is, in words: number}, the same names for every run
    seeds       runs of each treatment, seeds 0, 1, ...; fixed before the first run
    fit         of two of the numbers, or None
    vary        the problem's option that takes the seed, or None
    figure      the metric that is shown while it runs
    tried       what was tried and tuned beforehand, on which seeds
    finds       what was found, a sentence written after the runs
    """

    asks: str
    problem: partial[Any]
    treatments: tuple[Treatment, ...]
    measure: Callable[[Run], dict[str, float]]
    seeds: int = 5
    fit: Fit | None = None
    vary: str | None = None
    figure: str = "score"
    tried: str = ""
    finds: str = ""


@dataclass(frozen=True)
class Job:
    """One treatment on one seed."""

    analysis: Analysis | str  # or the name of the module that holds it
    index: int
    seed: int

    def __str__(self) -> str:
        return f"{find(self.analysis).treatments[self.index].name}, seed {self.seed}"


@dataclass(frozen=True)
class Fitted:
    """A fit and what it says: `coefficients`, the highest power first, and the share of y's variance that it explains."""

    x: str
    y: str
    degree: int
    coefficients: list[float]
    r2: float


@dataclass(frozen=True)
class Findings:
    """What an analysis's runs say. `asdict` of it is the record."""

    asks: str
    finds: str
    treatments: list[dict[str, Any]]  # name, system, options, steps
    rows: list[dict[str, Any]]  # treatment, seed, numbers by name
    fit: Fitted | None
    seeds: list[int]
    problem: str
    problem_options: dict[str, Any]
    vary: str | None
    tried: str
    seconds: float  # CPU, of all runs together
    wall: float
    versions: dict[str, str]
    date: str
    commit: str | None

    def json(self) -> str:
        """One line a field and a run, so that a later record's difference can be read."""
        fields = asdict(self)
        rows = ",\n    ".join(json.dumps(row, ensure_ascii=False) for row in fields.pop("rows"))
        lines = [f"  {json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}" for name, value in fields.items()]
        return "{\n" + ",\n".join([*lines, f'  "rows": [\n    {rows}\n  ]']) + "\n}\n"


def analyse(
    analysis: Analysis | str,
    seeds: int | None = None,
    workers: int | None = None,
    tell: Callable[[Progress], None] | None = None,
) -> Findings:
    """Run every treatment on every seed and put down what was measured.

    analysis  an Analysis made of importable parts, or the name of the module whose `analysis` it is
    seeds     how many: 0, 1, ...; None: the analysis's own
    workers   processes; None: one for each core. The figures do not depend on it
    tell      called with each Progress

    Raises ValueError where there are fewer than six runs to fit a curve to, or where two runs differ in what they measure;
    RunFailed with treatment and seed where a run fails.
    """
    read = find(analysis)
    chosen, count = list(range(read.seeds if seeds is None else seeds)), len(read.treatments)
    if not chosen or not count:
        raise ValueError(f"an analysis needs a treatment and a seed, not {count} and {len(chosen)}")
    if len({one.name for one in read.treatments}) < count:
        raise ValueError(f"treatments need names of their own, not {[one.name for one in read.treatments]}")
    if read.fit is not None and count * len(chosen) < FEWEST:
        raise ValueError(
            f"a fit needs at least {FEWEST} runs, not {count} treatments on {len(chosen)} seed(s): take more seeds (--seeds)"
        )
    began = time.monotonic()
    jobs = [Job(analysis, index, seed) for index in range(count) for seed in chosen]
    results = scatter(run_one, jobs, workers=workers, tell=tell)
    told = {tuple(numbers) for numbers, _ in results}
    if len(told) > 1:
        raise ValueError(f"runs were measured in different numbers: {' and '.join(map(str, sorted(told)[:2]))}")
    rows = [
        {"treatment": read.treatments[job.index].name, "seed": job.seed, **numbers}
        for job, (numbers, _) in zip(jobs, results, strict=True)
    ]
    problem, options = described(read.problem)
    treatments = [
        dict(zip(("name", "system", "options", "steps"), (one.name, *described(one.system), one.steps), strict=True))
        for one in read.treatments
    ]
    return Findings(
        asks=read.asks, finds=read.finds, treatments=treatments, rows=rows,
        fit=None if read.fit is None else fitted(read.fit, rows), seeds=chosen, problem=problem, problem_options=options,
        vary=read.vary, tried=read.tried, seconds=round(sum(spent for _, spent in results), 1),
        wall=round(time.monotonic() - began, 1), versions=versions(), date=datetime.now(UTC).isoformat(timespec="seconds"),
        commit=commit(),
    )  # fmt: skip


def find(analysis: Analysis | str) -> Analysis:
    if isinstance(analysis, Analysis):
        return analysis
    found = getattr(importlib.import_module(analysis), "analysis", None)
    if not isinstance(found, Analysis):
        raise ValueError(f"module {analysis} defines no `analysis = Analysis(...)`")
    return found


def run_one(job: Job, tell: Callable[[Progress], None]) -> tuple[dict[str, float], float]:
    """What a worker does: one treatment on one seed. -> numbers by name, CPU seconds"""
    read = find(job.analysis)
    one, began = read.treatments[job.index], time.process_time()
    problem = read.problem(**({read.vary: job.seed} if read.vary else {}))
    numbers = read.measure(trained(job, one.system(), problem, one.steps, job.seed, read.figure, tell))
    wrong = {name: x for name, x in numbers.items() if not math.isfinite(x)}
    if wrong or not numbers:
        said = f"what was measured is no number: {wrong}" if wrong else "nothing was measured"
        raise ValueError(f"{said}. The run diverged, or `measure` divides by nothing")
    return {name: float(x) for name, x in numbers.items()}, time.process_time() - began


def fitted(fit: Fit, rows: list[dict[str, Any]]) -> Fitted:
    """The polynomial of least squares and its R^2 = 1 - residual / total sum of squares."""
    lacking = {fit.x, fit.y} - rows[0].keys()
    if lacking:
        raise ValueError(f"nothing measured is called {sorted(lacking)}; measured were {sorted(rows[0])}")
    x, y = (np.array([row[name] for row in rows]) for name in (fit.x, fit.y))
    if len(set(x.tolist())) <= fit.degree:
        raise ValueError(f"a polynomial of degree {fit.degree} needs more than {fit.degree} different values of {fit.x!r}")
    total = float(((y - y.mean()) ** 2).sum())
    if total == 0:
        raise ValueError(f"all runs agree in {fit.y!r}, so nothing can explain how they differ")
    powers = np.polyfit(x, y, fit.degree)
    left = float(((y - np.polyval(powers, x)) ** 2).sum())
    return Fitted(**dataclasses.asdict(fit), coefficients=powers.tolist(), r2=1 - left / total)
