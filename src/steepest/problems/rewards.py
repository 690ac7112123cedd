"""Reward functions: any Python callable, called so that it cannot hurt a run; and answers that are numbers, verified."""

from __future__ import annotations

import functools
import json
import math
import numbers
import os
import re
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing import connection
from typing import Any, Protocol

import torch
from torch import Tensor

from ..core.problem import finite


class Reward(Protocol):
    """(prompt, completion, answer, and further columns by their names) -> how good the completion is."""

    def __call__(self, *args: Any, **columns: Any) -> float: ...


# ------------------------------------------------------------------------------------ calls that may fail


def guarded(
    reward: Callable[..., Any], calls: Sequence[tuple[Any, ...]], *, seconds: float | None = 10.0, failing: float = 0.0
) -> tuple[Tensor, int]:
    """``reward(*call)`` of each call, [N] float32, and how many calls failed; those have the value `failing`.

    reward   any callable that gives a number; it need not be picklable
    seconds  time limit of a call; None: none
    failing  the reward of a call that raised, hung or ended its process

    With a time limit the calls run one after the other in a forked process, one for the whole batch. A call that takes
    longer is ended by SIGKILL, and with it every process that it started and that did not leave its session; the rest
    goes on in a new one. This ends what an exception or an alarm cannot: loops in C code, ``except: pass``, a crash of
    the interpreter, ``os._exit``; it works from any thread. What the function changes in memory is lost with the
    process, and a GPU that this process uses cannot be used in it. Without a limit (`seconds` None) the function runs
    here: exceptions are caught, `sys.exit` too, and nothing ends a hang.

    Failures give one warning, of the first. Raises ValueError, naming the function and the index, where a call gives
    something else than a finite number: that is a mistake of the function, not of a sample.
    """
    if seconds is not None and not seconds > 0:
        raise ValueError(f"seconds must be positive, or None for no limit, not {seconds}")
    if not math.isfinite(failing):
        raise ValueError(f"failing must be a finite number, not {failing}")
    if seconds is not None and not hasattr(os, "fork"):
        raise ValueError("a time limit needs os.fork, which this system lacks: seconds=None calls the function in this process")
    name = named(reward)
    outcomes = [tried(reward, call) for call in calls] if seconds is None else in_processes(reward, calls, seconds)
    for index, (kind, said) in enumerate(outcomes):
        if kind == "wrong":
            raise ValueError(f"the reward {name} gave {said} for answer {index}: it must give one number for each answer")
    failures = [said for kind, said in outcomes if kind == "failed"]
    if failures:
        warnings.warn(
            f"the reward {name} failed, so that its answer counts {failing:g}: {failures[0]}", RuntimeWarning, stacklevel=2
        )
    values = [failing if kind == "failed" else said for kind, said in outcomes]
    return finite(values, len(calls), f"the reward {name}"), len(failures)


Outcome = tuple[str, Any]  # ("value", number), ("wrong", what was given instead) or ("failed", why)


def tried(reward: Callable[..., Any], call: tuple[Any, ...]) -> Outcome:
    try:
        value = reward(*call)
        if getattr(value, "ndim", None) == 0:  # of an array or a tensor
            value = value.item()
        return ("value", float(value)) if isinstance(value, numbers.Real) else ("wrong", repr(value)[:200])
    except (Exception, SystemExit) as error:
        return "failed", f"{type(error).__name__}: {error}"[:500]


def in_processes(reward: Callable[..., Any], calls: Sequence[tuple[Any, ...]], seconds: float) -> list[Outcome]:
    """`tried` of every call, in as many forked processes as it takes."""
    outcomes: list[Outcome] = []
    while len(outcomes) < len(calls):
        reader, writer = connection.Pipe(duplex=False)
        sys.stdout.flush()
        sys.stderr.flush()
        with warnings.catch_warnings():  # Python 3.12 warns of other threads: their locks are not needed here
            warnings.simplefilter("ignore", DeprecationWarning)
            process = os.fork()
        if process == 0:
            serve(reward, calls[len(outcomes) :], seconds, writer)
        writer.close()
        try:
            while len(outcomes) < len(calls):
                if not reader.poll(seconds):
                    outcomes.append(("failed", f"it took longer than {seconds:g} s"))
                    break
                outcomes.append(tuple(json.loads(reader.recv_bytes())))
        except EOFError:
            outcomes.append(("failed", "it ended its process"))
        finally:
            reader.close()
            end(process)
    return outcomes


def serve(reward: Callable[..., Any], calls: Sequence[tuple[Any, ...]], seconds: float, writer: Any) -> None:
    """What the forked process does. It never returns."""
    try:
        os.setsid()  # a group of its own: Ctrl-C does not reach it, and it can be ended whole
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM):
            signal.signal(number, signal.SIG_DFL)
        torch.set_num_threads(1)  # a pool of threads does not survive a fork
        for call in calls:
            signal.setitimer(signal.ITIMER_REAL, 2 * seconds + 1)  # should the parent be killed, this one ends too
            outcome = tried(reward, call)
            sys.stdout.flush()
            sys.stderr.flush()
            writer.send_bytes(json.dumps(outcome).encode())
    finally:
        os._exit(0)


def end(process: int) -> None:
    with suppress(ProcessLookupError, PermissionError):  # it has not begun, or (macOS) it has ended
        os.killpg(process, signal.SIGKILL)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)


def named(function: Any) -> str:
    if isinstance(function, functools.partial):
        return named(function.func)
    return getattr(function, "__qualname__", None) or type(function).__name__


# ------------------------------------------------------------------------------------ answers that are numbers

CURRENCY = r"(?:\\?\$|[€£¥₹])"
NUMBER = re.compile(
    rf"""\s* {CURRENCY}? \s* (?P<sign>[-+−]?) \s* {CURRENCY}? \s*
    (?P<whole>[0-9]{{1,3}}(?:,[0-9]{{3}})+ | [0-9]*) (?:\.(?P<part>[0-9]*))?
    (?P<unit>[^0-9]*)""",
    re.VERBOSE | re.DOTALL,
)
BOX = r"\boxed{"


def numeric(prompt: str, completion: str, answer: str) -> float:
    """1 if the final answer of a completion is the number `answer`, however it is spelt; else 0."""
    said = number(final_answer(completion))
    return float(said is not None and said == number(answer))


def final_answer(text: str) -> str:
    r"""What stands behind the last ``####``, to the end of its line, or in the last ``\boxed{}``, whichever comes later.

    Nothing where there is neither.

    >>> final_answer("5 + 13 = 18\n#### $18.00\nDone."), final_answer(r"so \boxed{\frac{1}{2}}."), final_answer("18")
    ('$18.00', '\\frac{1}{2}', '')
    """
    mark, box = text.rfind("####"), text.rfind(BOX)
    if mark < 0 and box < 0:
        return ""
    if mark > box:
        return text[mark + 4 :].strip().partition("\n")[0].strip()
    depth, inside = 1, text[box + len(BOX) :]
    for place, letter in enumerate(inside):
        depth += (letter == "{") - (letter == "}")
        if depth == 0:
            return inside[:place].strip()
    return ""  # it was never closed


def number(text: str) -> str | None:
    r"""The number that a text is, in its shortest decimal form, so that equal numbers are equal strings; None if it is none.

    A currency sign before it, commas between thousands, zeros at the ends, and a unit behind it (whatever holds no
    numeral: percent, words) do not matter; nor do ``**bold**``, ``$math$`` and LaTeX's ``\text{}``, ``\$``, ``{,}``.

    >>> number("$1,234.50"), number("-007 apples"), number(r"18\%"), number("3 or 4"), number("1,5")
    ('1234.5', '-7', '18', None, None)
    """
    for old, new in (("{,}", ","), ("\\!", ""), ("\\,", " "), ("\\(", ""), ("**", "")):
        text = text.replace(old, new)
    found = NUMBER.fullmatch(text)
    if found is None or not (found["whole"] or found["part"]) or any(c.isnumeric() for c in found["unit"]):
        return None  # the last: 3½, 5², 18万
    whole = found["whole"].replace(",", "").lstrip("0") or "0"
    part = (found["part"] or "").rstrip("0")
    sign = "-" if found["sign"] in ("-", "−") and (whole != "0" or part) else ""
    return f"{sign}{whole}.{part}" if part else f"{sign}{whole}"
