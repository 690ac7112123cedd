"""Running a claim: both arms on every seed, the gap of each pair, and a verdict that is written down."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
import math
import os
import platform
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from .. import __version__
from ..core.system import System, begin, train
from .claim import Claim, Run
from .parallel import Progress, scatter
from .statistics import bootstrap_interval, t_interval

POINTS = 40  # of a learning curve in a record, each the mean of its neighbours


@dataclass(frozen=True)
class Job:
    """One arm on one seed."""

    claim: Claim | str  # or the name of the module that holds it
    arm: str
    seed: int

    def __str__(self) -> str:
        return f"{self.arm}, seed {self.seed}"


@dataclass(frozen=True)
class Arm:
    """One arm over all seeds. `curves` are [seeds][points] of the claim's figure at `curve_steps`, None where there is none."""

    system: str
    options: dict[str, Any]
    steps: int
    values: list[float]
    curve_steps: list[float]
    curves: list[list[float]]


@dataclass(frozen=True)
class Outcome:
    """What a claim's runs say. `asdict` of it is the record."""

    verdict: str  # "shown" or "not shown"
    says: str
    why: str
    unit: str
    gap: float  # ours minus baseline, mean over pairs
    low: float  # Student's 95 % interval of the gap
    high: float
    margin: float
    bootstrap: tuple[float, float]
    gaps: list[float]
    seeds: list[int]
    ours: Arm
    baseline: Arm
    problem: str
    problem_options: dict[str, Any]
    vary: str | None
    figure: str
    tried: str
    seconds: float  # CPU, of all runs together
    wall: float
    versions: dict[str, str]
    date: str
    commit: str | None

    @property
    def shown(self) -> bool:
        return self.verdict == "shown"

    def json(self) -> str:
        """One line a field, so that a later record's difference can be read."""
        lines = [f"  {json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}" for name, value in asdict(self).items()]
        return "{\n" + ",\n".join(lines) + "\n}\n"


def reproduce(
    claim: Claim | str,
    seeds: int | Sequence[int] | None = None,
    workers: int | None = None,
    tell: Callable[[Progress], None] | None = None,
) -> Outcome:
    """Run both arms of a claim on every seed and judge the paired gap.

    claim    a Claim made of importable parts, or the name of the module whose `claim` it is
    seeds    how many (0, 1, ...) or which; None: the claim's own
    workers  processes; None: one for each core. The figures do not depend on it
    tell     called with each Progress

    Both arms of a pair have the same seed and the same problem. Shown: the lower end of Student's 95 % interval
    of the gap lies above the claim's margin. Raises RunFailed with arm and seed when a run fails.
    """
    read = find(claim)
    chosen = list(range(read.seeds if seeds is None else seeds)) if seeds is None or isinstance(seeds, int) else list(seeds)
    if len(chosen) < 2 or len(set(chosen)) < len(chosen):
        raise ValueError(f"an interval needs at least two different seeds, not {chosen}")
    began = time.monotonic()
    jobs = [Job(claim, arm, seed) for seed in chosen for arm in ("ours", "baseline")]
    results = scatter(run_one, jobs, workers=workers, tell=tell)
    ours, baseline = results[0::2], results[1::2]
    gaps = [a["value"] - b["value"] for a, b in zip(ours, baseline, strict=True)]
    interval, resampled = t_interval(gaps), bootstrap_interval(gaps, np.random.default_rng(0))
    shown = interval.low > read.margin
    problem, options = described(read.problem)
    return Outcome(
        verdict="shown" if shown else "not shown",
        says=read.says, why="" if shown else read.why, unit=read.unit,
        gap=interval.estimate, low=interval.low, high=interval.high, margin=read.margin,
        bootstrap=(resampled.low, resampled.high), gaps=gaps, seeds=chosen,
        ours=arm(read.ours, read.steps, ours), baseline=arm(read.baseline, read.baseline_steps or read.steps, baseline),
        problem=problem, problem_options=options, vary=read.vary, figure=read.figure, tried=read.tried,
        seconds=round(sum(r["seconds"] for r in results), 1), wall=round(time.monotonic() - began, 1),
        versions=versions(), date=datetime.now(UTC).isoformat(timespec="seconds"), commit=commit(),
    )  # fmt: skip


def find(claim: Claim | str) -> Claim:
    if isinstance(claim, Claim):
        return claim
    found = getattr(importlib.import_module(claim), "claim", None)
    if not isinstance(found, Claim):
        raise TypeError(f"module {claim} defines no `claim = Claim(...)`")
    return found


def run_one(job: Job, tell: Callable[[Progress], None]) -> dict[str, Any]:
    """What a worker does: train one arm on one seed and measure it."""
    claim = find(job.claim)
    system, steps = (claim.ours, claim.steps) if job.arm == "ours" else (claim.baseline, claim.baseline_steps or claim.steps)
    problem = claim.problem(**({claim.vary: job.seed} if claim.vary else {}))
    began = time.process_time()
    run = trained(job, system(), problem, steps, job.seed, claim.figure, tell)
    value = float(claim.measure(run))
    if not math.isfinite(value):
        raise ValueError(f"the measure is {value}: the run diverged, or `measure` divides by nothing")
    metrics = run.steps
    told = [(i + 1, float(row[claim.figure])) for i, row in enumerate(metrics) if claim.figure in row]
    pieces = np.array_split(np.array(told), min(POINTS, len(told))) if told else []
    kept = [(float(piece[:, 0].mean()), float(piece[:, 1].mean())) for piece in pieces]
    return {"value": value, "curve": kept, "seconds": time.process_time() - began}


def trained(
    job: Any, system: System, problem: Any, steps: int, seed: int, figure: str, tell: Callable[[Progress], None]
) -> Run:
    """One training run from its first step to its last, which says how far it is; after no step, what it begins with."""
    metrics: list[dict[str, Any]] = []
    state, said = begin(system, problem, seed=seed), 0.0
    for record in train(system, problem, steps=steps, seed=seed, state=state):
        metrics.append(record.metrics)
        if time.monotonic() - said > 0.3 or record.step == steps:
            said = time.monotonic()
            now = record.metrics.get(figure)
            tell(Progress(job, record.step, steps, None if now is None else float(now)))
    return Run(seed, metrics, state, problem)


def arm(system: partial[Any], steps: int, results: list[dict[str, Any]]) -> Arm:
    name, options = described(system)
    at, curves = together([r["curve"] for r in results])
    drawn = [[float(f"{y:.4g}") if math.isfinite(y) else None for y in curve] for curve in curves]
    return Arm(name, options, steps, [r["value"] for r in results], at, drawn)  # type: ignore[arg-type]


def together(curves: list[list[tuple[float, float]]]) -> tuple[list[float], list[list[float]]]:
    """Curves of (step, figure) at the steps at which any of them has a point: the steps, and a row for each curve.

    Between its own points a curve is a straight line, before the first and after the last it is NaN: systems that report now and
    then do so at other steps on another seed. Nothing where a curve has no point at all.
    """
    if not all(curves):
        return [], []
    at = sorted({step for curve in curves for step, _ in curve})
    own = [np.array(curve).T for curve in curves]
    return at, [np.interp(at, x, y, left=math.nan, right=math.nan).tolist() for x, y in own]


def described(made: partial[Any]) -> tuple[str, dict[str, Any]]:
    """The full name of what a partial builds, and all its options, defaults included, as JSON can hold them."""
    built = made.func if isinstance(made, partial) else made
    options = {
        p.name: p.default
        for p in inspect.signature(made).parameters.values()
        if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL) and p.default is not p.empty
    }
    return f"{built.__module__}.{built.__qualname__}", {name: plain(value) for name, value in options.items()}


def plain(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else repr(value)
    if isinstance(value, (list, tuple)):
        return [plain(part) for part in value]
    if isinstance(value, dict):
        return {str(name): plain(part) for name, part in value.items()}
    if isinstance(value, partial):
        name, options = described(value)
        return {"made by": name, **options}
    if isinstance(value, Path):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):  # a network
        kind, names = type(value), [f.name for f in dataclasses.fields(value)]
        return {"made by": f"{kind.__module__}.{kind.__qualname__}", **{name: plain(getattr(value, name)) for name in names}}
    if hasattr(value, "__qualname__"):
        return value.__qualname__
    return type(value).__qualname__ if type(value).__repr__ is object.__repr__ else repr(value)  # a loss says what it is


def versions() -> dict[str, str]:
    return {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__, "steepest": __version__}


def commit() -> str | None:
    """The commit of the library's own checkout, with "+" where files were changed since; None when installed from a package."""

    def git(*words: str) -> str:
        here = Path(__file__)
        return subprocess.run(["git", "-C", str(here.parent), *words], capture_output=True, text=True, check=True).stdout.strip()

    try:
        # an environment may lie inside somebody else's repository: ask for this very file
        git("ls-files", "--error-unmatch", Path(__file__).with_name("claim.py").name)
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def folder(family: str) -> Path:
    """Where records go: beside the claim in a checkout of the library, else ./evidence."""
    beside = Path(__file__).parent / family
    return beside if commit() is not None and os.access(beside, os.W_OK) else Path("evidence")


class Told(Protocol):
    """What has a record."""

    def json(self) -> str: ...


def write(outcome: Told, path: Path) -> None:
    """The record, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with open(draft, "w", encoding="utf-8") as file:
        file.write(outcome.json())
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, path)
