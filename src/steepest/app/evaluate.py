"""steepest evaluate: how good a trained policy is."""

from __future__ import annotations

import json as js
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from . import film
from .plan import find_run


@dataclass(frozen=True)
class Evaluate:
    """Let a run's policy be judged by its problem.

    folder   the run, or a checkpoint of it
    repeats  evaluations, each with draws of its own
    seed     of those draws; default: the run's
    video    a film of the first episode, .mp4 or .gif; `steepest watch` films more of them
    json     print JSON
    """

    folder: Path
    repeats: int = 1
    seed: int | None = None
    video: Path | None = None
    json: bool = False

    def run(self) -> int:
        if self.repeats < 1:
            raise ValueError(f"repeats is at least 1, not {self.repeats}")
        if self.video is not None:
            film.check(self.video)
        plan, _, checkpoint = find_run(self.folder)
        if checkpoint is None:
            raise ValueError(f"{self.folder} has no checkpoint yet: `steepest resume {self.folder}` goes on until there is one")
        from ..core.save import restore
        from ..core.stream import Stream
        from .session import answers

        if self.video is not None:
            from .pictures import check

            check(plan.make()[1])
        console = Console(stderr=self.json)
        seed = plan.seed if self.seed is None else self.seed
        with console.status(f"evaluating {plan.system} on {plan.problem}"):
            _, problem, state = plan.begin()
            restore(state, checkpoint, plan.json())
            first = Stream(seed, "evaluate")  # what `train` evaluates with
            told = [judge(problem, state, first / k if k else first) for k in range(self.repeats)]
            shown = samples(problem, state, seed)
        if not told[0]:
            raise ValueError(f"{plan.system} keeps no `policy` in State, so {plan.problem} cannot judge it")
        if self.video is not None:
            from .watch import shoot

            shoot(problem, state, first, self.video, 1, True, console)
        summary = {name: [row[name] for row in told] for name in told[0]}
        if self.json:
            page = {"checkpoint": str(checkpoint), "step": state.step, "system": plan.system, "problem": plan.problem, "seed": seed}
            page |= {"video": str(self.video)} if self.video is not None else {}
            print(js.dumps({**page, "evaluation": {k: statistics.fmean(v) for k, v in summary.items()}, "repeats": told}))
            return 0
        title = f"{plan.system} on {plan.problem}, step {state.step}"
        table = Table("", "mean", "std", title=escape(title), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
        for name, values in summary.items():
            spread = f"{statistics.stdev(values):.2g}" if self.repeats > 1 else ""
            table.add_row(escape(name), f"{statistics.fmean(values):.4g}", spread)
        console.print(table)
        if self.video is not None:
            console.print(f"[bold]film[/] {escape(str(self.video))}", highlight=False, soft_wrap=True)
        if shown:
            console.print(answers(shown))
        return 0


def judge(problem: Any, state: Any, rng: Any) -> dict[str, float]:
    """The problem's figures; none where the system keeps no policy."""
    import torch

    if getattr(state, "policy", None) is None:
        return {}
    with torch.no_grad():
        return {name: float(x) for name, x in problem.evaluate(state.policy, rng).items()}


def samples(problem: Any, state: Any, seed: int, count: int = 3) -> list[dict[str, Any]]:
    """Answers with their verdict, where the problem has ``examples(policy, rng, count)``: a dict each, of one set of keys."""
    import torch

    from ..core.stream import Stream

    if not hasattr(problem, "examples") or getattr(state, "policy", None) is None:
        return []
    with torch.no_grad():
        return [dict(row) for row in problem.examples(state.policy, Stream(seed, "examples"), count)]
