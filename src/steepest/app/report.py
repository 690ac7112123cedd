"""steepest report: one HTML page with everything in it, for runs, claims and comparisons."""

from __future__ import annotations

import json as js
import math
import os
import platform
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
        draft = self.out.with_name(f".{self.out.name}.{os.getpid()}")
        self.out.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(page(found, self.title), encoding="utf-8")
        os.replace(draft, self.out)
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
    """A training run: its rows of metrics and what was asked for."""

    path: Path
    rows: list[dict[str, Any]]
    config: dict[str, Any]

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def metrics(self) -> list[str]:
        """Names of the numbers, `score` first, then as they first appeared."""
        seen = dict.fromkeys(
            k for row in self.rows for k, v in row.items() if isinstance(v, (int, float)) and k not in ("step", "seconds")
        )
        return sorted(seen, key=lambda k: k != "score")

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
                found.runs.append(RunFolder(file.parent, read_metrics(file), read_config(file.parent)))
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
    try:
        record = js.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


def read_config(folder: Path) -> dict[str, Any]:
    """What run.json, or else the newest checkpoint's steepest.json, says."""
    checkpoints = sorted(folder.glob("**/steepest.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    for file in (folder / "run.json", *checkpoints):
        if file.exists() and (read := read_json(file)):
            return read
    return {}


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
    if found.runs:
        yield f"<section><h2>Runs</h2>{summary(found.runs)}{curves(found.runs)}</section>"
    if found.claims:
        shown = sum(record["verdict"] == "shown" for _, record in found.claims)
        yield f"<section><h2>Claims</h2><p>{shown} of {len(found.claims)} shown.</p>{claim_table(found.claims)}</section>"
        yield from (claim_card(slug, record) for slug, record in found.claims)
    yield from map(comparison, found.comparisons)
    yield from map(details_of_run, found.runs)


def summary(runs: Sequence[RunFolder]) -> str:
    rows = []
    for k, run in enumerate(runs):
        last = run.rows[-1] if run.rows else {}
        main = run.metrics[0] if run.metrics else None
        ys = run.curve(main)[1] if main else []
        best = f"{main} {number(ys[0])} → {number(ys[-1])}" if ys else "nothing reported"
        at = f'<span class="key k{k % 8}">{escape(run.name)}</span>'
        rows.append([at, *(escape(str(run.config.get(x, ""))) for x in ("system", "problem", "seed"))])
        rows[-1] += [number(last.get("step", 0)), duration(last.get("seconds")), escape(best)]
    return table(["run", "system", "problem", "seed", "steps", "time", "first → last"], rows)


def curves(runs: Sequence[RunFolder]) -> str:
    order = list(dict.fromkeys(metric for run in runs for metric in run.metrics))
    charts = []
    for metric in order:
        lines = [Line(*run.curve(metric), run.name, k) for k, run in enumerate(runs) if metric in run.metrics]
        charts.append(chart(lines, metric))
    rest = f"<details><summary>{len(charts) - MAIN} more curves</summary><div class=grid2>{''.join(charts[MAIN:])}</div></details>"
    return f"<div class=grid2>{''.join(charts[:MAIN])}</div>" + (rest if len(charts) > MAIN else "")


def details_of_run(run: RunFolder) -> str:
    flat = list(flattened(run.config))
    told = (
        table(["option", "value"], [[escape(k), escape(v)] for k, v in flat])
        if flat
        else "<p class=quiet>The folder holds no configuration.</p>"
    )
    return (
        f"<section><h2>{escape(run.name)}</h2><p class=quiet>{escape(str(run.path))}</p>"
        f"<h3>Run it again</h3><pre>{escape(again(run))}</pre>"
        f"<details open><summary>Configuration</summary>{told}</details></section>"
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
    told = [[escape(k), escape(v)] for k, v in flattened({"problem is": record["problem"], **parts, "commit": record["commit"]})]
    notes = "".join(
        f"<p><b>{what}</b> {escape(record[key])}</p>" for what, key in (("Why not.", "why"), ("Tried.", "tried")) if record[key]
    )
    return (
        f'<section id="{escape(slug)}"><h2>{escape(slug)} {verdict(record)}</h2><p>{escape(record["says"])}</p>'
        f"<p>Gap <b>{record['gap']:+.4g}</b>, 95 % interval {span(record['low'], record['high'])} "
        f"(bootstrap {span(*record['bootstrap'])}), "
        f"margin {record['margin']:g}; {record['seconds']:.0f} CPU seconds, {escape(record['date'][:10])}.</p>"
        f"<div class=grid2>{''.join(drawn)}</div>{by_seed}{notes}<h3>Run it again</h3>"
        f"<pre>steepest reproduce {escape(slug)}</pre>"
        f"<details><summary>Configuration</summary>{table(['option', 'value'], told)}</details></section>"
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
    told = [[escape(k), escape(v)] for k, v in flattened({**page["options"], "versions": page["versions"]})]
    drawn = [(name, *row["iqm"].values(), [x for seed in row["scores"] for x in seed]) for name, row in bars.items()]
    return (
        f"<section><h2>{escape(' against '.join(page['systems']))}</h2><p>{scale}{escape(', '.join(page['figure']))} on "
        f"{escape(', '.join(page['problems']))}, {len(page['seeds'])} seeds, {page['steps']} steps, last evaluation.</p>"
        f"{table(heads, rows)}{intervals(drawn, 'interquartile mean, 95 % interval, runs')}"
        f"<h3>Run it again</h3><pre>{escape(shlex.join(words))}</pre>"
        f"<details><summary>Configuration</summary>{table(['option', 'value'], told)}</details></section>"
    )


def environment() -> str:
    told = f"steepest {__version__}, Python {platform.python_version()}, {platform.platform()}"
    return f"<footer>Written {time.strftime('%Y-%m-%d %H:%M %Z')} by {escape(told)}.</footer>"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Cells are HTML already; numbers stand right."""
    head = "".join(f"<th>{h}</th>" for h in heads)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


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
