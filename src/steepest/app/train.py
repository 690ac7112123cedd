"""steepest train and steepest resume: a run that can be watched, stopped at any moment and gone on with."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from .names import all_systems, find_claim, find_problem, find_system
from .options import REQUIRED, fields_of, options_of, parse, to_json
from .plan import CHECKPOINTS, RUN, Plan, alone, find_run, fresh_folder, now, usual_problem, write

USUAL_STEPS = 100


# ------------------------------------------------------------------------------------ commands


@dataclass(frozen=True)
class Train:
    """Train a system on a problem.

    problem     one of the library's own or any Gymnasium id
    steps       training steps
    seed        of everything random
    out         folder of the run, new; default: runs/SYSTEM-PROBLEM-SEED
    device      cpu, cuda, cuda:1, mps
    threads     of the CPU; default: 1, and where `--model` brings a network as torch chooses
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
            what = "Train a system on a problem. `steepest train NAME --help` shows the system's and the problem's options too."
            claims = "; default: that of the system's claim"
            general = [dataclasses.replace(o, help=o.help + claims * (o.name == "problem")) for o in general]
            parse(general, args or ["--help"], prog=f"{prog} NAME", description=what)
            raise ValueError("no system is named: steepest train NAME; `steepest list` names all of them")
        system, claim = find_system(name), find_claim(name)
        usual = usual_problem(claim)
        problem = said_problem(args) or usual
        if problem is None and "--help" not in args and "-h" not in args:
            raise ValueError(f"{name} has no claim that says what to train it on: add --problem")
        make = find_problem(problem) if problem else None
        claimed = claim is not None and make is not None and same_maker(make, claim.problem)
        given = (claim.ours.keywords, claim.problem.keywords) if claim is not None and claimed else ({}, {})
        defaults = {"problem": problem or REQUIRED, "steps": claim.steps if claim is not None and claimed else USUAL_STEPS}
        general = [dataclasses.replace(option, default=defaults.get(option.name, option.default)) for option in general]
        options = [*general, *options_of(system, name, given[0])]
        if make is not None:
            options += options_of(make, str(problem), given[1])
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
            figure=claim.figure if claim is not None and same_kind(make, claim.problem) else "score",
            started=now(), command=("steepest", "train", *args),
        )  # fmt: skip
        return cls(plan, **run)

    def run(self) -> int:
        for name, number in (("steps", self.steps), ("every-save", self.every_save), ("threads", self.threads)):
            if number is not None and number < 1:
                raise ValueError(f"--{name} is at least 1, not {number}")
        if self.out is not None and (self.out / RUN).exists():
            raise ValueError(f"{self.out} holds a run: `steepest resume {self.out}` goes on with it; or choose another --out")
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


def same_kind(make: Any, claimed: Any) -> bool:
    """Whether both are environments, or both texts: the figure that tells of one then tells of the other."""
    from ..core.problem import Control, Language

    a, b = getattr(make, "func", make), claimed.func
    of = [x for x in (a, b) if isinstance(x, type)]  # what a function makes is not known before it is called
    return a is b or (len(of) == 2 and any(issubclass(a, kind) and issubclass(b, kind) for kind in (Control, Language)))


def newest(out: Path) -> Path | None:
    from ..core.save import latest

    return latest(out / CHECKPOINTS)


# ------------------------------------------------------------------------------------ a run


def go(plan: Plan, out: Path | None, checkpoint: Path | None, json: bool) -> int:
    """Build, restore, train, save, tell. -> exit status"""
    import torch

    from ..core.save import restore
    from .session import Session, finished
    from .tracking import trackers

    console = Console(stderr=json)
    usual = torch.get_num_threads() if plan.options.get("model") else 1  # two threads on a small network wait for each other
    plan = dataclasses.replace(plan, threads=plan.threads or usual)
    open_trackers = trackers(plan.tracker)
    with console.status(f"building {plan.system} on {plan.problem}"):
        system, problem, state = plan.begin()
        if checkpoint is not None:
            restore(state, checkpoint, plan.json())
    if state.step > plan.steps or (state.step == plan.steps and (out is None or finished(out, plan.steps))):
        raise ValueError(f"{checkpoint} is at step {state.step} of {plan.steps}: --steps N goes on to a later one")
    out = out or fresh_folder(plan)
    out.mkdir(parents=True, exist_ok=True)
    with alone(out):
        write(out / RUN, plan.json())
        session = Session(plan, system, problem, state, out, console)
        session.announce()
        return session.run(open_trackers, json)
