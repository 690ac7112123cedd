"""steepest guide: every on-policy system on the same problems under one budget, cell by cell. The documentation shows the cells."""

from __future__ import annotations

import inspect
import json as js
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape

from ..core.near import nearest
from . import catalog
from .names import find_problem, find_system
from .plan import write
from .reproduce import watched

BASELINE = "vpg"
POINTS = 25  # of a learning curve


@dataclass(frozen=True)
class Arena:
    """A problem of the guide and what every system is given on it.

    budget   steps of the environments, all together
    envs     side by side
    horizon  steps of each in a batch
    many     what multiplies a system's own learning rate where it makes many optimizer steps a batch (it has `epochs`)
    one      the same where it makes one
    seeds    runs of each system: seeds 0, 1, ...
    """

    problem: str
    budget: int
    envs: int
    horizon: int
    many: float
    one: float
    seeds: int


# With SMALLER the only settings of the guide. All else is each system's default, which is its paper's.
ARENAS = (
    Arena("CartPole", 51_200, 8, 128, many=10, one=30, seeds=5),
    Arena("Pendulum", 102_400, 8, 128, many=10, one=3, seeds=5),
    Arena("HalfCheetah-v5", 51_200, 8, 256, many=1, one=1, seeds=3),
    Arena("Hopper-v5", 51_200, 8, 256, many=1, one=1, seeds=3),
)
HOW = (
    "Everything that the table, the next sentence and the sizes below do not name is a system's default, which is its paper's. "
    "Minibatches hold about 64 steps, as the papers' on MuJoCo do. The factors of the learning rate are the same for all systems "
    "of a kind; where a system has no learning rate there is none. They were chosen on seed 100 by the mean return over "
    "training, on CartPole and Pendulum, with PPO for systems that make many steps a batch and VPG for those that make one. "
    "CartPole: PPO 338, 381 and 401 at 1, 3 and 10 times its rate; VPG 47, 217 and 323 at 3, 10 and 30. Pendulum: PPO -554, "
    "-454 and -444 at 1, 3 and 10; VPG -1183, -1199 and -1263 at 3, 10 and 30, where it learns at none. On MuJoCo the rates "
    "are the systems' own: the papers chose them there."
)
# Systems that would take hours at the sizes of their papers, and what they are given here.
SMALLER: Mapping[str, Mapping[str, Any]] = MappingProxyType({
    "s5_rl": MappingProxyType({"width": 32, "size": 32, "layers": 1, "epochs": 4, "minibatches": 2}),
    "hyperppo": MappingProxyType({"widths": (4, 8, 16), "layers": 2, "epochs": 4, "minibatches": 8}),
})
ROWS = 64  # of a minibatch: the papers' on MuJoCo, 2048 steps in 32


@dataclass(frozen=True)
class Cell:
    """One run of a system on a problem."""

    system: str
    arena: Arena
    seed: int

    def __str__(self) -> str:
        return f"{self.system} on {self.arena.problem}, seed {self.seed}"


@dataclass(frozen=True)
class Done:
    """What a worker says when a run is over; a bar needs `step` and `steps`."""

    job: Cell
    step: int
    steps: int
    figure: float | None
    result: dict[str, Any]


@dataclass(frozen=True)
class Guide:
    """Run the cells of the guide that are not there yet: on-policy systems on four problems, from equally many steps.

    Each cell (a system on a problem) is a file in `out`, written when its last seed is done; a guide that was stopped goes on. The
    page `guide` of the documentation is made of these files.

    systems    some of them, or systems of your own: MODULE.FUNCTION; default: every on-policy system of the catalog
    problems   some of the four; default: all
    seeds      runs of each, seeds 0, 1, ...; default: 5, and 3 on MuJoCo
    env_steps  budget in steps of the environments; default: that of the guide, by problem
    workers    processes, each with one thread; default: one for each core
    out        folder of the cells
    again      run cells anew that are there
    """

    systems: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    seeds: int | None = None
    env_steps: int | None = None
    workers: int | None = None
    out: Path = Path("docs/guide")
    again: bool = False

    def run(self) -> int:
        from ..evidence.parallel import scatter

        console = Console()
        arenas = [self.sized(arena) for arena in chosen(self.problems)]
        names = self.systems or tuple(name for name, why in candidates() if not why)
        for name in names:
            if why := unfit(find_system(name)):
                raise ValueError(f"{name} has no place in the guide: {why}")
        wanted = [(name, arena) for arena in arenas for name in names]
        missing = [(name, arena) for name, arena in wanted if self.again or not there(self.out, name, arena)]
        kept = len(wanted) - len(missing)
        if kept:
            console.print(f"{kept} cells are there already; --again runs them anew", highlight=False)
        self.out.mkdir(parents=True, exist_ok=True)
        jobs = [Cell(name, arena, seed) for name, arena in missing for seed in range(arena.seeds)]
        with watched("runs", len(jobs), console) as tell:
            scatter(run_one, jobs, workers=self.workers, tell=collector(self.out, tell))
        for name, arena in missing:
            told = escape(said(read(self.out, name, arena.problem)))
            console.print(f"[bold]{name}[/] on {arena.problem}: {told}", highlight=False, soft_wrap=True)
        console.print(f"cells {self.out}", highlight=False, soft_wrap=True)
        return 0

    def sized(self, arena: Arena) -> Arena:
        """The arena with the budget and the seeds that were asked for."""
        if self.seeds is not None and self.seeds < 2:
            raise ValueError(f"seeds is at least 2, not {self.seeds}: one run says nothing of the next")
        sized = Arena(**{**vars(arena), "budget": self.env_steps or arena.budget, "seeds": self.seeds or arena.seeds})
        updates(sized)
        return sized


# ------------------------------------------------------------------------------------ who takes part, and with what


def candidates() -> list[tuple[str, str]]:
    """Every on-policy system of the catalog that is built, baselines included, the one to compare with first; and why it cannot
    take part, or nothing."""
    names = [entry.slug for entry in catalog.entries() if entry.family == "on_policy" and entry.state != "planned"]
    names.sort(key=lambda name: name != BASELINE)
    return [(name, unfit(find_system(name))) for name in names]


def unfit(make: Callable[..., Any]) -> str:
    """Why a system cannot be given the guide's settings; nothing where it can."""
    lacks = [name for name in ("envs", "horizon") if name not in inspect.signature(make).parameters]
    return f"it has no option {' and no option '.join(lacks)}, so it does not learn from steps of environments" if lacks else ""


def chosen(problems: tuple[str, ...]) -> list[Arena]:
    known = {arena.problem: arena for arena in ARENAS}
    for name in problems:
        if name not in known:
            raise ValueError(f"the guide has no problem {name!r}{nearest(name, known)}: it has {', '.join(known)}")
    return [arena for arena in ARENAS if not problems or arena.problem in problems]


def updates(arena: Arena) -> int:
    """Training steps of the budget; raises ValueError with the two nearest budgets where it is no whole number of them."""
    batch = arena.envs * arena.horizon
    count, rest = divmod(arena.budget, batch)
    if rest or not count:
        nearest_two = f"{count * batch:,} or {(count + 1) * batch:,}" if count else f"{batch:,}"
        raise ValueError(
            f"{arena.budget:,} steps of {arena.problem} are no whole number of batches of {arena.envs} environments x "
            f"{arena.horizon} steps = {batch:,}: take {nearest_two}"
        )
    return count


def setting(make: Callable[..., Any], arena: Arena) -> dict[str, Any]:
    """What a system is given on a problem; all other options are its own defaults."""
    known = inspect.signature(make).parameters
    given: dict[str, Any] = {"envs": arena.envs, "horizon": arena.horizon}
    pieces = max(1, round(arena.envs * arena.horizon / ROWS))
    given |= {name: pieces for name in ("minibatches", "critic_minibatches") if name in known}
    rate = known["lr"].default if "lr" in known else None
    if isinstance(rate, float):
        given["lr"] = float(f"{rate * (arena.many if 'epochs' in known else arena.one):.6g}")
    return given | {name: x for name, x in SMALLER.get(make.__name__, {}).items() if name in known}


def options(make: Callable[..., Any], arena: Arena) -> dict[str, Any]:
    """All options of a run, as JSON holds them."""
    from functools import partial

    from ..evidence.run import described

    return described(partial(make, **setting(make, arena)))[1]


# ------------------------------------------------------------------------------------ cells as files


def path_of(out: Path, system: str, problem: str) -> Path:
    return out / f"{system}-{problem}.json"


def read(out: Path, system: str, problem: str) -> dict[str, Any] | None:
    """A cell, or None; raises ValueError where the file is none."""
    path = path_of(out, system, problem)
    if not path.exists():
        return None
    try:
        cell = js.loads(path.read_text(encoding="utf-8"))
        if not {"system", "arena", "options", "fault"} <= cell.keys():
            raise ValueError("it lacks parts")
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{path} is no cell of the guide ({error}): remove it and run `steepest guide` again") from error
    return cell


def there(out: Path, system: str, arena: Arena) -> bool:
    """Whether the cell is there, as it would be run today, and did not fail."""
    cell = read(out, system, arena.problem)
    return cell is not None and not cell["failed"] and not stale(cell, arena)


def stale(cell: dict[str, Any], arena: Arena) -> str:
    """How a cell differs from what would be run today; nothing where it does not. An option that is new since does not count."""
    if cell["arena"] != vars(arena):
        return "another budget or other settings"
    today = options(find_system(cell["system"]), arena)
    changed = [f"{name} was {x!r} and is {today.get(name)!r}" for name, x in cell["options"].items() if today.get(name) != x]
    return "; ".join(changed)


def collector(out: Path, tell: Callable[[Any], None]) -> Callable[[Any], None]:
    """Takes what workers say; writes a cell when its last seed is done."""
    held: defaultdict[tuple[str, Arena], dict[int, dict[str, Any]]] = defaultdict(dict)

    def hear(word: Any) -> None:
        tell(word)
        if not isinstance(word, Done):
            return
        system, arena = word.job.system, word.job.arena
        rows = held[system, arena]
        rows[word.job.seed] = word.result
        if len(rows) == arena.seeds:
            write(path_of(out, system, arena.problem), cell_of(system, arena, [rows[seed] for seed in range(arena.seeds)]))

    return hear


def cell_of(system: str, arena: Arena, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """One cell from its runs. `fault` says why there are no figures; `failed` that a run began and broke."""
    from ..evidence.run import commit, versions

    fault = next((row["fault"] for row in rows if row["fault"]), "")
    page: dict[str, Any] = {
        "system": system, "arena": vars(arena), "options": options(find_system(system), arena),
        "fault": fault, "failed": any(row["failed"] for row in rows), "versions": versions(), "commit": commit(),
        "date": time.strftime("%Y-%m-%d"),
    }  # fmt: skip
    if not fault:
        page |= {name: [row[name] for row in rows] for name in ("training", "last", "seconds", "curve")}
    return page


def said(cell: dict[str, Any] | None) -> str:
    if cell is None or cell["fault"]:
        return cell["fault"] if cell else "not run"
    means = (float(np.mean(cell[name])) for name in ("training", "last", "seconds"))
    return "return {:.4g} over training, {:.4g} of the last policy; {:.3g} CPU seconds a run".format(*means)


# ------------------------------------------------------------------------------------ a run


def run_one(job: Cell, tell: Callable[[Any], None]) -> dict[str, Any]:
    """What a worker does. A system that does not fit, or breaks, is a result: the others go on."""
    from ..core import Stream, begin, train
    from ..evidence.parallel import Progress

    arena, steps, said = job.arena, updates(job.arena), 0.0
    make, problem = find_system(job.system), find_problem(job.arena.problem)()
    result: dict[str, Any] = {"fault": "", "failed": False}
    began, told = time.process_time(), []
    try:
        system = make(**setting(make, arena))
        state = begin(system, problem, seed=job.seed)
    except (TypeError, ValueError) as error:
        result["fault"] = f"does not fit: {error}"
    try:
        if not result["fault"]:
            for record in train(system, problem, steps=steps, seed=job.seed, state=state):
                if "return" in record.metrics:
                    told.append((record.step, float(record.metrics["return"])))
                if time.monotonic() - said > 0.3:
                    said = time.monotonic()
                    tell(Progress(job, record.step, steps + 1, told[-1][1] if told else None))
            seconds = time.process_time() - began
            if not told:
                raise ValueError("no step reported a return")
            last = problem.evaluate(state.policy, Stream(job.seed, "evaluate"))["return"]
            result |= summary(told, arena, steps) | {"last": round(last, 3), "seconds": round(seconds, 2)}
    except Exception as error:
        result |= {"fault": f"failed: {type(error).__name__}: {error}", "failed": True}
    tell(Done(job, steps + 1, steps + 1, result.get("training"), result))
    return result


def summary(told: list[tuple[int, float]], arena: Arena, steps: int) -> dict[str, Any]:
    """The mean return over training, each update counting once, and the curve: means of equal pieces of the budget."""
    if not np.isfinite([score for _, score in told]).all():
        raise ValueError("a return is not finite: the run diverged")
    pieces = np.ceil(np.linspace(0, steps, POINTS + 1)[1:])
    curve, before = [], 0.0
    for end in pieces:
        inside = [score for step, score in told if before < step <= end]
        if inside:
            curve.append([int(end) * arena.envs * arena.horizon, round(float(np.mean(inside)), 3)])
        before = end
    return {"training": round(float(np.mean([score for _, score in told])), 3), "curve": curve}
