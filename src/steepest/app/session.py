"""One process's part of a run: train, log, save, stop, and tell what came of it."""

from __future__ import annotations

import json as js
import math
import os
import shlex
import signal
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .loud import Alarms, probe, sizes
from .plan import CHECKPOINTS, EVALUATION, METRICS, Plan, write

MINUTE, SHARE, LARGE = 60.0, 0.02, 2**30  # between checkpoints; of the time that copies may take; bytes of a copy
CAUSES = "a learning rate that is too high, or an observation or a reward of enormous size"


class Diverged(ArithmeticError):
    """A metric or a weight is not a number."""


class Session:
    """One process's part of a run."""

    def __init__(self, plan: Plan, system: Any, problem: Any, state: Any, out: Path, console: Console):
        from ..core.save import Checkpoints
        from .tracking import JsonLines

        self.plan, self.system, self.problem, self.state, self.out, self.console = plan, system, problem, state, out, console
        self.start = state.step
        self.lines = JsonLines(out / METRICS, self.start)
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
            *sizes(plan.options, self.problem, self.state),
            ("device", f"{plan.device}, {plan.threads} thread{'s' * (plan.threads > 1)}{spare(plan.device)}"),
            *([("sandbox", self.problem.holds)] if hasattr(self.problem, "holds") else []),
            ("out", str(self.out)),
        ):
            grid.add_row(name, escape(text))
        self.console.print(grid, highlight=False)

    def run(self, open_trackers: Sequence[Any], json: bool) -> int:
        from .progress import Watch

        probe(self.problem, self.state, self.plan.seed, self.console)
        before = self.evaluation("before")
        stop, failure, alarms = Stop(), None, Alarms()
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
                    for text in alarms.look(row):
                        self.console.print(f"[bold yellow]step {step}[/]: {escape(text)}", highlight=False, soft_wrap=True)
                    stopping = stop.signal  # read once: a signal that comes while this step is written ends the next
                    if self.due() or step == self.plan.steps or stopping:
                        sound(self.state)
                        self.save()
                    self.copy.take()
                    if stopping and step < self.plan.steps:
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
                    f"{', '.join(lost)} {'is' if len(lost) == 1 else 'are'} NaN. Likely causes: {CAUSES}"
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
            kept = int(self.saved.name[5:]) if self.saved else self.start
            if self.copy.step > kept:
                self.copy.give_back()
                self.since = []
                self.save()
                kept = self.copy.step
            self.console.print(f"the last good state, of step {kept}, is in {self.saved}" if self.saved else "no step was finished")
        except OSError as second:
            self.console.print(f"[bold red]and could not be saved[/]: {escape(str(second))}", soft_wrap=True)
        again = ("once the cause is removed", f"steepest resume {self.out}")
        if isinstance(error, Diverged):  # the same options would end the same way
            again = ("with other options", shlex.join(self.plan.command))
        self.commands(("details", str(self.out / "error.txt")), again)
        return 1

    def evaluation(self, when: str) -> dict[str, float]:
        """What the problem says of the policy; `before` is remembered for runs that go on."""
        from ..core.stream import Stream
        from .evaluate import judge

        path = self.out / EVALUATION
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

        plan, picture = self.plan, self.out / "curve.png"
        rows = [js.loads(line) for line in read_lines(self.out / METRICS)]
        curve(rows, plan.figure, f"{plan.system} on {plan.problem}, seed {plan.seed}", picture)
        after = self.evaluation("after")  # last, as the sign that a run is finished
        table = Table("", "before", "after", "change", box=box.SIMPLE_HEAD, pad_edge=False)
        for column in table.columns[1:]:
            column.justify = "right"
        for name, x in after.items():
            known = name in before
            first, change = (f"{before[name]:.4g}", f"{x - before[name]:+.4g}") if known else ("", "")
            table.add_row(escape(name), first, f"{x:.4g}", change)
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
            sound(self.state)
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


def sound(state: Any) -> None:
    """Raises Diverged where a weight is not finite: such a State must not take a good one's place."""
    import torch

    wrong = [name for name, p in state.named_parameters() if not bool(torch.isfinite(p).all())]
    if wrong:
        more = f" ({len(wrong)} such tensors)" if len(wrong) > 1 else ""
        raise Diverged(f"{wrong[0]} holds NaN or infinite numbers{more}. Likely causes: {CAUSES}")


def finished(out: Path, step: int) -> bool:
    """Whether the run has been evaluated at its last step."""
    path = out / EVALUATION
    page = js.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return "after" in page and page["step"] >= step


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
