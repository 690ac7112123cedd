"""Any environment of Gymnasium, by its id."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..core.problem import Vector
from .flat import converter, viewer
from .keepers import KEEPERS
from .registered import Registered, Stepped, build, known
from .workers import Workers

Array = NDArray[Any]


class OneByOne(Registered):
    """Environments that are Python objects, stepped one after another: in this process, or in several.

    workers   processes among which the environments are shared out; 0: this one. What they give is the same to the bit
    patience  seconds that a worker may take for a step before it is started again
    """

    workers: int
    patience: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.workers < 0:
            raise ValueError(f"workers must be at least 0 (0: this process), not {self.workers}")
        if not self.patience > 0:
            raise ValueError(f"patience must be positive, in seconds, not {self.patience}")
        known(self.id)

    @abstractmethod
    def build(self) -> Any:
        """One environment, in its wrappers."""

    @cached_property
    def true_spaces(self) -> tuple[Any, Any]:  # type: ignore[override]
        env = self.build()
        env.close()
        return env.observation_space, env.action_space

    def make(self, count: int) -> Vector:
        return Workers(self, count) if self.workers else self.local(count)

    def local(self, count: int, first: int = 0) -> Envs:
        """`count` environments in this process, the first of which is number `first` of a larger row."""
        return Envs(self, count, first)


@dataclass(frozen=True)
class Gym(OneByOne):
    """``gymnasium.make(id, **options)``. Actions outside a Box are clipped to it.

    id        as Gymnasium registers it, e.g. HalfCheetah-v5
    options   keywords of `gymnasium.make`
    episodes  greedy episodes of an evaluation
    workers   processes among which the environments are shared out; 0: all in this one. Results never depend on it
    patience  seconds that a worker may take for a step before it is started again
    """

    id: str
    options: dict[str, Any] = field(default_factory=dict)
    episodes: int = 10
    workers: int = 0
    patience: float = 60.0

    def build(self) -> Any:
        return build(self.id, self.options)


@dataclass(frozen=True)
class MiniGrid(OneByOne):
    """A grid world of MiniGrid or BabyAI: the view as 7 x 7 x 3 numbers and the direction, one-hot, in one row.

    The mission, a sentence of no fixed length, is left out: where it changes from episode to episode, register the environment
    inside a wrapper that encodes it (minigrid.wrappers.FlatObsWrapper) and train on that id as a `Gym`.

    id        as MiniGrid registers it, e.g. MiniGrid-Empty-5x5-v0
    options   keywords of `gymnasium.make`
    episodes  greedy episodes of an evaluation
    workers   processes among which the environments are shared out; 0: all in this one. Results never depend on it
    patience  seconds that a worker may take for a step before it is started again
    """

    id: str
    options: dict[str, Any] = field(default_factory=dict)
    episodes: int = 10
    workers: int = 0
    patience: float = 60.0

    def build(self) -> Any:
        from gymnasium.wrappers import FilterObservation

        return FilterObservation(build(self.id, self.options), ["image", "direction"])


class Envs(Stepped):
    """`count` environments in a list.

    `resumes` where the state of the environment is known to be complete: Gymnasium's own MuJoCo and classic-control
    environments, inside no wrapper but Gymnasium's time limit and checks. Others cannot be given a state.
    """

    def __init__(self, problem: OneByOne, count: int, first: int = 0):
        from gymnasium.wrappers import OrderEnforcing, PassiveEnvChecker, TimeLimit

        super().__init__(problem, count, first)
        self.envs = [problem.build() for _ in range(count)]
        inner, limit, plain = self.envs[0], math.inf, True
        while inner is not inner.unwrapped:
            plain &= type(inner) in (OrderEnforcing, PassiveEnvChecker, TimeLimit)
            if type(inner) is TimeLimit:
                limit = min(limit, inner._max_episode_steps)
            inner = inner.env
        home = type(inner).__module__ if plain else ""
        self.keeper = next((keeper for name, keeper in KEEPERS if home.startswith(name)), None)
        self.resumes = self.keeper is not None
        if plain:  # the clock is kept here, so the wrappers have nothing left to do
            self.envs, self.limit = [env.unwrapped for env in self.envs], limit
        seen, takes = problem.true_spaces
        self.see, self.convert, self.single = viewer(seen), converter(takes), hasattr(takes, "n") and takes.shape == ()

    def begin(self, which: Array, seeds: list[int], out: Array) -> None:
        for index, seed in zip(which.tolist(), seeds, strict=True):
            self.see(self.envs[index].reset(seed=seed)[0], out[index])

    def move(self, action: Tensor) -> tuple[Array, Array, Array, Array]:
        next_obs = np.empty((self.count, *self.shape), self.dtype)
        reward = np.empty(self.count, np.float32)
        terminated, truncated = np.zeros(self.count, bool), np.zeros(self.count, bool)
        taken = self.convert(action)
        for index, (env, act) in enumerate(zip(self.envs, taken.tolist() if self.single else taken, strict=True)):
            seen, reward[index], terminated[index], truncated[index], _ = env.step(act)
            self.see(seen, next_obs[index])
        return next_obs, reward, terminated, truncated

    def get_state(self) -> dict[str, Tensor]:
        if self.keeper is None:
            return super().get_state()
        rows = [self.keeper.take(env) for env in self.envs]
        return {name: torch.from_numpy(np.stack([row[name] for row in rows])) for name in rows[0]} | self.counters()

    def set_state(self, state: dict[str, Tensor]) -> None:
        if self.keeper is None:
            return super().set_state(state)
        parts = {name: x.numpy() for name, x in state.items() if name not in ("clock", "episode", "seed")}
        for index, env in enumerate(self.envs):
            self.keeper.give(env, {name: x[index] for name, x in parts.items()})
        self.set_counters(state)
