"""The catalog: every paper of the field that the library has or plans, with its state computed from the files.

Reads source as text (cards, signatures, records), so that listing 296 systems imports none of them.
"""

from __future__ import annotations

import ast
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

HOME = Path(__file__).parents[1]
STATES = ("shown", "not shown", "built", "planned", "baseline")
HOMES = MappingProxyType({  # of parts that have names: see `parts`
    "Loss": "steepest.losses", "Network": "steepest.models.networks", "Reward": "steepest.problems.rewards",
    "Weights": "steepest.models.weights",
})  # fmt: skip
COLOURS = ("green", "yellow", "cyan", "bright_black", "blue")


@dataclass(frozen=True)
class Entry:
    """A line of the catalog. `state` is one of STATES; `kind` is baseline where the catalog of papers does not hold the system,
    and so is the state of one that claims nothing itself."""

    slug: str
    family: str
    kind: str
    title: str
    state: str

    @property
    def source(self) -> Path:
        return HOME / "systems" / self.family / f"{self.slug}.py"

    @property
    def claim(self) -> Path:
        return HOME / "evidence" / self.family / f"{self.slug}.py"

    @property
    def record(self) -> Path:
        return self.claim.with_suffix(".json")

    def holds(self, name: str) -> bool:
        """Whether the file of its evidence defines a `claim`, or an `analysis`."""
        return self.claim.exists() and re.search(rf"^{name} = ", self.claim.read_text(encoding="utf-8"), re.M) is not None


def entries() -> list[Entry]:
    """Every system: the papers of the catalog in its order, then the baselines."""
    found = [Entry(slug, family, kind, title, state(family, slug)) for slug, family, kind, title in papers()]
    known = {(entry.family, entry.slug) for entry in found}
    for path in sorted((HOME / "systems").glob("*/*.py")):
        family, slug = path.parent.name, path.stem
        if not slug.startswith("_") and (family, slug) not in known and state(family, slug) != "planned":
            claims = (HOME / "evidence" / family / f"{slug}.py").exists()
            found.append(Entry(slug, family, "baseline", title(path), state(family, slug) if claims else "baseline"))
    return found


def papers() -> tuple[tuple[str, str, str, str], ...]:
    """Slug, family, kind and title of every row of the catalog."""
    lines = (HOME / "app" / "data" / "systems.tsv").read_text(encoding="utf-8").splitlines()
    rows = (line.split("\t") for line in lines[1:])
    return tuple((slug, family, kind, name) for _, slug, family, kind, _, name in rows)


def state(family: str, slug: str) -> str:
    """planned: no file with a card and a function of that name; shown, not shown: what the record says; else built."""
    source = HOME / "systems" / family / f"{slug}.py"
    if not source.exists() or not card(source) or function(source) is None:
        return "planned"
    found = verdict(HOME / "evidence" / family / f"{slug}.json")
    return found or "built"


def verdict(path: Path) -> str | None:
    record = read_record(path)
    return record["verdict"] if record else None


def read_record(path: Path) -> dict[str, Any] | None:
    """A claim's record, or None; raises ValueError where the file is not one."""
    if not path.exists():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["verdict"] not in ("shown", "not shown"):
            raise ValueError(f"its verdict is {record['verdict']!r}")
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is not a claim's record ({error}): remove it and run `steepest reproduce {path.stem}` again"
        ) from error
    return record


def find(slug: str) -> Entry:
    """The line of that name; raises ValueError and suggests the nearest."""
    known = {entry.slug: entry for entry in entries()}
    if slug in known:
        return known[slug]
    from ..core.near import nearest

    raise ValueError(f"no system is called {slug!r}{nearest(slug, known)}. `steepest list` names all of them")


# ------------------------------------------------------------------------------------ reading source


def syntax(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def card(path: Path) -> dict[str, str]:
    """The parts of a system's docstring by name, its first sentence under ""; empty where there is no card."""
    text = ast.get_docstring(syntax(path)) or ""
    found = {"": text.split("\n\n")[0].replace("\n", " ")}
    parts = re.split(r"^(Paper|Claim|Idea|State|Note)\.\s+", text, flags=re.M)
    found |= {name: re.sub(r"\n[ ]+", "\n", body.strip()) for name, body in zip(parts[1::2], parts[2::2], strict=True)}
    return found if len(parts) > 1 else {}


def title(path: Path) -> str:
    """The first sentence of a card."""
    return card(path)[""].removesuffix(".")


def function(path: Path) -> ast.FunctionDef | None:
    named = [node for node in syntax(path).body if isinstance(node, ast.FunctionDef) and node.name == path.stem]
    return named[0] if named else None


@dataclass(frozen=True)
class Option:
    """An option of a system, as its source says it. `owner` is the paper that introduced it."""

    name: str
    type: str
    default: str
    help: str
    owner: str

    @property
    def flag(self) -> str:
        """How the command line says it; a slot takes a function, which only Python can say."""
        return f"--{self.name.replace('_', '-')}" if sayable(ast.parse(self.type or "object", mode="eval").body) else self.name


def options(path: Path) -> list[Option]:
    """A system's own options, then those of the parent that it extends."""
    node = function(path)
    if node is None:
        return []
    text = ast.get_docstring(node) or ""
    pairs = [*zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)]
    own = [
        Option(
            a.arg,
            ast.unparse(a.annotation) if a.annotation else "",
            ast.unparse(d) if d else "required",
            described(text, a.arg),
            path.stem,
        )
        for a, d in pairs
    ]
    taken = {option.name for option in own}
    return own + [option for up, without in parents(node) for option in options(up) if option.name not in {*taken, *without}]


def sayable(annotation: ast.expr) -> bool:
    """Whether a command line can say a value of this type: the source's side of `options.plain`."""
    names = {part.id for part in ast.walk(annotation) if isinstance(part, ast.Name)}
    return names <= {"bool", "int", "float", "str", "Path", "Literal", "tuple", "Source", *HOMES}


def described(text: str, name: str) -> str:
    """What a docstring says of an option: its line and the lines indented below it."""
    found = re.search(rf"^{re.escape(name)}[ ]{{1,}}(.*(?:\n[ ]{{2,}}.*)*)", text, re.M)
    return " ".join(found[1].split()) if found else ""


def parents(node: ast.FunctionDef) -> Iterator[tuple[Path, tuple[str, ...]]]:
    """The file of the system that `extends` names, and the options of it that this one drops."""
    for mark in node.decorator_list:
        if isinstance(mark, ast.Call) and isinstance(mark.func, ast.Name) and mark.func.id == "extends":
            name = ast.unparse(mark.args[0]).split(".")[-1]
            without = next((ast.literal_eval(word.value) for word in mark.keywords if word.arg == "without"), ())
            yield from ((path, without) for path in (HOME / "systems").glob(f"*/{name}.py"))


# ------------------------------------------------------------------------------------------ commands


@dataclass(frozen=True)
class List:
    """Every system with its state: planned, built, shown, not shown, or baseline.

    family  only this family, e.g. reasoning
    state   only this state: shown, not_shown, built, planned or baseline
    json    print JSON
    """

    family: str | None = None
    state: str | None = None
    json: bool = False

    def run(self) -> int:
        everything = entries()
        families = sorted({entry.family for entry in everything})
        wanted = self.state.replace("_", " ") if self.state else None
        for value, known, what in ((self.family, families, "family"), (wanted, STATES, "state")):
            if value is not None and value not in known:
                raise ValueError(f"no {what} is called {value!r}: choose one of {', '.join(known)}")
        chosen = [e for e in everything if self.family in (None, e.family) and wanted in (None, e.state)]
        counts = Counter(entry.state for entry in chosen)
        if self.json:
            rows = [vars(entry) for entry in chosen]
            print(json.dumps({"systems": rows, "counts": {s: counts[s] for s in STATES}}, indent=1, ensure_ascii=False))
            return 0
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for name in ("slug", "family", "state"):
            width = max((len(getattr(entry, name)) for entry in chosen), default=0)
            table.add_column("name" if name == "slug" else name, no_wrap=True, min_width=width)
        table.add_column("title", overflow="ellipsis", no_wrap=True)
        for entry in chosen:
            colour = COLOURS[STATES.index(entry.state)]
            table.add_row(entry.slug, entry.family, f"[{colour}]{entry.state}[/]", escape(entry.title))
        console = Console()
        if not console.is_terminal:
            console.width = 200  # a file or a pipe has room for titles
        console.print(table)
        console.print(", ".join(f"[{c}]{counts[s]} {s}[/]" for s, c in zip(STATES, COLOURS, strict=True) if counts[s]) or "none")
        return 0


@dataclass(frozen=True)
class Show:
    """What a system is: its card, options with defaults, claim, record and source.

    name  the system, as `steepest list` names it
    json  print JSON
    """

    name: str
    json: bool = False

    def run(self) -> int:
        entry = find(self.name)
        built = entry.state != "planned"
        told, record = card(entry.source) if built else {}, read_record(entry.record)
        takes = options(entry.source) if built else []
        if self.json:
            page = {
                **vars(entry),
                "card": {name or "Summary": text for name, text in told.items()},
                "options": [vars(o) for o in takes],
            }
            files = {"source": str(entry.source) if built else None, "claim": str(entry.claim) if entry.claim.exists() else None}
            print(json.dumps({**page, **files, "record": record}, indent=1, ensure_ascii=False))
            return 0
        console = Console()
        colour = COLOURS[STATES.index(entry.state)]
        console.print(f"[bold]{entry.slug}[/]  {entry.family} {entry.kind}  [{colour}]{entry.state}[/]")
        if not built:
            console.print(f"{escape(entry.title)}\n\nPlanned: its file will be {entry.source.relative_to(HOME.parent)}")
            return 0
        console.print(escape(told[""]) + "\n")
        parts = Table.grid(padding=(0, 2))
        parts.add_column(style="bold", no_wrap=True)
        for name, text in told.items():
            if name:
                parts.add_row(name, escape(text if name == "Idea" else " ".join(text.split())))
        parts.add_row("Source", str(entry.source))
        parts.add_row("Evidence", says(entry, record))
        console.print(parts)
        table = Table("option", "default", "what it is", box=box.SIMPLE_HEAD, pad_edge=False)
        for o in sorted(takes, key=lambda o: not o.flag.startswith("-")):
            source = "" if o.owner == entry.slug else f" [dim](from {o.owner})[/]"
            table.add_row(o.flag, escape(o.default), escape(o.help) + source)
        console.print(table if takes else "\nno options")
        if any(not o.flag.startswith("-") for o in takes):
            console.print("Options without dashes are slots: they take functions, in Python.\n")
        console.print(
            f"run it: steepest train {entry.slug}"
            + (f"    test its claim: steepest reproduce {entry.slug}" if entry.holds("claim") else "")
            + (f"    its analysis: steepest analyse {entry.slug}" if entry.holds("analysis") else "")
        )
        return 0


def analysed(entry: Entry) -> list[str]:
    """What `steepest analyse` asked and found, and where; nothing where it was not run."""
    path = entry.claim.with_suffix(".analysis.json")
    if not path.exists():
        return []
    read = json.loads(path.read_text(encoding="utf-8"))
    return [read["asks"], *([read["finds"]] if read["finds"] else []), str(path)]


def says(entry: Entry, record: dict[str, Any] | None) -> str:
    told = analysed(entry)
    if record is None and told:
        return escape("\n".join(told))
    if record is None:
        return f"a claim, not run yet: {entry.claim}" if entry.holds("claim") else "no claim yet"
    gap = f"gap {record['gap']:+.4g}, 95 % interval [{record['low']:.4g}, {record['high']:.4g}] over {len(record['seeds'])} seeds"
    lines = [
        record["says"],
        f"{record['verdict']}: {gap} ({record['unit']}), {record['date'][:10]}",
        record["why"],
        str(entry.record),
        *told,
    ]
    return escape("\n".join(line for line in lines if line))
