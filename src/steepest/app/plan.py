"""What a run is: names and options, as JSON, from which a system and its problem are built again."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from .names import find_claim, find_problem, find_system, problem_name
from .options import coerce, plain, types_of
from .parts import kind_of
from .parts import spoken as said

RUN, CHECKPOINTS, METRICS, EVALUATION = "run.json", "checkpoints", "metrics.jsonl", "evaluation.json"  # in a run's folder


@dataclass(frozen=True)
class Plan:
    """All that decides a run. `claimed`: what the claim sets and no flag can say (a function in a slot) is taken from it."""

    system: str
    options: dict[str, Any]
    problem: str
    problem_options: dict[str, Any]
    claimed: bool
    seed: int
    steps: int
    every_save: int | None
    tracker: tuple[str, ...]
    threads: int
    device: str
    figure: str
    started: int  # seconds of the clock: names the run for trackers
    command: tuple[str, ...]

    def make(self) -> tuple[Any, Any]:
        """The system and the problem. Raises before any work where an option is wrong."""
        system, problem = makers(self.system, self.problem, self.claimed)
        return system(**coerce(system, self.options)), problem(**coerce(problem, spoken(self.options, self.problem_options)))

    def begin(self) -> tuple[Any, Any, Any]:
        """System, problem and the State before the first step. Raises ValueError where they do not fit."""
        import torch

        from ..core.system import begin

        usable(self.device)
        system, problem = self.make()
        torch.set_num_threads(self.threads)
        try:
            return system, problem, begin(system, problem, seed=self.seed, device=self.device)
        except TypeError as error:
            raise ValueError(f"{self.system} on {self.problem}: {error}") from error

    def json(self) -> dict[str, Any]:
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def read(cls, notes: dict[str, Any], where: Path) -> Plan:
        """From `run.json` or a checkpoint's notes."""
        names = [f.name for f in dataclasses.fields(cls)]
        absent = [name for name in names if name not in notes]
        if absent:
            raise ValueError(
                f"{where} does not say {', '.join(absent)}: `steepest train` did not write it. Build its system yourself and "
                "call steepest.core.save.restore"
            )
        given: dict[str, Any] = {name: tuple(notes[name]) if isinstance(notes[name], list) else notes[name] for name in names}
        return cls(**given)


def usable(device: str) -> None:
    """Raises ValueError where torch cannot work on it."""
    import torch

    try:
        torch.empty(0, device=torch.device(device))
    except (RuntimeError, AssertionError) as error:
        here = ["cpu", *(["cuda"] if torch.cuda.is_available() else []), *(["mps"] if torch.backends.mps.is_available() else [])]
        why = str(error).splitlines()[0]
        raise ValueError(f"device {device!r} cannot be used here ({why}): choose of {', '.join(here)}") from error


def makers(system: str, problem: str, claimed: bool) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """What builds both from plain options."""
    claim = find_claim(system) if claimed else None
    builders = find_system(system), find_problem(problem)
    if claim is None:
        return builders
    made = [partial(f, **kept) if (kept := slots(p)) else f for f, p in zip(builders, (claim.ours, claim.problem), strict=True)]
    return made[0], made[1]


def spoken(system: dict[str, Any], problem: dict[str, Any]) -> dict[str, Any]:
    """The problem's options; a `tokenizer_name` that is not set is that of the weights which the system takes as its `model`."""
    model = system.get("model")
    if model is not None and "(" in model:  # hf(path='...', lora=8)
        model = said(model)[1].get("path")
    if problem.get("tokenizer_name", model) is None and model is not None and not model.endswith(".json"):
        return {**problem, "tokenizer_name": model}
    return problem


def slots(made: partial[Any]) -> dict[str, Any]:
    """What a claim sets that no flag can say."""
    hints = types_of(made.func)

    def unsaid(name: str, value: Any) -> bool:
        hint = hints.get(name)
        return not plain(hint) or (kind_of(hint) is not None and not isinstance(value, (str, type(None))))

    return {name: value for name, value in made.keywords.items() if name != "id" and unsaid(name, value)}


def usual_problem(claim: Any) -> str | None:
    """The name of a claim's problem."""
    return problem_name(claim.problem) if claim else None


# ------------------------------------------------------------------------------------ folders of runs


def fresh_folder(plan: Plan) -> Path:
    """runs/SYSTEM-PROBLEM-SEED, with -2, -3, ... where that is taken."""
    name = f"{plan.system}-{plan.problem}-{plan.seed}".replace("/", "_").replace(":", "_")
    folder, number = Path("runs") / name, 1
    while folder.exists():
        number += 1
        folder = Path("runs") / f"{name}-{number}"
    return folder


def find_run(folder: Path) -> tuple[Plan, Path | None, Path | None]:
    """The plan, the run's folder and the checkpoint of what a user named: a run or one of its checkpoints."""
    from ..core.save import NOTES, latest, read_notes

    if (folder / RUN).is_file():
        try:
            notes = json.loads((folder / RUN).read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{folder / RUN} is no JSON ({error}): resume one of {folder / CHECKPOINTS} instead") from error
        return Plan.read(notes, folder / RUN), folder, latest(folder / CHECKPOINTS)
    if (folder / NOTES).is_file():
        run = folder.resolve().parent.parent
        return Plan.read(read_notes(folder), folder / NOTES), run if (run / RUN).is_file() else None, folder
    below = sorted(path.parent for path in folder.glob(f"*/{RUN}")) if folder.is_dir() else []
    hint = f"; below it are {', '.join(map(str, below[:5]))}" if below else ""
    there = "is no run and no checkpoint" if folder.exists() else "does not exist"
    raise ValueError(f"{folder} {there}{hint}: give the folder that `steepest train` named")


def write(path: Path, page: dict[str, Any]) -> None:
    """A JSON file, whole or not at all."""
    write_text(path, json.dumps(page, indent=1, ensure_ascii=False))


def write_text(path: Path, text: str) -> None:
    """A file, whole or not at all."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with open(draft, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, path)


@contextmanager
def alone(out: Path) -> Iterator[None]:
    """Hold a run's folder: two processes that train in it would take each other's checkpoints away. Ends with the process."""
    try:
        import fcntl
    except ImportError:  # not on this system
        yield
        return
    with open(out / ".lock", "a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            said = f"process {file.read() or '?'} is training in {out}: wait for it, or end it, or use another --out"
            raise ValueError(said) from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def now() -> int:
    return int(time.time())
