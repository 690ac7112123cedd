"""The rules of the house (design, section 5) as functions of a source tree. Standard library only."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

# room -> rooms whose code it may import; its own room is always allowed
MAY = {
    "core": set(),
    "losses": set(),
    "credit": set(),
    "selection": set(),
    "memory": set(),
    "models": {"core"},
    "problems": {"core"},
    "optimize": {"core"},
    "collectors": {"core", "memory"},
    "engines": {"core", "losses", "optimize"},
    "systems": {"core", "losses", "credit", "selection", "memory", "models", "problems", "optimize", "collectors", "engines"},
    "evidence": {"core", "systems", "models", "problems", "collectors"},
    "app": {"core", "losses", "problems", "models", "systems", "evidence"},
}
SYSTEM_LINES, PART_LINES = 120, 400


@functools.cache
def rooms(root: Path) -> tuple[tuple[str, Path, ast.Module, str], ...]:
    """Room, path, syntax and text of every file; read once for all rules."""
    found = []
    for path in sorted(root.rglob("*.py")):
        text = path.read_text()
        first = path.relative_to(root).parts[0]
        found.append((first if first in MAY else "", path, ast.parse(text), text))
    return tuple(found)


def imported(root: Path, path: Path, tree: ast.Module) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Modules of the package that a file imports, as paths below it; also inside functions."""
    here = path.relative_to(root).with_suffix("").parts
    package = here[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            if node.level:
                base = package[: len(package) - node.level + 1]
                module = node.module or ""
            elif node.module and node.module.split(".")[0] == root.name:
                base, module = (), ".".join(node.module.split(".")[1:])
            else:
                continue
            target = (*base, *(module.split(".") if module else ()))
            if len(target) <= 1 and not module:
                for alias in node.names:
                    yield node.lineno, (*target, alias.name)
            else:
                yield node.lineno, target
        elif isinstance(node, ast.Import):
            for alias in node.names:
                parts = alias.name.split(".")
                if parts[0] == root.name and len(parts) > 1:
                    yield node.lineno, tuple(parts[1:])


def foreign_imports(root: Path) -> list[str]:
    """Rule: the table of rooms."""
    return [
        f"{path.relative_to(root)}:{line}: {room} imports {target[0]}"
        for room, path, tree, _ in rooms(root)
        if room
        for line, target in imported(root, path, tree)
        if target and target[0] in MAY and target[0] != room and target[0] not in MAY[room]
    ]


def is_system(root: Path, path: Path) -> bool:
    parts = path.relative_to(root).parts
    return parts[0] == "systems" and len(parts) == 3 and path.name != "__init__.py"


def bad_cards(root: Path) -> list[str]:
    """Rule 9: Paper, Claim, Idea, State in the docstring, one marked idea, one public function named as the file."""
    faults = []
    for _, path, tree, text in rooms(root):
        if not is_system(root, path):
            continue
        name, doc = path.relative_to(root), ast.get_docstring(tree) or ""
        lacking = [part for part in ("Paper", "Claim", "Idea", "State") if not re.search(rf"^{part}\.", doc, re.M)]
        faults += [f"{name}: the card lacks `{part}.`" for part in lacking]
        if text.count("# <- the idea") != 1:
            faults.append(f"{name}: exactly one line is marked `# <- the idea`, not {text.count('# <- the idea')}")
        if path.stem not in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}:
            faults.append(f"{name}: defines no function {path.stem}")
    return faults


def long_files(root: Path) -> list[str]:
    """Rule 9: a page and a half a system, four hundred lines a part."""
    faults = []
    for room, path, _, text in rooms(root):
        limit = SYSTEM_LINES if is_system(root, path) else PART_LINES
        lines = len(text.splitlines())
        if room and lines > limit:
            faults.append(f"{path.relative_to(root)}: {lines} lines, at most {limit}")
    return faults


def module_memory(root: Path) -> list[str]:
    """Rule 1: no module-level list, dict or set, no `global`; a constant is a tuple, a frozenset or a MappingProxyType."""
    mutable = (ast.Dict, ast.List, ast.Set, ast.DictComp, ast.ListComp, ast.SetComp)
    faults = []
    for room, path, tree, _ in rooms(root):
        if not room:
            continue
        for node in tree.body:
            value = node.value if isinstance(node, (ast.Assign, ast.AnnAssign)) else None
            names = [t.id for t in getattr(node, "targets", [getattr(node, "target", None)]) if isinstance(t, ast.Name)]
            made = isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id in ("dict", "list", "set")
            if (isinstance(value, mutable) or made) and names != ["__all__"]:
                faults.append(f"{path.relative_to(root)}:{node.lineno}: {', '.join(names)} is memory outside State")
        faults += [f"{path.relative_to(root)}:{n.lineno}: global" for n in ast.walk(tree) if isinstance(n, ast.Global)]
    return faults


def siblings(root: Path) -> list[str]:
    """Rule 7: a paper may import one parent, and a parent's parent has none."""
    parents: dict[str, set[str]] = {}
    for _, path, tree, _ in rooms(root):
        if is_system(root, path):
            own = ".".join(path.relative_to(root).with_suffix("").parts)
            parents[own] = {".".join(t) for _, t in imported(root, path, tree) if t and t[0] == "systems" and len(t) == 3}
    faults = []
    for name, above in parents.items():
        if len(above) > 1:
            faults.append(f"{name} imports {len(above)} systems ({', '.join(sorted(above))}): one parent, never a sibling")
        for parent in above:
            deep = [grand for grand in parents.get(parent, ()) if parents.get(grand)]
            faults += [f"{name} is more than two papers deep: {parent}, {grand}, ..." for grand in deep]
    return faults


def printing(root: Path) -> list[str]:
    """Only app prints."""
    return [
        f"{path.relative_to(root)}:{node.lineno}: only app prints"
        for room, path, tree, _ in rooms(root)
        if room not in ("", "app")
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]


RULES = (foreign_imports, bad_cards, long_files, module_memory, siblings, printing)
