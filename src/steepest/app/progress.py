"""What a user sees while a run goes on: a bar in a terminal, now and then a line elsewhere."""

from __future__ import annotations

import time
from collections import deque
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

WINDOW, EVERY = 20, 10.0  # steps that the figure shown is the mean of; seconds between lines


def clock(seconds: float) -> str:
    """1:02:03, or 2:03."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"


def pace(rate: float) -> str:
    """Steps per second, or seconds per step where that is easier to read."""
    return f"{rate:.3g} steps/s" if rate >= 1 or rate <= 0 else f"{1 / rate:.3g} s/step"


class Watch:
    """Shows step, rate, time left and the figure that matters.

    title    in front of the bar
    start    step that the run begins at
    steps    step that it ends at
    figure   the metric shown; where it is not reported, the first metric
    """

    def __init__(self, title: str, start: int, steps: int, figure: str, console: Console):
        self.start, self.steps, self.figure, self.console = start, steps, figure, console
        self.recent: deque[float] = deque(maxlen=WINDOW)
        self.began = self.said = time.monotonic()
        columns = (TextColumn("[bold]{task.description}"), BarColumn(None), MofNCompleteColumn(), TextColumn("{task.fields[told]}"))
        self.bar = Progress(*columns, console=console, expand=True) if console.is_terminal else None
        self.task: Any = self.bar.add_task(title, total=steps, completed=start, told="") if self.bar else None

    def __enter__(self) -> Watch:
        if self.bar:
            self.bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.bar:
            self.bar.stop()

    def update(self, step: int, row: dict[str, float]) -> None:
        name = self.figure if self.figure in row else next((key for key in row if key != "seconds"), "")
        if name:
            self.recent.append(row[name])
        now = time.monotonic()
        rate = (step - self.start) / max(1e-9, now - self.began)
        left = clock((self.steps - step) / rate) if rate > 0 else "?"
        shown = f"{name} {sum(self.recent) / len(self.recent):.4g}" if self.recent else ""
        if self.bar:
            self.bar.update(self.task, completed=step, told=f"{pace(rate)}  {left} left  [cyan]{shown}[/]")
        elif now - self.said >= EVERY or step == self.steps:
            self.said = now
            self.console.print(
                f"step {step}/{self.steps}  {pace(rate)}  {left} left  {shown}", highlight=False, soft_wrap=True
            )
