"""The page `guide`: what the cells in docs/guide say, and what the library says of every system in them."""

from __future__ import annotations

import ast
import base64
import inspect
import io
import shlex
from pathlib import Path
from typing import Any

import numpy as np

from steepest.app import catalog, guide, names
from steepest.app.names import find_claim, find_system
from steepest.evidence import statistics as st

CELLS = Path(__file__).parent / "guide"
REPETITIONS = 5000
OURS, BASE, QUIET = "#0072b2", "#d55e00", "#c9ccd1"


def build(plain: Any, cells: Path = CELLS) -> str:
    """The page as Markdown. `plain` escapes text. Raises ValueError where a cell was run with other options than the code has."""
    people = guide.candidates()
    taking = [name for name, why in people if not why]
    found = {(name, arena.problem): guide.read(cells, name, arena.problem) for name in taking for arena in guide.ARENAS}
    for (name, problem), cell in found.items():
        check(name, problem, cell)
    parts = [missing(found), settings(plain)]
    parts += [one_problem({name: found[name, arena.problem] for name in taking}, arena, plain) for arena in guide.ARENAS]
    parts += ["## The systems", *(one_system(name, plain) for name in taking)]
    outside = [f"- `{name}`: {plain(why)}." for name, why in people if why]
    if outside:
        parts.append("## On-policy systems that are not in the tables\n\n" + "\n".join(outside))
    return "\n\n".join(part for part in parts if part)


def check(name: str, problem: str, cell: dict[str, Any] | None) -> None:
    """Raises ValueError where a cell's options are not those that the code would use, or defaults as told are not the code's."""
    make = find_system(name)
    defaults = {p.name: p.default for p in inspect.signature(make).parameters.values()}
    for option in catalog.options(source_of(name)):
        try:
            told = ast.literal_eval(option.default)
        except ValueError:
            continue  # an expression, whose value its source alone does not tell
        if option.name not in defaults or told != defaults[option.name]:
            raise ValueError(f"{name}: the source says {option.name} = {told!r}, the function has {defaults.get(option.name)!r}")
    if cell is None:
        return
    changed = guide.stale(cell, next(arena for arena in guide.ARENAS if arena.problem == problem))
    if changed:
        raise ValueError(
            f"{guide.path_of(CELLS, name, problem).name} was run with options that are no longer the code's ({changed}): run "
            f"`steepest guide --systems {name} --problems {problem}`"
        )


def missing(found: dict[tuple[str, str], Any]) -> str:
    absent = [f"`{name}` on {problem}" for (name, problem), cell in found.items() if cell is None]
    if not absent:
        return ""
    told = ", ".join(absent[:12]) + (f" and {len(absent) - 12} more" if len(absent) > 12 else "")
    return f"**{len(absent)} of {len(found)} cells are not run yet**: {told}. `steepest guide` runs them."


def settings(plain: Any) -> str:
    head = "| problem | budget, steps | environments x horizon | updates | learning rate x (many steps a batch, one) | seeds |"
    rows = [
        f"| {a.problem} | {a.budget:,} | {a.envs} x {a.horizon} | {guide.updates(a)} | {a.many:g}, {a.one:g} | {a.seeds} |"
        for a in guide.ARENAS
    ]
    return "\n".join(["## Settings\n", head, "|---|---|---|---|---|---|", *rows, "", plain(guide.HOW), "", smaller(plain)])


def smaller(plain: Any) -> str:
    """What is not of its paper's size here, and what that size is."""
    told = []
    for name, sizes in guide.SMALLER.items():
        known = inspect.signature(find_system(name)).parameters
        changed = [f"{option} {plain(shown(x))} instead of {plain(shown(known[option].default))}" for option, x in sizes.items()]
        told.append(f"`{name}` has {', '.join(changed)}")
    return f"These are smaller than in their papers, where a cell would take hours: {'; '.join(told)}."


# ------------------------------------------------------------------------------------ a problem


def interval(values: list[float]) -> st.Interval:
    return st.stratified_bootstrap(
        st.interquartile_mean, np.array(values)[:, None], rng=np.random.default_rng(0), repetitions=REPETITIONS
    )


def one_problem(cells: dict[str, dict[str, Any] | None], arena: guide.Arena, plain: Any) -> str:
    """Table and curves of one problem, the best first."""
    run = {name: cell for name, cell in cells.items() if cell and not cell["fault"]}
    order = sorted(run, key=lambda name: -interval(run[name]["training"]).estimate)
    first = run.get(guide.BASELINE)
    head = f"| system | over training | last policy | better than {guide.BASELINE} | CPU s a run |"
    rows = []
    for name in order:
        cell = run[name]
        better = ""
        if first and name != guide.BASELINE:
            pair = (np.array(x["training"])[:, None] for x in (cell, first))
            chance = st.stratified_bootstrap(
                st.probability_of_improvement, *pair, rng=np.random.default_rng(0), repetitions=REPETITIONS
            )
            better = f"{chance.estimate:.2f} [{chance.low:.2f}, {chance.high:.2f}]"
        spans = (interval(cell[what]) for what in ("training", "last"))
        told = [f"**{x.estimate:.4g}** [{x.low:.4g}, {x.high:.4g}]" for x in spans]
        rows.append(f"| [{name}](#{anchor(name)}) | {told[0]} | {told[1]} | {better} | {np.mean(cell['seconds']):.3g} |")
    for name in cells:
        if name not in run:
            why = cells[name]["fault"] if cells[name] else "not run yet"
            rows.append(f"| [{name}](#{anchor(name)}) | {plain(why)} | | | |")
    text = f"## {arena.problem}\n\n" + "\n".join([head, "|---|---|---|---|---|", *rows])
    return text + ("\n\n" + picture(run, order, arena) if run else "")


def mean_curve(cell: dict[str, Any]) -> tuple[list[int], list[float]]:
    """Over the seeds that reported there."""
    at = sorted({x for curve in cell["curve"] for x, _ in curve})
    return at, [float(np.mean([y for curve in cell["curve"] for x, y in curve if x == step])) for step in at]


def picture(run: dict[str, dict[str, Any]], order: list[str], arena: guide.Arena) -> str:
    """A panel for each system: its mean and its seeds, before all others in grey and the baseline, on common axes."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    across = min(5, max(3, len(order)))
    down = -(-len(order) // across)
    figure = Figure(figsize=(10, 1.85 * down + 0.35), layout="constrained")
    panels = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False).ravel()
    means = {name: mean_curve(run[name]) for name in order}
    for panel, name in zip(panels, order, strict=False):
        for other in order:
            panel.plot(*means[other], color=QUIET, lw=0.6, zorder=1)
        if guide.BASELINE in means and name != guide.BASELINE:
            panel.plot(*means[guide.BASELINE], color=BASE, lw=1.1, ls=(0, (3, 2)), zorder=2)
        colour = BASE if name == guide.BASELINE else OURS
        for curve in run[name]["curve"]:
            panel.plot(*zip(*curve, strict=True), color=colour, lw=0.6, alpha=0.4, zorder=3)
        panel.plot(*means[name], color=colour, lw=2, zorder=4)
        panel.set_title(name, loc="left", fontsize=9)
        panel.tick_params(labelsize=7)
        panel.spines[["top", "right"]].set_visible(False)
        panel.xaxis.set_major_locator(MaxNLocator(3))
        panel.yaxis.set_major_locator(MaxNLocator(4))
        panel.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x / 1000:g}k" if x else "0"))
    for panel in panels[len(order) :]:
        panel.set_visible(False)
    for panel in panels[max(0, len(order) - across) : len(order)]:
        panel.tick_params(labelbottom=True)
    figure.supylabel("return", fontsize=8)
    figure.supxlabel("steps of the environments", fontsize=8)
    held = io.BytesIO()
    figure.savefig(held, dpi=120, format="png", metadata={"Software": None})
    data = base64.b64encode(held.getvalue()).decode()
    said = f"Learning curves on {arena.problem}: {', '.join(order)}"
    return f'<img alt="{said}" src="data:image/png;base64,{data}" style="width:100%">'


# ------------------------------------------------------------------------------------ a system


def source_of(name: str) -> Path:
    return names.HOME / "systems" / names.all_systems()[name] / f"{name}.py"


def anchor(name: str) -> str:
    return name.replace("_", "-")


def one_system(name: str, plain: Any) -> str:
    """Card, Idea, how it differs from its parent, defaults, and the command of each of its cells."""
    told = catalog.card(source_of(name))
    rows = [f"({anchor(name)})=\n### {name}", plain(told[""]), f"```text\n{told['Idea']}\n```", difference(name, plain)]
    table = ["| option | default | what it is |", "|---|---|---|"]
    table += [f"| `{o.name}` | `{o.default}` | {plain(o.help)} |" for o in catalog.options(source_of(name))]
    lines = "\n".join(command(name, arena) for arena in guide.ARENAS)
    fold = "<details><summary>Options and their defaults</summary>\n\n" + "\n".join(table) + "\n\n</details>"
    rows += [fold, f"<details><summary>Its runs again, seed 0</summary>\n\n```text\n{lines}\n```\n\n</details>"]
    return "\n\n".join(rows)


def parent_of(name: str) -> str | None:
    """The system that a system extends or imports; else the baseline, unless it is that itself."""
    made = getattr(find_system(name), "parent", None)
    if made is not None:
        return made.__name__
    known = names.all_systems()
    for node in catalog.syntax(source_of(name)).body:
        if isinstance(node, ast.ImportFrom) and node.level == 1 and node.module in known:
            return node.module
    return guide.BASELINE if name != guide.BASELINE else None


def difference(name: str, plain: Any) -> str:
    """New options, other defaults, and what is dropped, against the parent."""
    parent = parent_of(name)
    if parent is None:
        return "It is what the others are compared with."
    mine, theirs = ({p.name: p.default for p in inspect.signature(find_system(n)).parameters.values()} for n in (name, parent))
    new = [f"`{x}`" for x in mine if x not in theirs]
    gone = [f"`{x}`" for x in theirs if x not in mine]
    changed = [x for x in mine if x in theirs and mine[x] != theirs[x]]
    other = [f"`{x}` {plain(shown(mine[x]))} instead of {plain(shown(theirs[x]))}" for x in changed]
    heads = (("adds", new), ("drops", gone), ("has", other))
    said = "; ".join(f"{head} {', '.join(what)}" for head, what in heads if what)
    return f"Against [{parent}](#{anchor(parent)}) it {said or 'has the same options and defaults: only its rule differs'}."


def shown(value: Any) -> str:
    return getattr(value, "__name__", None) or repr(value)


def command(name: str, arena: guide.Arena) -> str:
    """The line that trains this cell's seed 0: `steepest train` takes the claim's options on the claim's problem, unless told."""
    make, claim = find_system(name), find_claim(name)
    said = dict(guide.setting(make, arena))
    if claim is not None and claim.problem.keywords.get("id", claim.problem.func.__name__) == arena.problem:
        wanted = guide.options(make, arena)
        said |= {option: wanted[option] for option in claim.ours.keywords if option in wanted}
    words = ["steepest", "train", name, "--problem", arena.problem, "--steps", str(guide.updates(arena)), "--seed", "0"]
    for option, value in said.items():
        words += ["--" + option.replace("_", "-"), *map(str, value if isinstance(value, list) else [value])]
    return shlex.join(words)
