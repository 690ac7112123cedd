"""Parts that a command line can say by name: losses, networks and rewards, as ``gru`` or ``gru(width=128)``, or one's own, as
``MODULE:FUNCTION``."""

from __future__ import annotations

import ast
import importlib
import inspect
import types
import typing
from collections.abc import Callable
from functools import partial
from typing import Any, Union, get_args, get_origin

from .catalog import HOMES
from .names import dotted, of_ones_own


def kinds_of(annotation: Any) -> tuple[type, ...]:
    """The types with factories by name that an annotation is, or has among its alternatives."""
    alternatives = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)
    return tuple(t for t in alternatives if isinstance(t, type) and t.__name__ in HOMES and t.__module__.startswith("steepest."))


def kind_of(annotation: Any) -> type | None:
    """The first of them, or None."""
    return next(iter(kinds_of(annotation)), None)


def factories(kind: type) -> dict[str, Callable[..., Any]]:
    """What makes a part of that type from plain options, by name: public functions of its home that say so."""
    return {name: made for name, made in functions(kind).items() if typing.get_type_hints(made).get("return") is kind}


def ready(kind: type) -> dict[str, Callable[..., Any]]:
    """What is such a part itself, by name: rewards are functions."""
    if kind.__name__ != "Reward":
        return {}
    return {name: found for name, found in functions(kind).items() if "completion" in inspect.signature(found).parameters}


def functions(kind: type) -> dict[str, Callable[..., Any]]:
    home = importlib.import_module(HOMES[kind.__name__])
    found = {name: getattr(home, name) for name in getattr(home, "__all__", vars(home))}
    return {name: made for name, made in found.items() if inspect.isfunction(made)}


def known(*kinds: type) -> dict[str, Callable[..., Any]]:
    """What a command line may say where a part of one of these types is asked for."""
    return {name: made for kind in kinds for name, made in (factories(kind) | ready(kind)).items()}


def part_of(text: str, annotation: Any) -> Any:
    """What `text` says where an option of that type is asked for. A text alone stays one where the option takes texts too (a
    folder of weights) and no part is called so. Raises ValueError, with the nearest name, where nothing is called so."""
    from ..core.near import nearest  # imports torch

    kind, name = kind_of(annotation), text.partition("(")[0]
    if kind is None:
        return text
    there = known(*kinds_of(annotation))

    def find(name: str) -> Callable[..., Any]:
        if name not in there and dotted(name.replace(":", ".")):
            return of_ones_own(name.replace(":", "."))
        if name not in there:
            what = kind.__name__.lower()
            raise ValueError(
                f"no {what} is called {name!r}{nearest(name, there)}: choose of {', '.join(there)}, "
                "or name your own as MODULE:FUNCTION"
            )
        return there[name]

    if text == name not in there and str in get_args(annotation):
        return text
    whole = text == name and kind.__name__ == "Reward" and takes_three(found := find(name))
    return found if whole else made_by(text, find)()


def takes_three(found: Callable[..., Any]) -> bool:
    """Whether a function is a reward; one that takes no prompt, completion and answer makes one."""
    try:
        inspect.signature(found).bind(None, None, None)
    except TypeError:
        return False
    return not isinstance(found, type)


def spoken(text: str) -> tuple[str, dict[str, Any]]:
    """'grpo(lr=2e-4)' -> ("grpo", {"lr": 2e-4}), a name or a call among the values as syntax; raises ValueError for anything but a
    name or a call with such values."""
    name, bracket, rest = text.partition("(")
    try:
        call = ast.parse(f"f({rest}" if bracket else "f()", mode="eval").body
        if not isinstance(call, ast.Call) or call.args or not name:
            raise ValueError("options are given by name")
        return name, {k.arg or "**": k.value if parts(k.value) else ast.literal_eval(k.value) for k in call.keywords}
    except (SyntaxError, ValueError) as error:
        raise ValueError(f"cannot read {text!r}: write name(option=value, ...) with plain values ({error})") from error


def parts(value: ast.expr) -> bool:
    """Whether a value names a part."""
    return isinstance(value, ast.Name) or (isinstance(value, ast.Call) and isinstance(value.func, ast.Name))


def made_by(text: str, find: Callable[[str], Any]) -> partial[Any]:
    """What a name stands for, its options filled in."""
    from ..core.near import nearest
    from .options import coerce, types_of

    name, options = spoken(text)
    make = find(name)
    known = inspect.signature(make).parameters
    hints = types_of(make.func if isinstance(make, partial) else make)
    for option, value in options.items():
        if option not in known:
            raise ValueError(f"{name} has no option {option!r}{nearest(option, known)}; it has {', '.join(known) or 'none'}")
        if isinstance(value, ast.expr):
            options[option] = ast.unparse(value)
            if kind_of(hints.get(option)) is None:
                raise ValueError(f"cannot read {text!r}: {option} takes plain values, not {options[option]}")
    return partial(make, **coerce(make, options))
