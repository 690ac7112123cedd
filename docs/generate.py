"""What the pages say of commands, systems and parts, read from the library itself, so that no list is kept by hand."""

from __future__ import annotations

import importlib
import inspect
import os
import pkgutil
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import guide_page
import losses_page

from steepest.app import catalog
from steepest.app.cli import COMMANDS
from steepest.app.options import REQUIRED, fields_of, summary

HERE = Path(__file__).parent
ROOMS = ("core", "losses", "credit", "memory", "optimize", "engines", "evidence", "models", "problems", "collectors")


def plain(text: str) -> str:
    """Text that Markdown must leave as it is, but for what stands in backticks."""
    pieces = re.split(r"(`[^`]+`)", text)
    return "".join(piece if k % 2 else re.sub(r"([\\`*_{}\[\]<>#|~$^])", r"\\\1", piece) for k, piece in enumerate(pieces))


# ------------------------------------------------------------------------------------ commands


def commands() -> str:
    """Every command: how it is written, what it does, its options."""
    return "\n\n".join(one_command(name, word.where, word.usage) for name, word in COMMANDS)


def one_command(name: str, where: str, usage: str) -> str:
    module, _, own = where.partition(":")
    command = getattr(importlib.import_module(f"steepest.app.{module}"), own)
    rows = []
    for option in fields_of(command):
        flag = option.name.upper() if option.positional else "--" + option.name.replace("_", "-")
        silent = option.default is REQUIRED or option.default is False or option.default in (None, "", ())
        usual = "" if silent else f"`{option.default}`"
        rows.append(f"| `{flag}` | {usual} | {plain(option.help)} |")
    table = "\n".join(["| option | default | what it is |", "|---|---|---|", *rows])
    return f"## {name}\n\n    steepest {usage}\n\n{plain(summary(command.__doc__))}\n\n{table}"


# ------------------------------------------------------------------------------------ systems


def systems() -> str:
    """The catalog by family: cards and evidence of what is built, titles of what is planned."""
    entries = catalog.entries()
    counts = Counter(entry.state for entry in entries)
    parts = ["Today: " + ", ".join(f"{counts[state]} {state}" for state in catalog.STATES if counts[state]) + "."]
    for family in dict.fromkeys(entry.family for entry in entries):
        members = [entry for entry in entries if entry.family == family]
        parts.append(f"## {family.replace('_', ' ')}")
        parts += [one_system(entry) for entry in members if entry.state != "planned"]
        waiting = [f"- `{entry.slug}`: {plain(entry.title)}" for entry in members if entry.state == "planned"]
        if waiting:
            parts.append(f"<details><summary>{len(waiting)} planned</summary>\n\n" + "\n".join(waiting) + "\n\n</details>")
    return "\n\n".join(parts)


def one_system(entry: catalog.Entry) -> str:
    told, record = catalog.card(entry.source), catalog.read_record(entry.record)
    rows = [f"### {entry.slug}", f"*{entry.state}*. {plain(told[''])}"]
    rows += [f"**{name}.** {plain(text)}" if name != "Idea" else f"```text\n{text}\n```" for name, text in told.items() if name]
    if record:
        interval = f"[{record['low']:.4g}, {record['high']:.4g}] over {len(record['seeds'])} seeds"
        gap = f"gap {record['gap']:+.4g}, 95 % interval {interval}"
        why = f" {record['why']}" if record["why"] else ""
        rows.append(f"**Evidence.** {plain(record['says'])} {record['verdict'].capitalize()}: {plain(gap)}, "
                    f"{plain(record['unit'])}, {record['date'][:10]}.{plain(why)}")  # fmt: skip
        picture = HERE.parent / "src/steepest" / entry.record.relative_to(catalog.HOME).with_suffix(".png")  # not in the package
        if picture.exists():
            rows.append(f"![{entry.slug}: the claim's runs]({os.path.relpath(picture, HERE)})")
    return "\n\n".join(rows)


# ------------------------------------------------------------------------------------ parts


def public(room: str) -> Iterator[tuple[str, list[str]]]:
    """Modules of a room and their public names: what the room's __init__ offers, else what each module defines."""
    package = importlib.import_module(f"steepest.{room}")
    if hasattr(package, "__all__"):
        yield package.__name__, list(package.__all__)
        return
    for info in pkgutil.iter_modules(package.__path__):
        module = importlib.import_module(f"{package.__name__}.{info.name}")
        own = {name: x for name, x in vars(module).items() if getattr(x, "__module__", None) == module.__name__}
        told = [name for name, x in own.items() if name[0] != "_" and (inspect.isclass(x) or inspect.isfunction(x)) and x.__doc__]
        yield module.__name__, told


def parts() -> str:
    """Every room with its public names."""
    rows = []
    for room in ROOMS:
        rows.append(f"## {room}\n\n{plain(inspect.getdoc(importlib.import_module(f'steepest.{room}')) or '')}")
        for module, names in public(room):
            rows.append("```{eval-rst}")
            for name in names:
                thing = getattr(importlib.import_module(module), name)
                kind = "class" if inspect.isclass(thing) else "function" if callable(thing) and inspect.isroutine(thing) else "data"
                rows += [f".. auto{kind}:: {module}.{name}", *(["   :members:"] if kind == "class" else []), ""]
            rows.append("```\n")
    return "\n".join(rows)


def restructured(text: str) -> str:
    """A docstring of the house, whose options are lines `name  what it is`, as reStructuredText."""
    found = []
    for paragraph in text.split("\n\n"):
        lines = paragraph.splitlines()
        if paragraph.lstrip().startswith(">>>"):
            found.append(paragraph)
        elif lines and all(re.match(r"\w+(?:, \w+)*  +\S|  ", line) for line in lines):
            found.append("\n".join(re.sub(r"^(\w+(?:, \w+)*)  +", r"- \1  ", line) for line in lines))
            found[-1] = "\n".join(item(line) for line in found[-1].splitlines())
        else:
            found.append(escaped(" ".join(line.strip() for line in lines)))
    return "\n\n".join(found) + "\n"


def item(line: str) -> str:
    """A line of a list: `- name  text`, or its continuation."""
    head = re.match(r"- (\w+(?:, \w+)*)  (.*)", line)
    return f"- ``{head[1]}``: {escaped(head[2])}" if head else f"  {escaped(line.strip())}"


def escaped(text: str) -> str:
    """Text in which only what stands in backticks is markup."""
    pieces = re.split(r"``(.+?)``|`(.+?)`", text)
    out = []
    for plain_text, double, single in zip(pieces[0::3], pieces[1::3] + [None], pieces[2::3] + [None], strict=True):
        out.append(re.sub(r"([\\*_|`])", r"\\\1", plain_text))
        code = double or single
        if code:
            out.append(f"``{code.strip()}``\\ ")
    return "".join(out)


# ------------------------------------------------------------------------------------ the guide


def guide() -> str:
    """The comparison of the on-policy systems, from the cells in docs/guide."""
    return guide_page.build(plain)


def losses() -> str:
    """The losses on three kinds of decision, from the cells in docs/losses."""
    return losses_page.build(plain)


PAGES = {"commands": commands, "systems": systems, "parts": parts, "guide": guide, "losses": losses}
