"""The command line: which words lead where. Commands are imported when they are asked for."""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .. import __version__


@dataclass(frozen=True)
class Word:
    """A command: its class, a line about it, and how it is written."""

    where: str
    about: str
    usage: str


COMMANDS = (
    ("list", Word("catalog:List", "every system and its state", "list [--family F]")),
    ("show", Word("catalog:Show", "what a system is: card, options, evidence", "show NAME")),
    ("train", Word("train:Train", "train a system on a problem", "train NAME [--problem P] [--steps N]")),
    ("resume", Word("train:Resume", "go on with a run, bitwise", "resume DIR")),
    ("evaluate", Word("evaluate:Evaluate", "judge a trained policy", "evaluate DIR")),
    ("watch", Word("watch:Watch", "film a trained policy, without a screen", "watch DIR")),
    ("compare", Word("compare:Compare", "several systems, the same problem and seeds", "compare A B --problem P")),
    ("guide", Word("guide:Guide", "the on-policy systems under one budget", "guide [--systems A B]")),
    ("losses", Word("losses:Losses", "every loss on text, control and denoising", "losses [--losses A B]")),
    ("reproduce", Word("reproduce:Reproduce", "run a paper's claim and judge it", "reproduce NAME")),
    ("analyse", Word("analyse:Analyse", "run an analysis: many treatments, several numbers", "analyse NAME")),
    ("check", Word("check:Check", "the laws that every system obeys, run on one", "check NAME")),
    ("report", Word("report:Report", "one HTML page about runs and claims", "report DIR ...")),
)


def main(args: Sequence[str] | None = None) -> int:
    """Run one command. -> exit status: 0 done, 1 it failed, 2 it was asked wrongly, 130 interrupted."""
    words = list(sys.argv[1:] if args is None else args)
    errors = Console(stderr=True)
    if not words or words[0] in ("-h", "--help", "help"):
        usage()
        return 0 if words else 2
    if words[0] == "--version":
        print(f"steepest {__version__}")
        return 0
    commands = dict(COMMANDS)
    if words[0] not in commands:
        from ..core.near import nearest

        complain(errors, f"no command is called {words[0]!r}{nearest(words[0], commands)}. The commands are {', '.join(commands)}")
        return 2
    if os.getcwd() not in sys.path:  # modules of the user's own, behind all others so that none is shadowed
        sys.path.append(os.getcwd())
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_, **__: errors.print(  # type: ignore[assignment]
            f"[yellow]warning:[/] {escape(str(message))}", highlight=False, soft_wrap=True
        )
        try:
            return read(words[0], commands[words[0]], words[1:]).run()
        except SystemExit as asked:  # help, or wrong options, which were told
            return int(asked.code or 0) if not isinstance(asked.code, str) else 2
        except KeyboardInterrupt:
            complain(errors, "interrupted")
            return 130
        except BrokenPipeError:  # the reader, `head` say, has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        except (ValueError, TypeError, OSError, ImportError, RuntimeError, ArithmeticError, LookupError) as error:
            if "STEEPEST_DEBUG" in os.environ:
                raise
            said = str(error) if isinstance(error, (ValueError, OSError)) else f"{type(error).__name__}: {error}"
            complain(errors, said)
            return 2 if isinstance(error, ValueError) else 1


def read(name: str, word: Word, args: list[str]) -> Any:
    """The command, its options read."""
    module, _, own = word.where.partition(":")
    command: Any = getattr(importlib.import_module(f".{module}", __package__), own)
    if hasattr(command, "parse"):
        return command.parse(args, f"steepest {name}")
    from .options import fields_of, parse, summary

    return command(**parse(fields_of(command), args, prog=f"steepest {name}", description=summary(command.__doc__))[""])


def usage() -> None:
    console, grid = Console(), Table.grid(padding=(0, 3))
    console.print(f"[bold]steepest[/] {__version__}: policy optimization\n", highlight=False)
    for _, word in COMMANDS:
        grid.add_row(f"  steepest [bold]{escape(word.usage)}[/]", word.about)
    console.print(grid, highlight=False)
    console.print("\n`steepest COMMAND --help` shows the options; `steepest train NAME --help` the system's too.", highlight=False)


def complain(console: Console, said: str) -> None:
    console.print(f"[bold red]error:[/] {escape(said)}", highlight=False, soft_wrap=True)
