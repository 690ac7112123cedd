"""Experience for any problem: answers to prompts, or steps in environments."""

from __future__ import annotations

from collections.abc import Callable
from functools import singledispatch
from typing import Any

from ..core.batch import Batch
from ..core.problem import Control, Language
from ..core.state import State
from ..core.stream import Stream

Collect = Callable[[State, Any, Stream], Batch]


def experience(*, prompts: int = 16, group: int = 8, envs: int = 8, horizon: int = 256) -> Collect:
    """A collector that fits the problem it meets.

    prompts, group  on a Language problem: prompts a step, answers to each
    envs, horizon   on a Control problem: environments side by side, steps in each
    """
    sizes = {"prompts": prompts, "group": group, "envs": envs, "horizon": horizon}
    positive(**sizes)
    return lambda state, problem, rng: meet(problem, state, rng, **sizes)


def positive(**sizes: int) -> None:
    """Raises ValueError for the first that is below 1."""
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} must be at least 1, not {size}")


@singledispatch
def meet(problem: Any, state: State, rng: Stream, **sizes: int) -> Batch:
    raise TypeError(
        f"no collector is known for {type(problem).__name__}: neither a Language nor a Control problem; give `collect` yourself"
    )


@meet.register
def _(problem: Language, state: State, rng: Stream, *, prompts: int, group: int, **_: int) -> Batch:
    from .generate import generate

    return generate(prompts=prompts, group=group)(state, problem, rng)


@meet.register
def _(problem: Control, state: State, rng: Stream, *, envs: int, horizon: int, **_: int) -> Batch:
    from .rollout import rollout

    return rollout(envs=envs, horizon=horizon)(state, problem, rng)
