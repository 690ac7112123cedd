"""Reward functions: any Python callable, called so that it cannot hurt a run."""

from __future__ import annotations

import functools
import json
import math
import numbers
import os
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing import connection
from typing import Any, Protocol

import torch
from torch import Tensor

from ...core.problem import Unavailable, finite


class Reward(Protocol):
    """(prompt, completion, answer, and further columns by their names) -> how good the completion is."""

    def __call__(self, *args: Any, **columns: Any) -> float: ...


def graded(
    reward: Callable[..., Any], calls: Sequence[tuple[Any, ...]], *, seconds: float | None = 10.0, failing: float = 0.0
) -> tuple[Tensor, dict[str, float]]:
    """`reward` of each call (prompt, completion, answer), [N] float32, and numbers that the step reports.

    A reward with a method ``grade(calls, seconds=, failing=) -> (scores, numbers)`` scores all calls at once and guards itself:
    a mix of rewards, programs that run side by side, a model that judges. Any other is called by `guarded`.
    """
    own = getattr(reward, "grade", None)
    if own is not None:
        score, told = own(calls, seconds=seconds, failing=failing)
        return finite(score, len(calls), f"the reward {named(reward)}"), told
    score, failures = guarded(reward, calls, seconds=seconds, failing=failing)
    return score, {} if seconds is None else {"reward_failures": float(failures)}


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
    something else than a finite number: that is a mistake of the function, not of a sample. `Unavailable` is passed on: what
    the function needs is not there, and that is no mistake of a sample either.
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
        if kind == "absent":
            raise Unavailable(said)
    failures = [said for kind, said in outcomes if kind == "failed"]
    if failures:
        warnings.warn(
            f"the reward {name} failed, so that its answer counts {failing:g}: {failures[0]}", RuntimeWarning, stacklevel=2
        )
    values = [failing if kind == "failed" else said for kind, said in outcomes]
    return finite(values, len(calls), f"the reward {name}"), len(failures)


Outcome = tuple[str, Any]  # ("value", number), ("wrong", what was given instead), ("failed", why) or ("absent", why)


def tried(reward: Callable[..., Any], call: tuple[Any, ...]) -> Outcome:
    try:
        value = reward(*call)
        if getattr(value, "ndim", None) == 0:  # of an array or a tensor
            value = value.item()
        return ("value", float(value)) if isinstance(value, numbers.Real) else ("wrong", repr(value)[:200])
    except Unavailable as error:
        return "absent", str(error)
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
