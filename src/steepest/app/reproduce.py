"""steepest reproduce: run a claim, watch it, and write down what it says."""

from __future__ import annotations

import dataclasses
import statistics
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from . import catalog

Draw = Callable[[dict[str, Any], Path], None]
Tabulate = Callable[[dict[str, Any], Console], None]
OURS, THEIRS, QUIET = "#0072b2", "#d55e00", "#8a8f98"


@dataclass(frozen=True)
class Reproduce:
    """Run the claim of a system: ours and the baseline on every seed, the paired gap, its interval, a verdict.

    name     the system, as `steepest list` names it; or the module of a claim of your own, e.g. my.claims.bapo
    seeds    paired runs, seeds 0, 1, ...; default: what the claim says
    workers  processes, each with one thread; default: one for each core
    out      folder of the record and the picture; default: beside the claim in a checkout, else ./evidence
    json     print the record
    """

    name: str
    seeds: int | None = None
    workers: int | None = None
    out: Path | None = None
    json: bool = False

    def run(self) -> int:
        module, family, slug = locate(self.name)
        from ..evidence.run import find, folder, reproduce

        claim = find(module)
        console = Console(stderr=self.json)
        console.print(f"[bold]{slug}[/]: {escape(claim.says)}")
        total = 2 * (self.seeds or claim.seeds)
        with watched(f"{slug}: runs", total, console) as tell:
            outcome = reproduce(module, self.seeds, self.workers, tell)
        put_down(outcome, self.out or folder(family), slug, draw, tabulate, console)
        if self.json:
            print(outcome.json(), end="")
        return 0


def locate(name: str, what: str = "claim") -> tuple[str, str, str]:
    """The module of a claim, or of an analysis, its family and its slug; raises ValueError where there is none."""
    if "." in name:
        return name, "", name.split(".")[-1]
    entry = catalog.find(name)
    if entry.state == "planned":
        raise ValueError(
            f"{name} ({entry.title}) is planned and has no file yet. `steepest list --state built` names what can be run"
        )
    if not entry.holds(what):
        raise ValueError(f"{name} has no {what}: it is a {entry.kind}. It would stand in {entry.claim}")
    return f"steepest.evidence.{entry.family}.{entry.slug}", entry.family, entry.slug


@contextmanager
def watched(title: str, total: int, console: Console) -> Iterator[Callable[[Any], None]]:
    """A bar for all runs and one for each that is running; yields what takes their Progress."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.fields[figure]}"), console=console, transient=True) as bars:
        whole = bars.add_task(title, total=total, figure="")
        running: dict[Any, Any] = {}
        share: dict[Any, float] = {}

        def tell(said: Any) -> None:
            if said.job not in running:
                running[said.job] = bars.add_task(f"  {said.job}", total=said.steps, figure="")
            done, share[said.job] = said.step == said.steps, said.step / said.steps
            figure = "" if said.figure is None else f"{said.figure:.4g}"
            bars.update(running[said.job], completed=said.step, figure=figure, visible=not done)
            bars.update(whole, completed=round(sum(share.values()), 1))

        yield tell


def put_down(said: Any, out: Path, name: str, draw: Draw, tabulate: Tabulate, console: Console) -> None:
    """Write the record of an outcome or of findings and its picture, then show it as a table."""
    from ..evidence.run import write

    record, picture, fields = out / f"{name}.json", out / f"{name}.png", dataclasses.asdict(said)
    write(said, record)
    draw(fields, picture)
    tabulate(fields, console)
    console.print(f"record  {record}\npicture {picture}", highlight=False, soft_wrap=True)


def names(record: dict[str, Any]) -> tuple[str, str]:
    """What to call ours and the baseline: the systems, or the arms where both are one system with other options."""
    ours, baseline = (record[arm]["system"].split(".")[-1] for arm in ("ours", "baseline"))
    return (ours, baseline) if ours != baseline else (f"{ours} (ours)", f"{baseline} (baseline)")


def tabulate(record: dict[str, Any], console: Console) -> None:
    """Values of both arms by seed, the gap and the verdict."""
    table = Table(
        "seed", *names(record), "gap", box=box.SIMPLE_HEAD, pad_edge=False, title=escape(record["unit"]), title_justify="left"
    )
    rows = zip(record["seeds"], record["ours"]["values"], record["baseline"]["values"], record["gaps"], strict=True)
    for seed, a, b, gap in rows:
        table.add_row(str(seed), f"{a:.4g}", f"{b:.4g}", f"{gap:+.4g}")
    table.add_section()
    means = (statistics.fmean(record[arm]["values"]) for arm in ("ours", "baseline"))
    table.add_row("mean", *(f"{x:.4g}" for x in means), f"[bold]{record['gap']:+.4g}[/]")
    console.print(table)
    colour = "green" if record["verdict"] == "shown" else "yellow"
    above = f" against a margin of {record['margin']:.4g}" if record["margin"] else ""
    console.print(
        f"gap {record['gap']:+.4g}, 95 % interval [{record['low']:+.4g}, {record['high']:+.4g}]{above}: "
        f"[bold {colour}]{record['verdict']}[/]   ({record['seconds']:.0f} CPU seconds, {record['wall']:.0f} s)",
        highlight=False,
    )
    if record["why"]:
        console.print(escape(record["why"]))


def draw(record: dict[str, Any], path: Path) -> None:
    """Paired values, and learning curves where both arms have them."""
    from matplotlib.figure import Figure

    arms = [("ours", OURS), ("baseline", THEIRS)]
    curves = all(record[arm]["curve_steps"] for arm, _ in arms)
    figure = Figure(figsize=(9 if curves else 4.5, 3.6), layout="constrained")
    axes = figure.subplots(1, 2 if curves else 1, squeeze=False, width_ratios=[1, 1.6] if curves else [1])[0]
    labels = names(record)
    for a, b in zip(record["ours"]["values"], record["baseline"]["values"], strict=True):
        axes[0].plot([0, 1], [b, a], color=QUIET, lw=1, zorder=1)
    for x, (arm, colour) in zip((1, 0), arms, strict=True):
        values = record[arm]["values"]
        axes[0].scatter([x] * len(values), values, color=colour, zorder=2)
    axes[0].set_xticks([0, 1], [label.replace(" ", "\n") for label in labels[::-1]])
    axes[0].set_xlim(-0.4, 1.4)
    axes[0].set_ylabel(textwrap.fill(record["unit"], 36))
    axes[0].set_title(f"{record['verdict']}: {record['gap']:+.3g} [{record['low']:+.3g}, {record['high']:+.3g}]", fontsize=10)
    if curves:
        for (arm, colour), name in zip(arms, labels, strict=True):
            steps, lines = (
                record[arm]["curve_steps"],
                [[float("nan") if y is None else y for y in c] for c in record[arm]["curves"]],
            )
            for line in lines:
                axes[1].plot(steps, line, color=colour, alpha=0.25, lw=0.8)
            axes[1].plot(steps, [statistics.fmean(column) for column in zip(*lines, strict=True)], color=colour, lw=2, label=name)
        axes[1].set_xlabel("step")
        axes[1].set_ylabel(record["figure"])
        axes[1].legend(frameon=False)
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(alpha=0.25, axis="y")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=140)
