"""The learning curve of a run as a picture."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

COLOUR, QUIET = "#0072b2", "#8a8f98"
LATER = ("loss", "kl", "entropy", "length")  # metrics that are drawn small, of those that the run reports


def curve(rows: Sequence[dict[str, Any]], figure: str, title: str, path: Path) -> None:
    """Draw the figure that matters, raw and smoothed, beside up to three other metrics. `rows` are those of metrics.jsonl."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    names = list(dict.fromkeys(k for row in rows for k, x in row.items() if k not in ("step", "seconds") and x is not None))
    main = figure if figure in names else names[0]
    moving = [name for name in names if name != main and moves(rows, name)]
    others = sorted(moving, key=lambda n: LATER.index(n) if n in LATER else len(LATER))[:3]
    page = Figure(figsize=(9, 4.2) if others else (7, 4.2), layout="constrained")
    grid = page.add_gridspec(max(1, len(others)), 2 if others else 1, width_ratios=[2.2, 1] if others else [1])
    places = [page.add_subplot(grid[:, 0]), *(page.add_subplot(grid[k, 1]) for k in range(len(others)))]
    for place, name in zip(places, (main, *others), strict=True):
        told = [(row["step"], row[name]) for row in rows if row.get(name) is not None]
        steps, values = [s for s, _ in told], [x for _, x in told]
        large = name == main
        width, alpha, marker = 0.8 if large else 1, 0.35 if large else 0.8, "." if len(told) < 3 else ""
        place.plot(steps, values, color=COLOUR, lw=width, alpha=alpha, marker=marker)
        if large and len(values) >= 10:
            place.plot(steps, smoothed(values), color=COLOUR, lw=2)
        place.set_title(name, loc="left", fontsize=10 if large else 8)
        place.tick_params(labelsize=9 if large else 7)
        place.xaxis.set_major_locator(MaxNLocator(nbins=6 if large else 4, integer=True))
        place.spines[["top", "right"]].set_visible(False)
        place.grid(alpha=0.25, axis="y")
    places[0].set_xlabel("step")
    page.suptitle(title, fontsize=11)
    draft = path.with_name(f".{path.name}")
    page.savefig(draft, dpi=140, format="png")
    os.replace(draft, path)


def moves(rows: Sequence[dict[str, Any]], name: str) -> bool:
    """Whether a metric is more than a constant and rounding."""
    values = [row[name] for row in rows if row.get(name) is not None]
    return max(values) - min(values) > 1e-6


def smoothed(values: Sequence[float]) -> list[float]:
    """Means over a centred window of a tenth of the values, cut off at both ends."""
    import numpy as np

    index, total = np.arange(len(values)), np.concatenate([[0.0], np.cumsum(values)])
    reach = max(1, len(values) // 20)
    low, high = np.maximum(index - reach, 0), np.minimum(index + reach + 1, len(values))
    return list((total[high] - total[low]) / (high - low))
