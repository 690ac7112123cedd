"""steepest compare: the same problem, the same seeds, several systems, and what can honestly be said about them."""

from __future__ import annotations

import json as js
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .names import find_claim, find_problem, find_system
from .parts import made_by, spoken
from .plan import write
from .reproduce import watched

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#5b5b5b")


@dataclass(frozen=True)
class Cell:
    """One training run of a comparison."""

    system: str
    problem: str
    seed: int
    steps: int

    def __str__(self) -> str:
        return f"{self.system} on {self.problem}, seed {self.seed}"


@dataclass(frozen=True)
class Compare:
    """Train several systems on the same problems and seeds, and compare what they reach.

    The score of a run is the first figure of its problem's evaluation after the last step; no run is stopped at its best.

    systems      two or more names; options in Python's own way: 'grpo(lr=2e-4)'
    problem      one or more problems: AddCliff, or 'AddCliff(width=6)'
    seeds        runs of each system on each problem, seeds 0, 1, ...
    steps        training steps; default: those of the first system's claim, else 100
    workers      processes, each with one thread; default: one for each core
    repetitions  of the bootstrap
    out          folder of the JSON and the picture
    json         print JSON
    """

    systems: tuple[str, ...]
    problem: tuple[str, ...]
    seeds: int = 5
    steps: int | None = None
    workers: int | None = None
    repetitions: int = 50_000
    out: Path = Path("runs/compare")
    json: bool = False

    def run(self) -> int:
        from ..evidence.parallel import scatter
        from ..evidence.run import versions

        if len(self.systems) < 2 or len(set(self.systems)) < len(self.systems):
            raise ValueError(f"compare needs at least two different systems, not {list(self.systems)}")
        if not self.problem or self.seeds < 2:
            raise ValueError("compare needs a problem (--problem) and at least two seeds: one run says nothing of the next")
        for name in self.systems:  # wrong options fail here, before any work; making a system allocates nothing
            build_system(name)()
        for name in self.problem:
            build_problem(name)
        steps = self.steps or usual_steps(self.systems[0])
        cells = [Cell(s, p, seed, steps) for seed in range(self.seeds) for p in self.problem for s in self.systems]
        console = Console(stderr=self.json)
        with watched("runs", len(cells), console) as tell:
            results = scatter(train_one, cells, workers=self.workers, tell=tell)
        shape = self.seeds, len(self.problem), len(self.systems)
        scores = np.array([r["score"] for r in results]).reshape(shape)
        seconds = np.array([r["seconds"] for r in results]).reshape(shape)
        raw = {name: scores[..., k] for k, name in enumerate(self.systems)}
        found = judged(raw, self.repetitions)
        page = {
            "systems": list(self.systems), "problems": list(self.problem), "seeds": list(range(self.seeds)), "steps": steps,
            "figure": [results[k * len(self.systems)]["figure"] for k in range(len(self.problem))],
            "scaled": len(self.problem) > 1, "summary": found,
            "scores": {name: x.tolist() for name, x in raw.items()},
            "seconds": {name: seconds[..., k].sum() for k, name in enumerate(self.systems)},
            "options": {name: results[k]["options"] for k, name in enumerate(self.systems)},
            "versions": versions(), "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        }  # fmt: skip
        self.out.mkdir(parents=True, exist_ok=True)
        record, picture = self.out / "compare.json", self.out / "compare.png"
        write(record, page)
        draw(page, picture)
        if self.json:
            print(js.dumps(page, ensure_ascii=False))
        tabulate(page, console)
        console.print(f"record  {record}\npicture {picture}", highlight=False, soft_wrap=True)
        return 0


# ------------------------------------------------------------------------------------ names with options


def build_system(text: str) -> partial[Any]:
    return made_by(text, find_system)


def build_problem(text: str) -> Any:
    return made_by(text, find_problem)()


def usual_steps(text: str) -> int:
    claim = find_claim(spoken(text)[0])
    return claim.steps if claim else 100


# ------------------------------------------------------------------------------------ running and judging


def train_one(cell: Cell, tell: Callable[[Any], None]) -> dict[str, Any]:
    """What a worker does: train, then evaluate once, at the end."""
    from ..core import Stream, train
    from ..evidence.parallel import Progress
    from ..evidence.run import described

    make, problem = build_system(cell.system), build_problem(cell.problem)
    began, said, state = time.process_time(), 0.0, None
    for record in train(make(), problem, steps=cell.steps, seed=cell.seed):
        state = record.state
        if time.monotonic() - said > 0.3 or record.step == cell.steps:
            said, score = time.monotonic(), record.metrics.get("score")
            tell(Progress(cell, record.step, cell.steps, None if score is None else float(score)))
    if state is None:
        raise ValueError(f"a comparison trains for at least one step, not {cell.steps}")
    figure, score = next(iter(problem.evaluate(state.policy, Stream(cell.seed, "compare")).items()))
    return {"score": float(score), "figure": figure, "seconds": time.process_time() - began, "options": described(make)[1]}


def judged(scores: dict[str, Any], repetitions: int) -> dict[str, dict[str, Any]]:
    """Interquartile mean, mean and probability of improvement over the first system, with intervals.

    scores [runs, problems] by system. Problems of different scales cannot be averaged: with several, each is
    mapped so that 0 and 1 are the worst and the best run seen on it by any of these systems.
    """
    from ..evidence import statistics as st

    everything = np.stack(list(scores.values()))
    if everything.shape[2] > 1:
        low, high = everything.min((0, 1)), everything.max((0, 1))
        scores = {name: (x - low) / np.where(high > low, high - low, 1.0) for name, x in scores.items()}
    first, rng, found = next(iter(scores)), np.random.default_rng(0), {}
    for name, x in scores.items():
        iqm = st.stratified_bootstrap(st.interquartile_mean, x, rng=rng, repetitions=repetitions)
        row = {"iqm": vars(iqm), "mean": float(st.mean(x)), "median": float(st.median(x)), "scores": x.tolist()}
        if name != first:
            better = st.stratified_bootstrap(st.probability_of_improvement, x, scores[first], rng=rng, repetitions=repetitions)
            row["improvement"] = vars(better)
        found[name] = row
    return found


def tabulate(page: dict[str, Any], console: Console) -> None:
    what = "score scaled by problem: 0 worst run, 1 best run" if page["scaled"] else f"{page['figure'][0]} on {page['problems'][0]}"
    title = f"{what}; {len(page['seeds'])} seeds, {page['steps']} steps, last evaluation"
    table = Table(title=escape(title), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("system", overflow="fold")
    for head in ("IQM", "95 % interval", "mean", "P(beats first)", "CPU s"):
        table.add_column(head, no_wrap=True)
    for name, row in page["summary"].items():
        iqm, better = row["iqm"], row.get("improvement")
        chance = f"{better['estimate']:.2f} [{better['low']:.2f}, {better['high']:.2f}]" if better else ""
        span = f"[{iqm['low']:.4g}, {iqm['high']:.4g}]"
        table.add_row(
            escape(name),
            f"{iqm['estimate']:.4g}",
            escape(span),
            f"{row['mean']:.4g}",
            escape(chance),
            f"{page['seconds'][name]:.0f}",
        )
    console.print(table)
    if page["scaled"]:
        table = Table(
            "system", *(escape(f"{p}: {f}") for p, f in zip(page["problems"], page["figure"], strict=True)), box=box.SIMPLE_HEAD
        )
        for name, x in page["scores"].items():
            table.add_row(escape(name), *(f"{m:.4g}" for m in np.mean(x, 0)))
        console.print(table)


def draw(page: dict[str, Any], path: Path) -> None:
    """Interquartile means with their intervals and every run, and the share of runs above each score."""
    from matplotlib.figure import Figure

    from ..evidence.statistics import performance_profile

    many = len(page["systems"])
    figure = Figure(figsize=(9.5, 1.6 + 0.55 * max(many, 3)), layout="constrained")
    left, right = figure.subplots(1, 2)
    everything = np.concatenate([np.ravel(row["scores"]) for row in page["summary"].values()])
    grid = np.linspace(everything.min(), everything.max(), 200)
    for k, row in enumerate(page["summary"].values()):
        colour, iqm, x = COLOURS[k % len(COLOURS)], row["iqm"], np.array(row["scores"])
        left.plot([iqm["low"], iqm["high"]], [k, k], color=colour, lw=8, alpha=0.35, solid_capstyle="butt")
        left.plot([iqm["estimate"]] * 2, [k - 0.25, k + 0.25], color=colour, lw=2.5)
        left.scatter(x.ravel(), k + np.linspace(-0.12, 0.12, x.size), s=12, color=colour, zorder=3)
        right.plot(grid, performance_profile(x, grid), color=colour, lw=2, drawstyle="steps-post")
    what = "scaled score" if page["scaled"] else page["figure"][0]
    left.set_yticks(range(many), page["systems"])
    for k, label in enumerate(left.get_yticklabels()):
        label.set_color(COLOURS[k % len(COLOURS)])
    left.invert_yaxis()
    left.set_xlabel(f"{what}: interquartile mean, 95 % interval, runs")
    right.set_xlabel(what)
    right.set_ylabel("share of runs above")
    for ax in (left, right):
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(alpha=0.25, axis="x")
    figure.savefig(path, dpi=140)
