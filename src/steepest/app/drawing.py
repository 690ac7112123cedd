"""Line charts as inline SVG: no script, no font, no address; colours come from the page's own variables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from itertools import pairwise
from typing import NamedTuple

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 400, 230, 58, 12, 12, 36  # small, so that a phone does not shrink the letters
POINTS, LONG = 240, 26  # of a curve; letters of a name that stands beside another


class Line(NamedTuple):
    """A curve. `colour` is the number of one of the page's series colours; faint lines are single runs behind a mean."""

    x: Sequence[float]
    y: Sequence[float]
    label: str
    colour: int
    faint: bool = False


def chart(lines: Sequence[Line], title: str, across: str = "step") -> str:
    """Curves over a common axis. Values that are not finite break a line; long curves are averaged to POINTS points."""
    lines = [thinned(line) for line in lines]
    xs = [x for line in lines for x in line.x]
    ys = [y for line in lines for y in line.y if math.isfinite(y)]
    if not ys:
        return f'<figure><figcaption>{escape(title)}</figcaption><p class="quiet">no finite value was reported</p></figure>'
    (x0, x1), (y0, y1) = spread(xs, 0.0), spread(ys, 0.05)

    def at(x: float, y: float) -> tuple[float, float]:
        across = LEFT + (x - x0) / (x1 - x0) * (WIDTH - LEFT - RIGHT)
        return round(across, 1), round(HEIGHT - BOTTOM - (y - y0) / (y1 - y0) * (HEIGHT - TOP - BOTTOM), 1)

    parts = []
    for y, said in ticks(y0, y1):
        _, h = at(x0, y)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{h}" y2="{h}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{h + 4}" text-anchor="end">{said}</text>')
    for x, said in ticks(x0, x1):
        w, _ = at(x, y0)
        parts.append(f'<text x="{w}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{said}</text>')
    parts.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 4}" text-anchor="middle">{escape(across)}</text>')
    for line in sorted(lines, key=lambda line: not line.faint):
        for piece in unbroken(line):
            style = f"s{line.colour % 8}" + (" faint" if line.faint else "")
            points = [at(x, y) for x, y in piece]
            if len(points) == 1:
                parts.append(f'<circle class="{style}" cx="{points[0][0]}" cy="{points[0][1]}" r="2.5"/>')
            else:
                path = " ".join(f"{a},{b}" for a, b in points)
                parts.append(f'<polyline class="{style}" points="{path}"><title>{escape(line.label)}</title></polyline>')
    keys = {line.label: line.colour % 8 for line in lines if not line.faint}
    told = "".join(f'<span class="key k{colour}">{escape(label)}</span>' for label, colour in keys.items())
    legend = f"<div>{told}</div>" if len(keys) > 1 or len(lines) > len(keys) else ""
    said = f"{title}: {len(lines)} curves, from {number(min(ys))} to {number(max(ys))}"
    svg = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(said)}">{"".join(parts)}</svg>'
    return f"<figure><figcaption>{escape(title)}</figcaption>{svg}{legend}</figure>"


def pairs(ours: Sequence[float], baseline: Sequence[float], names: tuple[str, str], title: str) -> str:
    """The two values of each pair side by side, baseline left, joined by a line."""
    y0, y1 = spread([*ours, *baseline], 0.08)

    def height(y: float) -> float:
        return round(HEIGHT - BOTTOM - (y - y0) / (y1 - y0) * (HEIGHT - TOP - BOTTOM), 1)

    a, b = 142, 310
    parts = []
    for y, said in ticks(y0, y1):
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{height(y)}" y2="{height(y)}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{height(y) + 4}" text-anchor="end">{said}</text>')
    for mine, theirs in zip(ours, baseline, strict=True):
        parts.append(f'<line class="pair" x1="{a}" x2="{b}" y1="{height(theirs)}" y2="{height(mine)}"/>')
    for x, values, colour in ((a, baseline, 1), (b, ours, 0)):
        parts += [
            f'<circle class="s{colour} dot" cx="{x}" cy="{height(y)}" r="4.5"><title>{number(y)}</title></circle>' for y in values
        ]
    for x, name in ((a, names[1]), (b, names[0])):
        parts.append(f'<text x="{x}" y="{HEIGHT - 12}" text-anchor="middle">{cut(name, LONG)}</text>')
    said = f"{title}: {len(ours)} pairs"
    svg = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(said)}">{"".join(parts)}</svg>'
    return f"<figure><figcaption>{escape(title)}</figcaption>{svg}</figure>"


def intervals(rows: Sequence[tuple[str, float, float, float, Sequence[float]]], title: str) -> str:
    """An estimate with its interval and the single runs behind it, a row for each (name, estimate, low, high, runs)."""
    x0, x1 = spread([x for _, _, low, high, runs in rows for x in (low, high, *runs)], 0.05)
    foot = 20 + 44 * len(rows)

    def across(x: float) -> float:
        return round(LEFT / 2 + (x - x0) / (x1 - x0) * (WIDTH - LEFT), 1)

    parts = []
    for x, said in ticks(x0, x1):
        parts.append(f'<line class="grid" x1="{across(x)}" x2="{across(x)}" y1="8" y2="{foot}"/>')
        parts.append(f'<text x="{across(x)}" y="{foot + 16}" text-anchor="middle">{said}</text>')
    for k, (name, estimate, low, high, runs) in enumerate(rows):
        y, style = 36 + 44 * k, f"s{k % 8}"
        parts.append(f'<text x="{LEFT / 2}" y="{y - 12}">{cut(name, 2 * LONG)}</text>')
        parts.append(f'<line class="{style} bar" x1="{across(low)}" x2="{across(high)}" y1="{y}" y2="{y}"/>')
        parts.append(f'<line class="{style} mark" x1="{across(estimate)}" x2="{across(estimate)}" y1="{y - 8}" y2="{y + 8}"/>')
        parts += [f'<circle class="{style}" cx="{across(x)}" cy="{y}" r="2.5"/>' for x in runs]
    svg = f'<svg viewBox="0 0 {WIDTH} {foot + 24}" role="img" aria-label="{escape(title)}">{"".join(parts)}</svg>'
    return f"<figure><figcaption>{escape(title)}</figcaption>{svg}</figure>"


def thinned(line: Line) -> Line:
    """At most POINTS points, each the mean of its neighbours."""
    size = len(line.x)
    if size <= POINTS:
        return line
    edges = [round(i * size / POINTS) for i in range(POINTS + 1)]
    spans = list(pairwise(edges))
    return line._replace(x=[sum(line.x[a:b]) / (b - a) for a, b in spans], y=[sum(line.y[a:b]) / (b - a) for a, b in spans])


def unbroken(line: Line) -> list[list[tuple[float, float]]]:
    pieces: list[list[tuple[float, float]]] = [[]]
    for x, y in zip(line.x, line.y, strict=True):
        if math.isfinite(y):
            pieces[-1].append((x, y))
        elif pieces[-1]:
            pieces.append([])
    return [piece for piece in pieces if piece]


def spread(values: Sequence[float], margin: float) -> tuple[float, float]:
    low, high = min(values), max(values)
    room = (high - low) * margin or (0.0 if high > low else max(abs(low) * 0.1, 0.5))
    return low - room, high + room


def ticks(low: float, high: float, about: int = 5) -> list[tuple[float, str]]:
    """Round numbers between `low` and `high`, written with the digits that tell them apart."""
    raw = (high - low) / about
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(size * k for k in (1, 2, 5, 10) if size * k >= raw * 0.75)
    found = [k * step for k in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]
    largest, last = max(map(abs, found)), math.floor(math.log10(step) + 1e-9)
    if largest >= 1e6 or step < 1e-4:
        digits = max(0, math.floor(math.log10(largest)) - last)
        return [(x, f"{x:.{digits}e}" if x else "0") for x in found]
    return [(x, f"{x:,.{max(0, -last)}f}" if x else "0") for x in found]


def number(x: float) -> str:
    if x == 0:
        return "0"
    if abs(x) >= 1e6 or abs(x) < 1e-4:
        return f"{x:.2g}"
    return f"{x:,.0f}" if abs(x) >= 1e4 else f"{x:.4g}"


def cut(text: str, length: int) -> str:
    """At most that many letters, as HTML; the whole is told under the mouse."""
    if len(text) <= length:
        return escape(text)
    return f"{escape(text[: length - 1])}…<title>{escape(text)}</title>"
