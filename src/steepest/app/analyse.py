"""steepest analyse: run an analysis, watch it, and write down what it finds."""

from __future__ import annotations

import statistics
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .reproduce import locate, put_down, watched

# Okabe and Ito's, which the colour-blind tell apart
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8a8f98", "#000000")
MARKS = "osD^vPX"  # of other number than the colours, so that no pair comes twice soon


@dataclass(frozen=True)
class Analyse:
    """Run the analysis of a system: every treatment on every seed, what was measured, and how two of the numbers hang together.

    name     the system, as `steepest list` names it; or the module of an analysis of your own, e.g. my.studies.forgetting
    seeds    runs of each treatment, seeds 0, 1, ...; default: what the analysis says
    workers  processes, each with one thread; default: one for each core
    out      folder of the record and the picture; default: beside the analysis in a checkout, else ./evidence
    json     print the record
    """

    name: str
    seeds: int | None = None
    workers: int | None = None
    out: Path | None = None
    json: bool = False

    def run(self) -> int:
        module, family, slug = locate(self.name, "analysis")
        from ..evidence.analysis import analyse, find
        from ..evidence.run import folder

        analysis = find(module)
        console = Console(stderr=self.json)
        console.print(f"[bold]{slug}[/]: {escape(analysis.asks)}")
        total = len(analysis.treatments) * (self.seeds or analysis.seeds)
        with watched(f"{slug}: runs", total, console) as tell:
            findings = analyse(module, self.seeds, self.workers, tell)
        put_down(findings, self.out or folder(family), f"{slug}.analysis", draw, tabulate, console)
        if self.json:
            print(findings.json(), end="")
        return 0


def numbers(record: dict[str, Any]) -> list[str]:
    """The names of what was measured."""
    return [name for name in record["rows"][0] if name not in ("treatment", "seed")]


def of(record: dict[str, Any], treatment: str, name: str) -> list[float]:
    """One number of one treatment, over its seeds."""
    return [row[name] for row in record["rows"] if row["treatment"] == treatment]


def tabulate(record: dict[str, Any], console: Console) -> None:
    """Mean and standard deviation over seeds of what was measured of each treatment, and the fit. The longer list goes down."""
    names, told = [one["name"] for one in record["treatments"]], numbers(record)
    down, across = (names, told) if len(told) <= len(names) else (told, names)
    table = Table("treatment" if down is names else "", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in across:
        table.add_column(escape(name), justify="right")
    for row in down:
        cells = []
        for column in across:
            values = of(record, row, column) if down is names else of(record, column, row)
            spread = f" [dim]± {statistics.stdev(values):.2g}[/]" if len(values) > 1 else ""
            cells.append(f"{statistics.fmean(values):.4g}{spread}")
        table.add_row(escape(row), *cells)
    console.print(table)
    console.print(f"mean ± standard deviation over {len(record['seeds'])} seed(s)", style="dim", highlight=False)
    fit = record["fit"]
    if fit:
        console.print(
            f"{escape(fit['y'])} over {escape(fit['x'])}, a polynomial of degree {fit['degree']}: "
            f"[bold]R² {fit['r2']:.3f}[/] over {len(record['rows'])} runs",
            highlight=False,
        )
    if record["finds"]:
        console.print(escape(record["finds"]))
    console.print(f"{record['seconds']:.0f} CPU seconds, {record['wall']:.0f} s", style="dim", highlight=False)


def draw(record: dict[str, Any], path: Path) -> None:
    """The fitted numbers of every run against each other; without a fit, each number by treatment."""
    from matplotlib.figure import Figure

    names = [one["name"] for one in record["treatments"]]
    fit, told = record["fit"], numbers(record)
    across, down = min(4, len(told)), -(-len(told) // 4)
    figure = Figure(figsize=(9.5, 4.2) if fit else (3.2 * across + 1, 3.6 * down), layout="constrained")
    if fit:
        axes = [figure.subplots()]
        for n, name in enumerate(names):
            x, y = (of(record, name, fit[axis]) for axis in "xy")
            axes[0].scatter(x, y, s=26, color=COLOURS[n % 8], marker=MARKS[n % len(MARKS)], alpha=0.8, label=name)
        low, high = (end(row[fit["x"]] for row in record["rows"]) for end in (min, max))
        along = [low + (high - low) * n / 200 for n in range(201)]
        curve = [sum(c * at**power for power, c in enumerate(reversed(fit["coefficients"]))) for at in along]
        axes[0].plot(along, curve, color="#8a8f98", lw=1.2, zorder=0, label=f"degree {fit['degree']}, R² {fit['r2']:.2f}")
        axes[0].set_xlabel(textwrap.fill(fit["x"], 70))
        axes[0].set_ylabel(textwrap.fill(fit["y"], 46))
        figure.legend(loc="outside right upper", frameon=False, fontsize=8)
    else:
        axes = list(figure.subplots(down, across, squeeze=False).flat)
        for ax, name in zip(axes, told, strict=False):
            for n, one in enumerate(names):
                values = of(record, one, name)
                ax.scatter([n] * len(values), values, color=COLOURS[n % 8], s=14, alpha=0.5)
                ax.plot([n - 0.25, n + 0.25], [statistics.fmean(values)] * 2, color=COLOURS[n % 8], lw=2)
            ax.set_xticks(range(len(names)), [textwrap.fill(one, 14) for one in names], rotation=90, fontsize=7)
            ax.set_title(textwrap.fill(name, 34), fontsize=9)
        for ax in axes[len(told) :]:
            ax.remove()
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(alpha=0.25, axis="y")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=140)
