"""steepest report: one HTML page with everything in it, for runs, claims and comparisons."""

from __future__ import annotations

import json as js
import math
import platform
import re
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from rich.console import Console

from .. import __version__
from .drawing import Line, chart, intervals, number, pairs
from .page import STYLE
from .plan import write_text
from .reproduce import names

MAIN = 6  # charts that stand open; the others are one click away


@dataclass(frozen=True)
class Report:
    """Write one self-contained HTML page about runs, claims and comparisons.

    folders  folders of runs, of evidence or of comparisons, or folders of such folders; or their JSON files
    out      the page
    title    its heading
    json     print what was found as JSON
    """

    folders: tuple[Path, ...]
    out: Path = Path("report.html")
    title: str = "steepest report"
    json: bool = False

    def run(self) -> int:
        found = gather(self.folders)
        self.out.parent.mkdir(parents=True, exist_ok=True)
        write_text(self.out, page(found, self.title))
        counts = {"runs": len(found.runs), "claims": len(found.claims), "comparisons": len(found.comparisons)}
        if self.json:
            print(js.dumps({"page": str(self.out), **counts}))
        else:
            Console().print(
                f"{self.out}: " + ", ".join(f"{n} {what}" for what, n in counts.items() if n), highlight=False, soft_wrap=True
            )
        return 0


# ------------------------------------------------------------------------------------ reading


@dataclass(frozen=True)
class RunFolder:
    """A training run: its rows of metrics, what was asked for, where it ran, and what its problem said before and after."""

    path: Path
    rows: list[dict[str, Any]]
    config: dict[str, Any]
    environment: dict[str, Any] = field(default_factory=dict)
    evaluation: dict[str, dict[str, float]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def metrics(self) -> list[str]:
        """Names of the numbers: the figure that matters, then as they first appeared, and last those that never changed."""
        seen = dict.fromkeys(
            k for row in self.rows for k, v in row.items() if isinstance(v, (int, float)) and k not in ("step", "seconds")
        )
        figure = self.config.get("figure", "score")
        return sorted(seen, key=lambda k: (len(set(self.curve(k)[1])) < 2, k != figure))

    def curve(self, metric: str) -> tuple[list[float], list[float]]:
        points = [(row["step"], row[metric]) for row in self.rows if isinstance(row.get(metric), (int, float))]
        return [x for x, _ in points], [float(y) for _, y in points]


@dataclass(frozen=True)
class Found:
    runs: list[RunFolder] = field(default_factory=list)
    claims: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    comparisons: list[dict[str, Any]] = field(default_factory=list)


def gather(paths: Sequence[Path]) -> Found:
    """All runs, claims and comparisons in or below `paths`; raises ValueError where a path holds none."""
    found = Found()
    for path in paths:
        before = len(found.runs) + len(found.claims) + len(found.comparisons)
        if not path.exists():
            raise ValueError(
                f"{path} does not exist: give the folder that `steepest train` or `steepest reproduce` named at its end"
            )
        for file in [path] if path.is_file() else sorted(path.rglob("*")):
            if file.name == "metrics.jsonl":
                found.runs.append(read_run(file))
            elif file.suffix == ".json":
                record = read_json(file)
                if {"verdict", "gaps", "ours"} <= record.keys():
                    found.claims.append((file.stem, record))
                elif {"systems", "summary"} <= record.keys():
                    found.comparisons.append(record)
        if before == len(found.runs) + len(found.claims) + len(found.comparisons):
            raise ValueError(f"{path} holds no metrics.jsonl, no claim's record and no compare.json: nothing to report")
    if not paths:
        raise ValueError("give one or more folders of runs, evidence or comparisons")
    return found


def read_metrics(file: Path) -> list[dict[str, Any]]:
    """Rows in the order of their steps; a resumed run's later row replaces an earlier one of that step."""
    rows: dict[int, dict[str, Any]] = {}
    lines = file.read_text(encoding="utf-8").split("\n")
    for k, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = js.loads(line)
            rows[row["step"]] = rows.get(row["step"], {}) | row
        except (ValueError, KeyError, TypeError) as error:
            if k == len(lines):  # the process died while it wrote its last line
                break
            raise ValueError(
                f"{file}, line {k} is no row of metrics ({error}): remove the line, or report another folder"
            ) from error
    return [rows[step] for step in sorted(rows)]


def read_json(file: Path) -> dict[str, Any]:
    """What the file holds; empty where it is not there or holds no object."""
    try:
        record = js.loads(file.read_text(encoding="utf-8"))
    except (ValueError, FileNotFoundError):
        return {}
    return record if isinstance(record, dict) else {}


def read_run(metrics: Path) -> RunFolder:
    """The run whose metrics these are; what it was asked for is in run.json, or else in the notes of its newest checkpoint."""
    folder = metrics.parent
    notes = sorted(folder.glob("checkpoints/*/steepest.json"), key=lambda path: path.stat().st_mtime)
    last = read_json(notes[-1]) if notes else {}
    config = read_json(folder / "run.json") or {k: v for k, v in last.items() if k not in ("format", "state", "metrics")}
    versions = {"steepest": last.get("version"), "torch": last.get("torch"), "saved": last.get("date")}
    machine = {name: config.pop(name, None) for name in ("device", "threads")}
    there = {name: value for name, value in {**versions, **machine}.items() if value is not None}
    return RunFolder(folder, read_metrics(metrics), config, there, read_json(folder / "evaluation.json"))


# ------------------------------------------------------------------------------------ writing


def page(found: Found, title: str) -> str:
    """The whole page. Its policy forbids every request, so that what it shows is in it."""
    body = "".join([*sections(found), environment()])
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}"><title>{escape(title)}</title><style>{STYLE}</style>'
    )
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body><main><h1>{escape(title)}</h1>{body}</main></body></html>\n'


def sections(found: Found) -> Iterator[str]:
    problems = dict.fromkeys(str(run.config.get("problem", "")) for run in found.runs)
    for problem in problems:  # metrics of different problems are not on one scale
        runs = [run for run in found.runs if str(run.config.get("problem", "")) == problem]
        head = f"Runs on {escape(problem)}" if problem else "Runs"
        yield f"<section><h2>{head}</h2>{summary(runs)}{curves(runs)}</section>"
    if found.claims:
        shown = sum(record["verdict"] == "shown" for _, record in found.claims)
        yield f"<section><h2>Claims</h2><p>{shown} of {len(found.claims)} shown.</p>{claim_table(found.claims)}</section>"
        yield from (claim_card(slug, record) for slug, record in found.claims)
    yield from map(comparison, found.comparisons)
    yield from (details_of_run(run, alone=len(found.runs) == 1) for run in found.runs)


def summary(runs: Sequence[RunFolder]) -> str:
    rows = []
    for k, run in enumerate(runs):
        last = run.rows[-1] if run.rows else {}
        at = f'<span class="key k{k % 8}">{escape(run.name)}</span>'
        system, seed = (escape(str(run.config.get(x, ""))) for x in ("system", "seed"))
        rows.append([at, *progress(run), number(last.get("step", 0)), duration(last.get("seconds")), seed, system])
    return table(["run", "figure", "before", "after", "steps", "time", "seed", "system"], rows)


def progress(run: RunFolder) -> tuple[str, str, str]:
    """The figure that matters, before and after: the problem's first, or else the first and the last of the run's own."""
    before, after = (run.evaluation.get(when, {}) for when in ("before", "after"))
    if after:
        name = next(iter(after))
        return escape(name), number(before[name]) if name in before else "", number(after[name])
    if run.metrics:
        ys = run.curve(run.metrics[0])[1]
        return f"{escape(run.metrics[0])}, training", number(ys[0]), number(ys[-1])
    return "nothing reported", "", ""


def curves(runs: Sequence[RunFolder]) -> str:
    order = list(dict.fromkeys(metric for run in runs for metric in run.metrics))
    charts = []
    for metric in order:
        lines = [Line(*run.curve(metric), run.name, k) for k, run in enumerate(runs) if metric in run.metrics]
        charts.append(chart(lines, metric))
    rest = f"<details><summary>{len(charts) - MAIN} more curves</summary>{grid(charts[MAIN:])}</details>"
    return grid(charts[:MAIN]) + (rest if len(charts) > MAIN else "")


def grid(charts: Sequence[str]) -> str:
    return f"<div class=charts>{''.join(charts)}</div>"


def details_of_run(run: RunFolder, alone: bool) -> str:
    """What was asked for and where; open where it is the only run."""
    fold = "<details open>" if alone else "<details>"
    before, after = (run.evaluation.get(when, {}) for when in ("before", "after"))
    rows = [[escape(k), number(before[k]) if k in before else "", number(after[k]) if k in after else ""] for k in before | after]
    judged = f"<h3>Evaluation</h3>{table(['figure', 'before', 'after'], rows)}" if rows else ""
    asked = options(run.config) if run.config else "<p class=quiet>The folder holds no configuration.</p>"
    where = f"{fold}<summary>Environment</summary>{options(run.environment)}</details>" if run.environment else ""
    return (
        f"<section><h2>{escape(run.name)}</h2><p class=quiet>{escape(str(run.path))}</p>{judged}"
        f"<h3>Run it again</h3><pre>{escape(again(run))}</pre>"
        f"{fold}<summary>Configuration</summary>{asked}</details>{where}</section>"
    )


def again(run: RunFolder) -> str:
    command = run.config.get("command")
    if isinstance(command, list):
        command = shlex.join(map(str, command))
    if not command:
        command = f"steepest train {run.config.get('system', 'NAME')}"
    return f"{command}\nsteepest resume {shlex.quote(str(run.path))}"


def claim_table(claims: Sequence[tuple[str, dict[str, Any]]]) -> str:
    rows = [
        [
            f'<a href="#{escape(slug)}">{escape(slug)}</a>',
            verdict(r),
            f"{r['gap']:+.4g}",
            span(r["low"], r["high"]),
            str(len(r["seeds"])),
            escape(r["unit"]),
        ]
        for slug, r in claims
    ]
    return table(["system", "verdict", "gap", "95 % interval", "seeds", "measured"], rows)


def claim_card(slug: str, record: dict[str, Any]) -> str:
    ours, baseline = record["ours"], record["baseline"]
    labels = names(record)
    drawn = [pairs(ours["values"], baseline["values"], labels, record["unit"])]
    lines = []
    for k, (arm, label) in enumerate(zip((ours, baseline), labels, strict=True)):
        broken = [[math.nan if y is None else y for y in curve] for curve in arm["curves"]]
        lines += [Line(arm["curve_steps"], curve, label, k, faint=True) for curve in broken]
        if broken:
            lines.append(Line(arm["curve_steps"], [sum(column) / len(column) for column in zip(*broken, strict=True)], label, k))
    if lines:
        drawn.append(chart(lines, f"{record['figure']}, mean over seeds"))
    values = zip(record["seeds"], ours["values"], baseline["values"], record["gaps"], strict=True)
    by_seed = table(["seed", *map(escape, labels), "gap"], [[str(s), f"{a:.4g}", f"{b:.4g}", f"{g:+.4g}"] for s, a, b, g in values])
    parts = {
        "problem": record["problem_options"],
        labels[0]: ours["options"],
        labels[1]: baseline["options"],
        "versions": record["versions"],
    }
    told = options({"problem is": record["problem"], **parts, "commit": record["commit"]})
    notes = "".join(
        f"<p><b>{what}</b> {escape(record[key])}</p>" for what, key in (("Why not.", "why"), ("Tried.", "tried")) if record[key]
    )
    return (
        f'<section id="{escape(slug)}"><h2>{escape(slug)} {verdict(record)}</h2><p>{escape(record["says"])}</p>'
        f"<p>Gap <b>{record['gap']:+.4g}</b>, 95 % interval {span(record['low'], record['high'])} "
        f"(bootstrap {span(*record['bootstrap'])}), "
        f"margin {record['margin']:g}; {record['seconds']:.0f} CPU seconds, {escape(record['date'][:10])}.</p>"
        f"{grid(drawn)}{by_seed}{notes}<h3>Run it again</h3>"
        f"<pre>steepest reproduce {escape(slug)}</pre>"
        f"<details><summary>Configuration and environment</summary>{told}</details></section>"
    )


def comparison(page: dict[str, Any]) -> str:
    rows, bars = [], page["summary"]
    for k, (name, row) in enumerate(bars.items()):
        iqm, better = row["iqm"], row.get("improvement")
        chance = f"{better['estimate']:.2f} {span(better['low'], better['high'])}" if better else ""
        rows.append([f'<span class="key k{k % 8}">{escape(name)}</span>', f"{iqm['estimate']:.4g} {span(iqm['low'], iqm['high'])}"])
        rows[-1] += [f"{row['mean']:.4g}", chance, duration(page["seconds"][name])]
    scale = "Scores are scaled by problem: 0 is the worst run, 1 the best. " if page["scaled"] else ""
    heads = ["system", "interquartile mean", "mean", f"P(better than {escape(page['systems'][0])})", "CPU time"]
    words = [
        "steepest",
        "compare",
        *page["systems"],
        "--problem",
        *page["problems"],
        "--seeds",
        str(len(page["seeds"])),
        "--steps",
        str(page["steps"]),
    ]
    told = options({**page["options"], "versions": page["versions"]})
    drawn = [(name, *row["iqm"].values(), [x for seed in row["scores"] for x in seed]) for name, row in bars.items()]
    return (
        f"<section><h2>{escape(' against '.join(page['systems']))}</h2><p>{scale}{escape(', '.join(page['figure']))} on "
        f"{escape(', '.join(page['problems']))}, {len(page['seeds'])} seeds, {page['steps']} steps, last evaluation.</p>"
        f"{table(heads, rows)}{intervals(drawn, 'interquartile mean, 95 % interval, runs')}"
        f"<h3>Run it again</h3><pre>{escape(shlex.join(words))}</pre>"
        f"<details><summary>Configuration and environment</summary>{told}</details></section>"
    )


def environment() -> str:
    told = f"steepest {__version__}, Python {platform.python_version()}, {platform.platform()}"
    return f"<footer>Written {time.strftime('%Y-%m-%d %H:%M %Z')} by {escape(told)}.</footer>"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Cells are HTML already; columns of numbers stand right."""
    right = [all(re.fullmatch(r"|[-+]?[\d.,]+(e[-+]?\d+)?|nan", row[k]) for row in rows) for k in range(len(heads))]
    style = [" class=right" if stands else "" for stands in right]
    head = "".join(f"<th{kind}>{h}</th>" for h, kind in zip(heads, style, strict=True))
    cells = ("".join(f"<td{kind}>{cell}</td>" for cell, kind in zip(row, style, strict=True)) for row in rows)
    body = "".join(f"<tr>{row}</tr>" for row in cells)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def options(tree: Mapping[str, Any]) -> str:
    """Names and values, in as many columns as there is room for."""
    told = "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in flattened(tree))
    return f"<dl>{told}</dl>"


def verdict(record: Mapping[str, Any]) -> str:
    return f'<span class="{"yes" if record["verdict"] == "shown" else "no"}">{escape(record["verdict"])}</span>'


def span(low: float, high: float) -> str:
    return f"[{low:.4g}, {high:.4g}]"


def duration(seconds: Any) -> str:
    if not isinstance(seconds, (int, float)):
        return ""
    minutes, rest = divmod(round(seconds), 60)
    return (
        f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"
    )


def flattened(tree: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from flattened(value, f"{above}{name}.")
        elif value is not None or above:
            yield f"{above}{name}", value if isinstance(value, str) else js.dumps(value, ensure_ascii=False)
