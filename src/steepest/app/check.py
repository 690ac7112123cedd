"""steepest check: the laws that every system obeys, run on one."""

from __future__ import annotations

import importlib
import json as js
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.markup import escape

from .compare import build_problem, build_system
from .names import find_claim
from .reproduce import locate


@dataclass(frozen=True)
class Part:
    """A part of a claim, built anew at each call: what `check_system` rebuilds in a fresh process."""

    module: str
    part: str

    def __call__(self) -> Any:
        return getattr(importlib.import_module(self.module).claim, self.part)()


@dataclass(frozen=True)
class Named:
    """A problem of the command line, built anew at each call."""

    text: str

    def __call__(self) -> Any:
        return build_problem(self.text)


@dataclass(frozen=True)
class Spoken:
    """A system of the command line, likewise: its parts may be closures, which no process can hand to another."""

    text: str

    def __call__(self) -> Any:
        return build_system(self.text)()


@dataclass(frozen=True)
class Check:
    """Determinism, complete state and bitwise resume of a system, on its claim's problem or another.

    name     the system, as `steepest list` names it; with options: 'grpo(lr=2e-4)'
    problem  a problem, e.g. AddCliff or 'AddCliff(width=6)'; default: the claim's, with the claim's options
    half     steps before and after the checkpoint
    json     print JSON
    """

    name: str
    problem: str | None = None
    half: int = 2
    json: bool = False

    def run(self) -> int:
        if self.half < 1:
            raise ValueError(f"half must be at least 1 step, not {self.half}")
        if self.problem is None:
            try:
                module = locate(self.name)[0]
                if "." not in self.name and find_claim(self.name) is None:
                    raise ValueError(f"the claim of {self.name} trains other systems")
            except ValueError as error:
                raise ValueError(f"{error}. With --problem any system can be checked on any problem that it fits") from error
            make, problem = Part(module, "ours"), Part(module, "problem")
        else:
            build_system(self.name)  # wrong options fail here
            make, problem = Spoken(self.name), Named(self.problem)  # type: ignore[assignment]
        from ..core import Control, Language
        from ..core.check import Failed, check_problem, check_system

        console = Console(stderr=self.json)
        report: dict[str, Any] = {"system": self.name, "laws": [], "failed": None}
        try:
            with console.status(f"checking {self.name}"):
                target = problem()
                if isinstance(target, (Language, Control)):
                    report["laws"] += [f"problem: {law}" for law in check_problem(target)]
                report["laws"] += [f"system: {law}" for law in check_system(make, problem, half=self.half)]
        except Failed as failed:
            report["failed"] = str(failed)
        if self.json:
            print(js.dumps(report))
        for law in report["laws"]:
            console.print(f"[green]holds[/]  {escape(law)}", highlight=False)
        if report["failed"]:
            console.print(f"[bold red]fails[/]  {escape(report['failed'])}", highlight=False)
        return 1 if report["failed"] else 0
