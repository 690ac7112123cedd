"""The page `losses`: what the cells in docs/losses say."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from steepest.app import losses

CELLS = Path(__file__).parent / "losses"
SAID = {
    "text": "Tokens: sums of 3 to 6 digits, the share of right sampled answers on fresh prompts.",
    "control": "Actions: the mean return of greedy episodes, 500 at most.",
    "denoising": "Denoising steps of a diffusion policy that was cloned from demonstrations: the share of episodes at a goal.",
}


def build(plain: Any, cells: Path = CELLS) -> str:
    """The settings, the table, and the command of each cell."""
    found = {(loss, kind.name): losses.read(cells, loss, kind.name) for loss in losses.candidates() for kind in losses.KINDS}
    return "\n\n".join([settings(plain), table(found), faults(found, plain), commands()])


def settings(plain: Any) -> str:
    rows = ["| decision | system | problem | training steps | options |", "|---|---|---|---|---|"]
    for kind in losses.KINDS:
        options = ", ".join(f"{name} {x:g}" for name, x in kind.options)
        rows.append(f"| {kind.name} | `{kind.system}` | `{kind.problem}` | {kind.steps} | {plain(options)} |")
    return "\n".join([*rows, "", *(f"* {kind.name}: {SAID[kind.name]}" for kind in losses.KINDS)])


def table(found: dict[tuple[str, str], dict[str, Any] | None]) -> str:
    """Each loss with what its seeds reached; below, what they began from."""
    heads = [f"{kind.name}: {kind.figure}" for kind in losses.KINDS]
    rows = [f"| loss | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    rows += [
        f"| `{loss}` | {' | '.join(entry(found[loss, kind.name], 'after') for kind in losses.KINDS)} |"
        for loss in losses.candidates()
    ]
    first = [next((cell for (_, k), cell in found.items() if k == kind.name and cell), None) for kind in losses.KINDS]
    return "\n".join([*rows, f"| before training | {' | '.join(entry(cell, 'before') for cell in first)} |"])


def entry(cell: dict[str, Any] | None, name: str) -> str:
    """The seeds' figures, their mean first."""
    if cell is None:
        return "not run"
    if cell["fault"]:
        return "failed"
    values = cell[name]
    return f"{sum(values) / len(values):.3g} ({', '.join(f'{x:.3g}' for x in values)})"


def faults(found: dict[tuple[str, str], dict[str, Any] | None], plain: Any) -> str:
    told = [f"* `{loss}` on {kind}: {plain(cell['fault'])}" for (loss, kind), cell in found.items() if cell and cell["fault"]]
    missing = [f"`{loss}` on {kind}" for (loss, kind), cell in found.items() if cell is None]
    seconds = sum(sum(cell["seconds"]) for cell in found.values() if cell)
    ran = f"All runs of the table took {seconds:.0f} CPU seconds on one thread, without what comes before training."
    return "\n\n".join([ran, *told, *([f"Not run yet: {', '.join(missing)}."] if missing else [])])


def commands() -> str:
    """How to run a cell again, and the plain training run that its seed 0 is."""
    lines = []
    for kind in losses.KINDS:
        words = ["steepest", "train", kind.system, "--loss", "NAME", "--problem", kind.problem, "--steps", str(kind.steps)]
        for option, x in kind.options:
            words += ["--" + option.replace("_", "-"), str(x)]
        lines.append(shlex.join([*words, "--seed", "0"]))
    again = "A cell again, all its seeds:\n\n```text\nsteepest losses --losses NAME --kinds KIND --again\n```"
    return again + "\n\nSeed 0 of a cell as a run of its own:\n\n```text\n" + "\n".join(lines) + "\n```"
