"""steepest train and steepest resume: a run that can be watched, stopped at any moment and gone on with."""

from __future__ import annotations

import dataclasses
import json as js
import math
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .names import all_systems, find_claim, find_problem, find_system
from .options import fields_of, options_of, parse, to_json
from .plan import CHECKPOINTS, RUN, Plan, alone, find_run, fresh_folder, makers, now, usual_problem, write

MINUTE, SHARE, LARGE = 60.0, 0.02, 2**30  # between checkpoints; of the time that copies may take; bytes of a copy
USUAL_STEPS = 100


class Diverged(ArithmeticError):
    """A metric is not a number."""


# ------------------------------------------------------------------------------------ commands


@dataclass(frozen=True)
class Train:
    """Train a system on a problem.

    problem     one of the library's own or any Gymnasium id
    steps       training steps
    seed        of everything random
    out         folder of the run, new; default: runs/SYSTEM-PROBLEM-SEED
    device      cpu, cuda, cuda:1, mps
    threads     of the CPU; default: as torch chooses
    every_save  steps between checkpoints; default: one a minute. There is one at the end in any case
    tracker     tensorboard, wandb or mlflow, beside metrics.jsonl
    json        print the outcome as JSON; all else goes to stderr
    """

    plan: Plan
    problem: str = ""
    steps: int = USUAL_STEPS
    seed: int = 0
    out: Path | None = None
    device: str = "cpu"
    threads: int | None = None
    every_save: int | None = None
    tracker: tuple[str, ...] = ()
    json: bool = False

    @classmethod
    def parse(cls, args: Sequence[str], prog: str) -> Train:
        """Flags depend on the system and the problem, so both are looked up first."""
        general = [dataclasses.replace(option, group="run") for option in fields_of(cls)]
        known = all_systems()
        name = next((arg for arg in args if arg in known), next((arg for arg in args if not arg.startswith("-")), None))
        if name is None:
            what = f"{cls.__doc__}".split("\n")[0] + " `steepest train NAME --help` shows the system's and the problem's options too."
            parse(general, ["--help"] if not args else args, prog=f"{prog} NAME", description=what)
            raise ValueError("no system is named: steepest train NAME; `steepest list` names all of them")
        system, claim = find_system(name), find_claim(name)
        usual = usual_problem(claim)
        problem = said_problem(args) or usual
        if problem is None and "--help" not in args and "-h" not in args:
            raise ValueError(f"{name} has no claim that says what to train it on: add --problem")
        make = find_problem(problem) if problem else None
        claimed = claim is not None and make is not None and same_maker(make, claim.problem)
        given = (claim.ours.keywords, claim.problem.keywords) if claim is not None and claimed else ({}, {})
        defaults = {"problem": problem or "", "steps": claim.steps if claim is not None and claimed else USUAL_STEPS}
        general = [dataclasses.replace(option, default=defaults.get(option.name, option.default)) for option in general]
        options = [*general, *options_of(system, name, given[0])]
        if make is not None:
            options += options_of(make, problem if problem != name else "problem", given[1])
        rest = list(args)
        rest.remove(name)
        title = (sys.modules[system.__module__].__doc__ or name).split("\n")[0]
        from_claim = f"\n\nDefaults are those of its claim, which `steepest reproduce {name}` runs." if claimed else ""
        read = parse(options, rest, prog=f"{prog} {name}", description=title + from_claim)
        run = read["run"]
        plan = Plan(
            system=name, options={k: to_json(v) for k, v in read[name].items()},
            problem=str(problem), problem_options={k: to_json(v) for k, v in read[list(read)[-1]].items()} if len(read) > 3 else {},
            claimed=claimed, seed=run["seed"], steps=run["steps"], every_save=run["every_save"],
            tracker=tuple(dict.fromkeys(run["tracker"])), threads=run["threads"] or 0, device=run["device"],
            figure=claim.figure if claim is not None and claimed else "score", started=now(), command=("steepest", "train", *args),
        )  # fmt: skip
        return cls(plan, **run)

    def run(self) -> int:
        if self.steps < 1 or (self.every_save is not None and self.every_save < 1) or (self.threads is not None and self.threads < 1):
            raise ValueError(f"steps, every-save and threads are at least 1, not {self.steps}, {self.every_save} and {self.threads}")
        if self.out is not None and (self.out / RUN).exists():
            raise ValueError(f"{self.out} holds a run already: `steepest resume {self.out}` goes on with it; or choose another --out")
        return go(self.plan, self.out, None, self.json)


@dataclass(frozen=True)
class Resume:
    """Go on with a run from its newest whole checkpoint, bitwise as if it had never stopped.

    folder  the run, or a checkpoint of it
    steps   train to this step; default: as the run was asked for
    json    print the outcome as JSON; all else goes to stderr
    """

    folder: Path
    steps: int | None = None
    json: bool = False

    def run(self) -> int:
        plan, out, checkpoint = find_run(self.folder)
        if out is not None and checkpoint is not None and checkpoint.resolve() != (newest(out) or checkpoint).resolve():
            raise ValueError(
                f"{checkpoint} is not the newest of its run, which goes on from {newest(out)}: name the run, or copy this "
                "checkpoint to another place and resume the copy, which becomes a run of its own"
            )
        if self.steps is not None:
            plan = dataclasses.replace(plan, steps=self.steps)
        return go(plan, out, checkpoint, self.json)


def said_problem(args: Sequence[str]) -> str | None:
    for k, arg in enumerate(args):
        if arg == "--problem":
            return args[k + 1] if k + 1 < len(args) else None
        if arg.startswith("--problem="):
            return arg.partition("=")[2]
    return None


def same_maker(make: Any, claimed: Any) -> bool:
    """Whether a claim's problem is what `make` makes: one class, and of Gymnasium one id."""
    return getattr(make, "func", make) is claimed.func and getattr(make, "keywords", {}).get("id") == claimed.keywords.get("id")


def newest(out: Path) -> Path | None:
    from ..core.save import latest

    return latest(out / CHECKPOINTS)


# ------------------------------------------------------------------------------------ a run


def go(plan: Plan, out: Path | None, checkpoint: Path | None, json: bool) -> int:
    """Build, restore, train, save, tell. -> exit status"""
    import torch

    from ..core.save import restore
    from ..core.system import begin
    from .tracking import trackers

    console = Console(stderr=json)
    plan = dataclasses.replace(plan, threads=plan.threads or torch.get_num_threads())
    usable(plan.device)
    open_trackers = trackers(plan.tracker)
    system, problem = plan.make()
    torch.set_num_threads(plan.threads)
    with console.status(f"building {plan.system} on {plan.problem}"):
        state = begin(system, problem, seed=plan.seed, device=plan.device)
        if checkpoint is not None:
            restore(state, checkpoint, plan.json())
    if state.step >= plan.steps:
        raise ValueError(f"{checkpoint} is at step {state.step} of {plan.steps}: --steps N goes on to a later one")
    out = out or fresh_folder(plan)
    out.mkdir(parents=True, exist_ok=True)
    with alone(out):
        write(out / RUN, plan.json())
        session = Session(plan, system, problem, state, out, console)
        session.announce()
        return session.run(open_trackers, json)


def usable(device: str) -> None:
    import torch

    try:
        torch.empty(0, device=torch.device(device))
    except (RuntimeError, AssertionError) as error:
        here = ["cpu", *(["cuda"] if torch.cuda.is_available() else []), *(["mps"] if torch.backends.mps.is_available() else [])]
        raise ValueError(f"device {device!r} cannot be used here ({str(error).splitlines()[0]}): choose of {', '.join(here)}") from error


class Session:
    """One process's part of a run."""

    def __init__(self, plan: Plan, system: Any, problem: Any, state: Any, out: Path, console: Console):
        from ..core.save import Checkpoints
        from .tracking import JsonLines

        self.plan, self.system, self.problem, self.state, self.out, self.console = plan, system, problem, state, out, console
        self.start = state.step
        self.lines = JsonLines(out / "metrics.jsonl", self.start)
        self.checkpoints = Checkpoints(out / CHECKPOINTS, best=plan.figure)
        self.copy = Copy(state)
        self.saved: Path | None = out / CHECKPOINTS / f"step-{self.start:09d}" if self.start else None
        self.since: list[float] = []  # the figure since the last checkpoint
        self.asked, self.cost = time.monotonic(), 0.0  # the last checkpoint: when, and how long it took

    def announce(self) -> None:
        """The plan in numbers."""
        plan, grid = self.plan, Table.grid(padding=(0, 2))
        grid.add_column(style="bold")
        count = sum(p.numel() for p in self.state.parameters())
        trained = sum(p.numel() for p in {p for o in self.state.optimizers.values() for g in o.param_groups for p in g["params"]})
        first = f", from {self.start}" if self.start else ""
        save = f"every {plan.every_save} steps" if plan.every_save else "every minute"
        for name, text in (
            ("system", f"{plan.system}  {told(plan.options)}"),
            ("problem", f"{plan.problem}  {told(plan.problem_options)}"),
            ("steps", f"{plan.steps}{first}; seed {plan.seed}; checkpoints {save} and at the end"),
            ("parameters", f"{count:,}, of which {trained:,} are trained"),
            ("device", f"{plan.device}, {plan.threads} thread{'s' * (plan.threads > 1)}{spare(plan.device)}"),
            ("out", str(self.out)),
        ):
            grid.add_row(name, escape(text))
        self.console.print(grid, highlight=False)

    def run(self, open_trackers: Sequence[Any], json: bool) -> int:
        from .progress import Watch

        before = self.evaluation("before")
        stop, failure = Stop(), None
        with ExitStack() as stack:
            stack.callback(self.lines.close)
            others = [opened(self.out, self.start, self.plan.json()) for opened in open_trackers]
            for tracker in others:
                stack.callback(tracker.close)
            stack.enter_context(stop.listening())
            watch = stack.enter_context(Watch(self.plan.system, self.start, self.plan.steps, self.plan.figure, self.console))
            try:
                for step, row in self.rows():
                    for tracker in (self.lines, *others):
                        tracker.log(step, row)
                    watch.update(step, row)
                    if self.due() or step == self.plan.steps or stop.signal:
                        self.save()
                    self.copy.take()
                    if stop.signal and step < self.plan.steps:
                        break
            except Exception as error:
                failure = error
        if failure is not None:
            return self.failed(failure)
        if stop.signal and self.state.step < self.plan.steps:
            self.console.print(f"\n[bold]stopped[/] after step {self.state.step} of {self.plan.steps}; saved.", highlight=False)
            self.commands(("go on", f"steepest resume {self.out}"))
            return 128 + stop.signal
        return self.finish(before, json)

    def rows(self) -> Iterator[tuple[int, dict[str, float]]]:
        """Train; yield step and metrics."""
        from ..core.system import train
        from .tracking import numbers

        plan, began, earlier = self.plan, time.monotonic(), self.lines.seconds
        for record in train(self.system, self.problem, steps=plan.steps, seed=plan.seed, state=self.state):
            row = numbers(record.metrics)
            lost = [name for name, x in row.items() if math.isnan(x)]
            if lost:
                raise Diverged(
                    f"{', '.join(lost)} {'is' if len(lost) == 1 else 'are'} NaN. Likely causes: a learning rate that is too high, "
                    "or an observation or a reward of enormous size"
                )
            self.since += [row[plan.figure]] if plan.figure in row else []
            yield record.step, {"seconds": round(earlier + time.monotonic() - began, 3), **row}

    def due(self) -> bool:
        if self.plan.every_save:
            return self.state.step % self.plan.every_save == 0
        return time.monotonic() - self.asked >= max(MINUTE, self.cost / SHARE)

    def save(self) -> None:
        began = time.monotonic()
        self.lines.sync()
        metrics = {self.plan.figure: sum(self.since) / len(self.since)} if self.since else None
        self.saved = self.checkpoints.save(self.state, self.plan.json(), metrics)
        self.since, self.asked = [], time.monotonic()
        self.cost = self.asked - began

    def failed(self, error: Exception) -> int:
        """Save the last good state, say what happened and where it is written."""
        (self.out / "error.txt").write_text("".join(traceback.format_exception(error)), encoding="utf-8")
        at = self.state.step + (not isinstance(error, Diverged))
        kind = "" if isinstance(error, Diverged) else f"{type(error).__name__}: "
        self.console.print(f"[bold red]step {at} failed[/]: {escape(kind + str(error))}", highlight=False, soft_wrap=True)
        try:
            kept = int(self.saved.name[5:]) if self.saved else -1
            if self.copy.step > kept:
                self.copy.give_back()
                self.since = []
                self.save()
                kept = self.copy.step
            self.console.print(f"the last good state, of step {kept}, is in {self.saved}" if self.saved else "no step was finished")
        except OSError as second:
            self.console.print(f"[bold red]and could not be saved[/]: {escape(str(second))}", soft_wrap=True)
        again = f"steepest resume {self.out}"
        self.commands(("details", str(self.out / "error.txt")), ("once the cause is removed", again))
        return 1

    def evaluation(self, when: str) -> dict[str, float]:
        """What the problem says of the policy; `before` is remembered for runs that go on."""
        from ..core.stream import Stream
        from .evaluate import judge

        path = self.out / "evaluation.json"
        page = js.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        if when == "after" or not page.get("before"):
            if when == "before" and self.start:
                return {}
            with self.console.status(f"evaluating {when} training"):
                page[when] = judge(self.problem, self.state, Stream(self.plan.seed, "evaluate"))
            write(path, {**page, "step": self.state.step})
        return page[when]

    def finish(self, before: dict[str, float], json: bool) -> int:
        """The table, the answers, the picture, the way on."""
        from .evaluate import samples
        from .plots import curve
        from .tracking import read_lines

        plan, after = self.plan, self.evaluation("after")
        rows = [js.loads(line) for line in read_lines(self.out / "metrics.jsonl")]
        picture = self.out / "curve.png"
        curve(rows, plan.figure, f"{plan.system} on {plan.problem}, seed {plan.seed}", picture)
        table = Table("", "before", "after", "change", box=box.SIMPLE_HEAD, pad_edge=False)
        for column in table.columns[1:]:
            column.justify = "right"
        for name, x in after.items():
            known = name in before
            table.add_row(escape(name), f"{before[name]:.4g}" if known else "", f"{x:.4g}", f"{x - before[name]:+.4g}" if known else "")
        self.console.print(table if after else "the problem was not evaluated: State has no `policy`")
        shown = samples(self.problem, self.state, plan.seed)
        self.console.print(answers(shown)) if shown else None
        self.commands(
            ("picture", str(picture)), ("checkpoint", str(self.saved)),
            ("evaluate", f"steepest evaluate {self.saved}"), ("go on", f"steepest resume {self.out} --steps {2 * plan.steps}"),
        )  # fmt: skip
        if json:
            page = {"out": str(self.out), "checkpoint": str(self.saved), "picture": str(picture), "step": self.state.step}
            print(js.dumps({**page, "before": before, "after": after, "metrics": rows[-1], "examples": shown}, ensure_ascii=False))
        return 0

    def commands(self, *told: tuple[str, str]) -> None:
        width = max(len(name) for name, _ in told)
        for name, text in told:
            self.console.print(f"[bold]{name:<{width}}[/]  {escape(text)}", highlight=False, soft_wrap=True)


class Copy:
    """The last good State, taken so seldom that it costs a fiftieth of the time, and not at all where it is large."""

    def __init__(self, state: Any):
        self.state, self.step, self.tree = state, -1, None
        held = [*state.parameters(), *state.buffers()]
        self.small = 3 * sum(x.numel() * x.element_size() for x in held) <= LARGE
        self.at, self.cost = -math.inf, 0.0
        self.take()

    def take(self) -> None:
        from ..core.check import clone

        began = time.monotonic()
        if self.small and began - self.at >= self.cost / SHARE:
            self.tree, self.step = clone(dict(self.state.state_dict())), self.state.step
            self.at = time.monotonic()
            self.cost = self.at - began

    def give_back(self) -> None:
        from ..core.save import put_back

        put_back(self.state, self.tree)  # type: ignore[arg-type]


class Stop:
    """The first Ctrl-C (or SIGTERM) asks the run to end after its step; the second ends it at once."""

    signal = 0

    @contextmanager
    def listening(self) -> Iterator[None]:
        def hear(number: int, frame: Any) -> None:
            if self.signal:
                raise KeyboardInterrupt
            self.signal = number
            os.write(2, b"\nfinishing this step, then saving; once more to stop at once\n")

        try:
            old = {number: signal.signal(number, hear) for number in (signal.SIGINT, signal.SIGTERM)}
        except ValueError:  # not the main thread: whoever runs this one handles signals
            old = {}
        try:
            yield
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)


def told(options: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in options.items())


def spare(device: str) -> str:
    import torch

    return "; a GPU is here too: --device cuda" if device == "cpu" and torch.cuda.is_available() else ""


def answers(rows: Sequence[dict[str, Any]]) -> Table:
    """Sampled answers, a column for each of their parts."""
    table = Table(*rows[0], box=box.SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        table.add_row(*(f"{x:.4g}" if isinstance(x, float) else escape(str(x)) for x in row.values()))
    return table
