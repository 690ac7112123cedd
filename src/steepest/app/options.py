"""Typed options of systems, problems and commands as flags of the command line, each with its default, unit and source."""

from __future__ import annotations

import dataclasses
import inspect
import types
import typing
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, make_dataclass
from functools import partial
from operator import getitem
from pathlib import Path
from typing import Annotated, Any, Literal, Union, cast, get_args, get_origin

from .catalog import described
from .parts import kind_of, kinds_of, known, part_of

REQUIRED = dataclasses.MISSING


@dataclass(frozen=True)
class Option:
    """A flag. `group` is the box of the help that it stands in; `type` a plain one (see `plain`). `usual`: without the flag the
    option is not given at all, for its default is a part (a loss, a network) that no text says."""

    name: str
    type: Any
    default: Any
    help: str
    group: str = ""
    positional: bool = False
    flag: str = ""
    usual: bool = False


def plain(annotation: Any) -> bool:
    """Whether a value of this type can be said on a command line: numbers, strings, paths, choices, tuples of them, parts that have
    names (see `parts`), or None."""
    if annotation in (bool, int, float, str, Path, type(None), Ellipsis) or kind_of(annotation) is annotation is not None:
        return True
    if get_origin(annotation) is Literal:
        return True
    return get_origin(annotation) in (Union, types.UnionType, tuple) and all(map(plain, get_args(annotation)))


def in_words(annotation: Any) -> Any:
    """What is left of a type without the rows of data that Python alone can give beside a path."""
    if get_origin(annotation) not in (Union, types.UnionType):
        return annotation
    return Union[tuple(part for part in get_args(annotation) if get_origin(part) is not Iterable)]  # noqa: UP007  of a tuple


def options_of(make: Callable[..., Any], group: str, given: dict[str, Any] | None = None) -> list[Option]:
    """The plain keyword options of what `make` makes; `given` are defaults that replace its own, and the help says so."""
    built = make.func if isinstance(make, partial) else make
    fixed = make.keywords.keys() if isinstance(make, partial) else ()
    hints, texts, found = {name: in_words(hint) for name, hint in types_of(built).items()}, documents(built), []
    for name, parameter in inspect.signature(make).parameters.items():
        if name in fixed or parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL) or not plain(hints.get(name)):
            continue
        default = REQUIRED if parameter.default is parameter.empty else parameter.default
        help = next((line for line in (described(text, name) for text in texts) if line), "")
        if given and name in given and given[name] != default:
            usual = "" if default is REQUIRED else f"; elsewhere {default}"
            help, default = f"{help} [here as in its claim{usual}]", given[name]
        found.append(by_name(Option(name, hints[name], default, help, group)))
    return found


def by_name(option: Option) -> Option:
    """An option that takes a part: the flag takes the part's name, and the help says which there are."""
    kinds = kinds_of(option.type)
    if not kinds:
        return option
    usual = option.default is not REQUIRED and not isinstance(option.default, (str, type(None)))
    help = f"{option.help} [one of {', '.join(known(*kinds))}, options in brackets{f'; default: {option.default}' * usual}]"
    kept = dataclasses.replace(option, type=str | None, help=help, usual=usual)
    return dataclasses.replace(kept, default=None) if usual else kept


def types_of(built: Any) -> dict[str, Any]:
    """Types by name, those of parents included."""
    found: dict[str, Any] = {}
    while built is not None:
        try:
            found = typing.get_type_hints(built) | found
        except NameError:  # an annotation that only a type checker can read: the others still count
            found = {k: v for k, v in inspect.get_annotations(built).items() if not isinstance(v, str)} | found
        built = getattr(built, "parent", None)
    return found


def documents(built: Any) -> list[str]:
    """Docstrings in which options are described: the system's and its parents', or the class's and its bases'."""
    if isinstance(built, type):
        return [inspect.cleandoc(cls.__doc__) for cls in built.__mro__ if cls.__doc__ and cls is not object]
    found: list[str] = []
    while built is not None:
        found.append(inspect.getdoc(built) or "")
        built = getattr(built, "parent", None)
    return found


def fields_of(command: type) -> list[Option]:
    """The options of a command: a field with no default is required; the first of them is positional."""
    hints, text = typing.get_type_hints(command), inspect.cleandoc(command.__doc__ or "")
    found: list[Option] = []
    for f in dataclasses.fields(command):
        if plain(hints[f.name]):
            first = f.default is REQUIRED and not any(option.positional for option in found)
            found.append(Option(f.name, hints[f.name], f.default, described(text, f.name), positional=first))
    return found


def without_clashes(options: Sequence[Option]) -> list[Option]:
    """Flags by which each option can be told: one that an earlier group has too becomes --GROUP.NAME, e.g. --dppo.steps."""
    taken: set[str] = set()
    found: list[Option] = []
    for option in options:
        flag = option.name.replace("_", "-")
        if flag in taken:
            flag = f"{option.group}.{flag}"
        taken.add(flag)
        found.append(dataclasses.replace(option, flag=flag))
    return found


def parse(options: Sequence[Option], args: Sequence[str], *, prog: str, description: str) -> dict[str, dict[str, Any]]:
    """Read `args`: values by group and name. Prints help or one error and raises SystemExit where there is nothing to run."""
    import tyro

    def column(option: Option) -> tuple[str, Any, Any]:
        # what the help says already needs no hint; an empty tuple has none of its own
        hint = "" if not option.default and "default:" in option.help else "(default: none)" if option.default == () else None
        said: list[Any] = [
            tyro.conf.arg(name=None if option.positional else option.flag, help=option.help or "\u200b", help_behavior_hint=hint)
        ]
        if option.positional:
            said[0] = tyro.conf.arg(metavar=option.name.upper(), help=option.help)
            said.append(tyro.conf.Positional)
        if option.type is bool and option.default is False:
            said.append(tyro.conf.FlagCreatePairsOff)
        # tyro takes a name's letters from the field, and flags hold dots: fields are numbered, flags given
        kind = getitem(cast(Any, Annotated), (option.type, *said))
        return f"o{names[id(option)]}", kind, field() if option.default is REQUIRED else field(default=option.default)

    told = without_clashes(options)
    names = {id(option): number for number, option in enumerate(told)}
    ordered = sorted(told, key=lambda option: option.default is not REQUIRED)
    boxes: list[tuple[str, Any, Any]] = [column(option) for option in ordered if not option.group]
    for number, group in enumerate(dict.fromkeys(option.group for option in told if option.group)):
        inside = [column(option) for option in ordered if option.group == group]
        needed = any(option.default is REQUIRED for option in told if option.group == group)
        box = make_dataclass(f"Group{number}", inside)
        boxes.append(
            (f"g{number}", Annotated[box, tyro.conf.arg(name=group)], field() if needed else field(default_factory=box))
        )
    boxes.sort(key=lambda entry: not (entry[2].default is REQUIRED and entry[2].default_factory is REQUIRED))
    read: Any = tyro.cli(
        make_dataclass("Options", boxes), args=list(args), prog=prog, description=description, config=(tyro.conf.OmitArgPrefixes,)
    )
    groups = list(dict.fromkeys(option.group for option in told if option.group))
    found: dict[str, dict[str, Any]] = {group: {} for group in ("", *groups)}
    for option in told:
        holder = getattr(read, f"g{groups.index(option.group)}") if option.group else read
        value = getattr(holder, f"o{names[id(option)]}")
        if not (option.usual and value is None):
            found[option.group][option.name] = value
    return found


def coerce(make: Callable[..., Any], said: dict[str, Any]) -> dict[str, Any]:
    """Options that went through JSON or were said in words, as what they were: tuples, paths, and parts by their names."""
    hints = types_of(make.func if isinstance(make, partial) else make)

    def back(value: Any, hint: Any) -> Any:
        if isinstance(value, list):
            return tuple(back(part, hint) for part in value)
        if isinstance(value, str) and kind_of(hint) is not None:
            return part_of(value, hint)
        return Path(value) if isinstance(value, str) and mentions(hint, Path) and not mentions(hint, str) else value

    return {name: back(value, hints.get(name)) for name, value in said.items()}


def mentions(hint: Any, kind: type) -> bool:
    return hint is kind or any(mentions(part, kind) for part in get_args(hint))


def to_json(value: Any) -> Any:
    """A plain value as JSON can hold it."""
    if isinstance(value, (tuple, list)):
        return [to_json(part) for part in value]
    return str(value) if isinstance(value, Path) else value


def summary(text: str) -> str:
    """The part of a docstring before its options."""
    kept: list[str] = []
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        first = paragraph.split("\n")[0].strip()
        if len(first.split("  ")) > 1 and first.split("  ")[0].replace(", ", "").isidentifier():
            break
        kept.append(" ".join(paragraph.split()))
    return "\n\n".join(kept)
