"""A paper as three verbs, and the loop that runs them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from .batch import Batch
from .problem import Problem
from .state import State
from .stream import Stream


@dataclass(frozen=True)
class System:
    """A paper, as three verbs. Making one allocates nothing.

    init     (problem, rng) -> State           builds everything that will change
    collect  (state, problem, rng) -> Batch    model meets problem, without gradients; or any frozen record
    learn    (state, batch, rng) -> metrics    numbers by name
    resumes  False where a live environment cannot give and take its state (rule 13)
    """

    init: Callable[[Any, Stream], State]
    collect: Callable[[State, Any, Stream], Any]
    learn: Callable[[State, Any, Stream], dict[str, Any]]
    resumes: bool = True


@dataclass(frozen=True)
class Record:
    """One step of training: its number (from 1), its metrics, and the live State."""

    step: int
    metrics: dict[str, Any]
    state: State


def train(
    system: System, problem: Any, *, steps: int, seed: int = 0, state: State | None = None, device: str | torch.device = "cpu"
) -> Iterator[Record]:
    """The loop. The caller's ``for`` body is the callback: log, evaluate, save, break.

    Runs until ``state.step == steps``; a given `state` (from a checkpoint, or from another run) goes
    on from where it is. Randomness depends on (seed, step) alone.
    """
    if steps < 0:
        raise ValueError(f"steps must be at least 0, not {steps}")
    if state is None:
        state = begin(system, problem, seed=seed, device=device)
    while state.step < steps:
        rng = Stream(seed, state.step)
        with fitting(problem):
            batch = system.collect(state, problem, rng / "collect")
        if isinstance(batch, Batch):
            batch.check()
        metrics = system.learn(state, batch, rng / "learn")
        state.step += 1
        yield Record(state.step, metrics, state)


def begin(system: System, problem: Any, *, seed: int = 0, device: str | torch.device = "cpu") -> State:
    """The State before the first step. Raises TypeError where the problem is not of the kind that the system is for."""
    with fitting(problem):
        return system.init(problem, Stream(seed, "init")).to(device)


def holding(system: System, **parts: Callable[[State, Any, Stream], nn.Module]) -> System:
    """The same system with more in its State: each part is made by (state, problem, rng), after what was there before."""

    def init(problem: Any, rng: Stream) -> State:
        state = system.init(problem, rng)
        for name, make in parts.items():
            setattr(state, name, make(state, problem, rng / name))
        return state

    return replace(system, init=init)


@contextmanager
def fitting(problem: Any) -> Iterator[None]:
    """Says so where something is asked of the problem that its kind does not have, or of a State that does not hold it."""
    try:
        yield
    except AttributeError as error:
        if isinstance(error.obj, State):
            raise lacking(error.obj, error.name) from error
        if error.obj is not problem:
            raise
        above = [cls.__name__ for cls in type(problem).__mro__[1:] if issubclass(cls, Problem) and cls is not Problem]
        kind = f" (a {above[-1]} problem)" if above else ""
        raise TypeError(
            f"the system does not fit the problem: it needs `{error.name}`, which {type(problem).__name__}{kind} does not have. "
            "Take a problem of the kind that the system's card names"
        ) from error


def lacking(state: State, name: str | None) -> TypeError:
    """What is asked of a State, what it holds, and the way out."""
    held = ", ".join(name for name, _ in state.named_children())
    return TypeError(
        f"`state.{name}` is asked for, and this system's State holds {held}: take the part together with the system that keeps it, "
        f"or put it there with core.system.holding(system, {name}=...)"
    )


def extends(
    parent: Callable[..., System], *, without: Sequence[str] = ()
) -> Callable[[Callable[..., System]], Callable[..., System]]:
    """Say that a system is its difference from `parent`: its ``**options`` are the parent's, `without` those that it drops.

    The signature shown by ``help()`` and by the command line becomes the parent's options under the
    child's own, so that nothing is declared twice.
    """

    def mark(child: Callable[..., System]) -> Callable[..., System]:
        own = inspect.signature(child)
        rest = [p for p in own.parameters.values() if p.kind is p.VAR_KEYWORD]
        if not rest:
            raise TypeError(f"{child.__name__} extends {parent.__name__} but takes no **options to pass on")
        mine = {name: p for name, p in own.parameters.items() if p.kind is not p.VAR_KEYWORD}
        merged = mine | {name: p for name, p in inspect.signature(parent).parameters.items() if name not in (*mine, *without)}
        ordered = sorted(merged.values(), key=lambda p: p.kind)  # stable: the child's order, then the parent's

        @functools.wraps(child)
        def system(*args: Any, **options: Any) -> System:
            return child(*args, **options)

        system.__signature__ = own.replace(parameters=ordered)  # type: ignore[attr-defined]
        system.parent = parent  # type: ignore[attr-defined]
        return system

    return mark
