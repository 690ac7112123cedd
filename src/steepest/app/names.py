"""A name becomes an object once, here. Everything is found by reading the package's source, so that nothing heavy is imported."""

from __future__ import annotations

import ast
import importlib
import pkgutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.near import nearest
from .catalog import papers, sayable

if TYPE_CHECKING:
    from ..core import System
    from ..evidence import Claim

HOME = Path(__file__).parents[1]


def all_systems() -> dict[str, str]:
    """Family by slug, of every system that has a file."""
    families = [m.name for m in pkgutil.iter_modules([str(HOME / "systems")]) if m.ispkg]
    return {m.name: family for family in families for m in pkgutil.iter_modules([str(HOME / "systems" / family)])}


def all_problems() -> dict[str, str]:
    """Module by class name, of every problem of the library that can be made from options: a dataclass below `Problem`."""
    bases: dict[str, list[str]] = {name: ["Problem"] for name in ("Language", "Pool", "Control")}
    found: dict[str, str] = {}
    for module in pkgutil.iter_modules([str(HOME / "problems")]):
        if module.ispkg:  # parts of problems: rewards, the sandbox
            continue
        for node in ast.parse((HOME / "problems" / f"{module.name}.py").read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef):
                bases[node.name] = [ast.unparse(base).split("[")[0].split(".")[-1] for base in node.bases]
                if any("dataclass" in ast.unparse(mark) for mark in node.decorator_list) and needs_only_words(node):
                    found[node.name] = module.name

    def below(name: str) -> bool:
        return name == "Problem" or any(below(base) for base in bases.get(name, ()))

    return {name: module for name, module in sorted(found.items()) if below(name)}


def needs_only_words(made: ast.ClassDef) -> bool:
    """Whether all that a dataclass needs can be said on a command line."""

    def given(value: ast.expr | None) -> bool:
        if isinstance(value, ast.Call) and ast.unparse(value.func).split(".")[-1] == "field":
            return any(word.arg in ("default", "default_factory") for word in value.keywords)
        return value is not None

    needed = [part.annotation for part in made.body if isinstance(part, ast.AnnAssign) and not given(part.value)]
    return all(map(sayable, needed))


def of_ones_own(name: str) -> Any:
    """What a dotted name stands for: a function or class of a module of the user; raises ValueError with the reason."""
    module, _, own = name.rpartition(".")
    try:
        return getattr(importlib.import_module(module), own)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"{name} cannot be found ({error}): a dotted name is MODULE.FUNCTION, importable from the folder that you are in"
        ) from error


def dotted(name: str) -> bool:
    return all(part.isidentifier() for part in name.split(".")) and "." in name


def find_system(name: str) -> Callable[..., System]:
    """The function of that name, or of a dotted name of the user's own; raises ValueError and suggests the nearest."""
    if dotted(name):
        return of_ones_own(name)
    known = all_systems()
    if name not in known:
        raise ValueError(f"no system is called {name!r}{planned(name)}{nearest(name, known)}. `steepest list` names all of them")
    found = getattr(importlib.import_module(f"steepest.systems.{known[name]}.{name}"), name, None)
    if not callable(found):
        raise ValueError(f"systems/{known[name]}/{name}.py defines no function {name}: it is a part, not a system")
    return found


def planned(name: str) -> str:
    """What to add where the name is that of a paper of the catalog."""
    return " yet: it is planned" if any(slug == name for slug, *_ in papers()) else ""


def find_problem(name: str) -> Callable[..., Any]:
    """What makes the problem of that name from its options: one of the library's own, of the user's, or any Gymnasium id."""
    if dotted(name):
        return of_ones_own(name)
    known = all_problems()
    plain = {own.lower().replace("_", ""): own for own in known}
    own = name if name in known else plain.get(name.lower().replace("-", "").replace("_", ""))
    if own is not None:
        return getattr(importlib.import_module(f"steepest.problems.{known[own]}"), own)
    engines: Any = importlib.import_module("steepest.problems.engines")
    try:
        return partial(engines.engine(name), id=name)
    except engines.Unknown as error:
        import gymnasium

        others = [*known, *gymnasium.registry]
        raise ValueError(
            f"no problem is called {name!r}{nearest(name, others)}. The library's own are {', '.join(known)}; "
            f"any other is an id that Gymnasium knows ({str(error.__cause__).splitlines()[0]})"
        ) from error


def find_claim(name: str) -> Claim | None:
    """The claim of a system, or None where it has none, or one that trains another system and so says nothing of this one's
    options and problem."""
    family = all_systems().get(name)
    if family is None or not (HOME / "evidence" / family / f"{name}.py").exists():
        return None
    claim = getattr(importlib.import_module(f"steepest.evidence.{family}.{name}"), "claim", None)  # it may be an analysis alone
    return claim if claim is not None and claim.ours.func is find_system(name) else None


def problem_name(make: Any) -> str:
    """The name by which `find_problem` finds what `make` makes; raises ValueError where it finds something else."""
    built = make.func if isinstance(make, partial) else make
    said = str(getattr(make, "keywords", {}).get("id", ""))
    usual = find_problem(said) if said else None
    name = said if isinstance(usual, partial) and usual.func is built else built.__name__
    found = find_problem(name)
    if (found.func if isinstance(found, partial) else found) is not built:
        raise ValueError(f"{built.__module__}.{built.__qualname__} cannot be found by its name {name!r}")
    return name
