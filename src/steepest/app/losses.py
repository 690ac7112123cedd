"""steepest losses: every loss of ratios and advantages on three kinds of decision under one budget, cell by cell."""

from __future__ import annotations

import inspect
import json
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from ..core.near import nearest
from .names import find_problem, find_system
from .parts import known
from .plan import write
from .reproduce import watched


@dataclass(frozen=True)
class Kind:
    """What a kind of decision is tried on: a system that takes a loss, a problem, and the budget."""

    name: str
    system: str
    problem: str
    figure: str
    steps: int
    options: tuple[tuple[str, float], ...]


# The only settings of the table. A loss has its own defaults, which are its paper's; none was tuned.
KINDS = (
    Kind("text", "grpo", "AddCliff", "accuracy", 60, (
        ("kl", 0.0), ("lr", 3e-4), ("prompts", 16), ("group", 8), ("epochs", 2), ("minibatches", 2))),
    Kind("control", "ppo", "CartPole-v1", "return", 30, (
        ("lr", 1e-3), ("envs", 8), ("horizon", 128), ("epochs", 4), ("minibatches", 4))),
    Kind("denoising", "dppo", "MultiReach2D", "success", 8, (("lr", 3e-4), ("envs", 64), ("pretrain", 600))),
)  # fmt: skip
SEEDS = 2


@dataclass(frozen=True)
class Run:
    """One loss on one kind of decision."""

    loss: str
    kind: Kind
    seed: int

    def __str__(self) -> str:
        return f"{self.loss} on {self.kind.name}, seed {self.seed}"


@dataclass(frozen=True)
class Done:
    """What a worker says when a run is over; a bar needs `step` and `steps`."""

    job: Run
    step: int
    steps: int
    figure: float | None
    result: dict[str, Any]


@dataclass(frozen=True)
class Losses:
    """Run the cells of the table of losses that are not there yet: each loss that needs only ratios and advantages, on tokens of a
    text, actions of a robot and denoising steps, from equally many of them.

    Each cell is a file in `out`, written when its last seed is done; a table that was stopped goes on. The page `losses` of the
    documentation is made of these files.

    losses   some of them; default: all
    kinds    some of text, control and denoising; default: all
    seeds    runs of each, seeds 0, 1, ...
    workers  processes, each with one thread; default: one for each core
    out      folder of the cells
    again    run cells anew that are there
    """

    losses: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    seeds: int = SEEDS
    workers: int | None = None
    out: Path = Path("docs/losses")
    again: bool = False

    def run(self) -> int:
        from ..evidence.parallel import scatter

        if self.seeds < 2:
            raise ValueError(f"seeds is at least 2, not {self.seeds}: one run says nothing of the next")
        console, all_kinds = Console(), {kind.name: kind for kind in KINDS}
        names, kinds = chosen("loss", self.losses, candidates()), chosen("kind of decision", self.kinds, all_kinds)
        wanted = [(loss, kind) for kind in kinds for loss in names]
        missing = [cell for cell in wanted if self.again or not there(self.out, *cell, self.seeds)]
        if len(missing) < len(wanted):
            console.print(f"{len(wanted) - len(missing)} cells are there already; --again runs them anew", highlight=False)
        self.out.mkdir(parents=True, exist_ok=True)
        jobs = [Run(loss, kind_of(kind), seed) for loss, kind in missing for seed in range(self.seeds)]
        with watched("runs", len(jobs), console) as tell:
            scatter(run_one, jobs, workers=self.workers, tell=collector(self.out, self.seeds, tell))
        for loss, kind in missing:
            cell = read(self.out, loss, kind)
            told = "not run" if cell is None else cell["fault"] or f"{cell['before']} -> {cell['after']}"
            console.print(f"{loss} on {kind}: {told}", highlight=False, markup=False, soft_wrap=True)
        console.print(f"cells {self.out}", highlight=False, soft_wrap=True)
        return 0


def candidates() -> dict[str, Callable[..., Any]]:
    """The losses by name that look at ratios and advantages alone, perhaps of a whole minibatch, and need no option."""
    from ..losses import Loss

    def plain(make: Callable[..., Any]) -> bool:
        needed = [p for p in inspect.signature(make).parameters.values() if p.default is p.empty]
        return not needed and make().needs <= {"whole"}

    return {name: make for name, make in known(Loss).items() if plain(make)}


def chosen(what: str, names: tuple[str, ...], there: Mapping[str, Any]) -> tuple[str, ...]:
    for name in names:
        if name not in there:
            raise ValueError(f"the table has no {what} {name!r}{nearest(name, there)}: it has {', '.join(there)}")
    return names or tuple(there)


def kind_of(name: str) -> Kind:
    return next(kind for kind in KINDS if kind.name == name)


def settings(kind: Kind) -> dict[str, Any]:
    """What a cell depends on, as JSON holds it."""
    return {"system": kind.system, "problem": kind.problem, "figure": kind.figure, "steps": kind.steps, **dict(kind.options)}


def path_of(out: Path, loss: str, kind: str) -> Path:
    return out / f"{loss}-{kind}.json"


def read(out: Path, loss: str, kind: str) -> dict[str, Any] | None:
    """A cell, or None; raises ValueError where the file is none."""
    path = path_of(out, loss, kind)
    if not path.exists():
        return None
    try:
        cell: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if not {"loss", "kind", "settings", "before", "after", "seconds", "fault"} <= cell.keys():
            raise ValueError("it lacks parts")
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{path} is no cell of the table ({error}): remove it and run `steepest losses` again") from error
    return cell


def there(out: Path, loss: str, kind: str, seeds: int) -> bool:
    """Whether the cell is there, as it would be run today, and did not fail."""
    cell = read(out, loss, kind)
    return cell is not None and not cell["fault"] and cell["settings"] == settings(kind_of(kind)) and len(cell["after"]) == seeds


def collector(out: Path, seeds: int, tell: Callable[[Any], None]) -> Callable[[Any], None]:
    """Takes what workers say; writes a cell when its last seed is done."""
    held: defaultdict[tuple[str, str], dict[int, dict[str, Any]]] = defaultdict(dict)

    def hear(word: Any) -> None:
        tell(word)
        if not isinstance(word, Done):
            return
        rows = held[word.job.loss, word.job.kind.name]
        rows[word.job.seed] = word.result
        if len(rows) == seeds:
            page = cell_of(word.job.loss, word.job.kind.name, [rows[seed] for seed in range(seeds)])
            write(path_of(out, word.job.loss, word.job.kind.name), page)

    return hear


def cell_of(loss: str, kind: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    from ..evidence.run import commit, versions

    fault = next((row["fault"] for row in rows if row["fault"]), "")
    figures = {name: [] if fault else [row[name] for row in rows] for name in ("before", "after", "seconds")}
    about = {"versions": versions(), "commit": commit(), "date": time.strftime("%Y-%m-%d")}
    return {"loss": loss, "kind": kind, "settings": settings(kind_of(kind)), **figures, "fault": fault, **about}


def run_one(job: Run, tell: Callable[[Any], None]) -> dict[str, Any]:
    """What a worker does. A loss that breaks is a result: the others go on."""
    from ..core import Stream, begin, train
    from .parts import made_by

    kind = job.kind
    options: dict[str, Any] = dict(kind.options)
    system, problem = find_system(kind.system)(**options, loss=candidates()[job.loss]()), made_by(kind.problem, find_problem)()
    result: dict[str, Any] = {"fault": ""}
    try:
        state = begin(system, problem, seed=job.seed)
        began, before = time.process_time(), problem.evaluate(state.policy, Stream(job.seed, "evaluate"))[kind.figure]
        for _ in train(system, problem, steps=kind.steps, seed=job.seed, state=state):
            pass
        seconds, after = time.process_time() - began, problem.evaluate(state.policy, Stream(job.seed, "evaluate"))[kind.figure]
        result |= {"before": round(before, 4), "after": round(after, 4), "seconds": round(seconds, 2)}
    except Exception as error:
        result["fault"] = f"{type(error).__name__}: {error}"
    tell(Done(job, kind.steps, kind.steps, result.get("after"), result))
    return result
