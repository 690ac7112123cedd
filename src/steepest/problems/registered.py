"""What every engine for Gymnasium's ids shares: the id, the spaces, and the one place where finished episodes begin again."""

from __future__ import annotations

import importlib
import math
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..core.near import nearest
from ..core.problem import Control, Step, Vector, flat_size, is_bytes
from ..core.stream import Stream
from .control import greedy
from .flat import flat_actions

Array = NDArray[Any]

# how an id begins, the module that registers it, the extra of steepest that installs it
PACKAGES = (("ALE/", "ale_py", "atari"), ("MiniGrid-", "minigrid", "minigrid"), ("BabyAI-", "minigrid", "minigrid"))


class Unknown(ValueError):
    """No environment has that id."""


def known(name: str) -> Any:
    """Gymnasium's specification of the id `name`, the package that registers it being imported first; raises ValueError with the
    extra to install where that is missing, and `Unknown` with the nearest ids where nothing is called so."""
    import gymnasium

    for start, module, extra in PACKAGES:
        if name.startswith(start):
            need(module, extra, name)
    try:
        return gymnasium.spec(name)
    except Exception as error:  # what a module of the user's own raises while it registers is told, whatever it is
        why = str(error).splitlines()[0]
        raise Unknown(f"Gymnasium cannot find {name!r}: {why}{nearest(name, gymnasium.registry)}") from error


def need(module: str, extra: str, what: str) -> Any:
    """The module of that name; raises ValueError with the extra that installs it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ValueError(
            f"{what} needs the package {module}, which cannot be imported ({error}): pip install 'steepest[{extra}]'"
        ) from error


@contextmanager
def hushed(spec: Any) -> Iterator[None]:
    """MuJoCo's compiler warns, for each environment that is built, of what Gymnasium's own robots are made of, and writes a file
    into the working folder: nobody who trains on them can help it."""
    if "mujoco" not in str(spec.entry_point):
        yield
        return
    import mujoco

    before = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(lambda text: None)
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(before)


def build(name: str, options: dict[str, Any]) -> Any:
    """One environment as Gymnasium makes it, in its wrappers; raises ValueError where it does not take the options."""
    import gymnasium

    spec = known(name)
    try:
        with hushed(spec):
            return gymnasium.make(name, disable_env_checker=True, **options)
    except TypeError as error:
        raise ValueError(f"{name} does not take the options {options}: {error}") from error


class Registered(Control):
    """A control problem that is named by an id."""

    id: str
    options: dict[str, Any]
    episodes: int

    def __post_init__(self) -> None:
        if self.episodes < 1:
            raise ValueError(f"episodes must be at least 1, not {self.episodes}")

    @property
    @abstractmethod
    def true_spaces(self) -> tuple[Any, Any]:
        """Of observations and of actions, as the environment has them."""

    @property
    def observation_space(self) -> Any:  # type: ignore[override]
        space = self.true_spaces[0]
        flat_size(space)
        return space

    @property
    def action_space(self) -> Any:  # type: ignore[override]
        return flat_actions(self.true_spaces[1], self.id)

    def evaluate(self, policy: Any, rng: Stream) -> dict[str, float]:
        """`return` of greedy episodes, mean; `return_std` between them; `length`."""
        return greedy(self, policy, self.episodes, rng)


class Stepped(Vector):
    """`count` environments of an engine, which says how they begin and how they move. What all have in common is done here, once:
    finished ones begin again in the same call and their true last observation stays, the clock, and numbers that are none.

    An episode is seeded by its address (seed, environment, its episode), so that three integers stand for all the randomness to
    come. `first` is the number of the first environment, where these are a part of a larger row of them.
    """

    limit: float = math.inf  # steps after which the clock kept here ends an episode

    def __init__(self, problem: Registered, count: int, first: int = 0):
        if count < 1:
            raise ValueError(f"at least one environment is needed, not {count}")
        self.problem, self.count, self.first, self.seed = problem, count, first, 0
        space = problem.observation_space
        self.shape, self.dtype = (flat_size(space),), np.uint8 if is_bytes(space) else np.float32
        self.clock, self.episode = np.zeros(count, np.int64), np.zeros(count, np.int64)

    @abstractmethod
    def begin(self, which: Array, seeds: list[int], out: Array) -> None:
        """Begin an episode in each environment of `which` [W], and write what they show to these rows of `out` [count, O]."""

    @abstractmethod
    def move(self, action: Tensor) -> tuple[Array, Array, Array, Array]:
        """One step of all -> true successors [count, O], reward [count] float32, terminated and truncated [count] bool, all in
        memory of their own."""

    def renew(self, which: Array, out: Array) -> None:
        addresses = [Stream(self.seed, self.first + i, self.episode[i]) for i in which.tolist()]
        self.begin(which, [address.seed % 2**31 for address in addresses], out)
        self.clock[which] = 0
        self.episode[which] += 1
        for index in which.tolist():
            if not np.isfinite(out[index]).all():
                self.refuse(index, "an observation that is not finite")

    def reset(self, rng: Stream) -> Tensor:
        self.seed = rng.seed
        self.episode[:] = 0
        obs = np.zeros((self.count, *self.shape), self.dtype)
        self.renew(np.arange(self.count), obs)
        return torch.from_numpy(obs)

    def step(self, action: Tensor) -> Step:
        self.clock += 1
        next_obs, reward, terminated, truncated = self.move(action)
        over = terminated | truncated | (self.clock >= self.limit)
        truncated = over & ~terminated
        seen = 0.0 if next_obs.dtype == np.uint8 else float(next_obs.sum())
        if not math.isfinite(seen + float(reward.sum())):  # or finite numbers whose sum is not
            for index in range(self.count):
                if not np.isfinite(reward[index]):
                    self.refuse(index, f"the reward {reward[index]}")
                if not np.isfinite(next_obs[index]).all():
                    self.refuse(index, "an observation that is not finite")
        obs = next_obs
        if over.any():
            obs = next_obs.copy()
            self.renew(over.nonzero()[0], obs)
        return Step(*map(torch.from_numpy, (obs, next_obs, reward, terminated, truncated)))

    def refuse(self, index: int, what: str) -> None:
        raise Undefined(
            f"{self.problem.id}, environment {self.first + index}, gave {what} at step {self.clock[index]} of its episode "
            f"{self.episode[index]}: its physics has diverged or its reward is undefined there"
        )

    def counters(self) -> dict[str, Tensor]:
        own = {"clock": self.clock, "episode": self.episode, "seed": np.array([self.seed])}
        return {name: torch.from_numpy(x.copy()) for name, x in own.items()}

    def set_counters(self, state: dict[str, Tensor]) -> None:
        self.clock, self.episode = (state[name].numpy().copy() for name in ("clock", "episode"))
        self.seed = int(state["seed"][0])

    def get_state(self) -> dict[str, Tensor]:
        raise NotImplementedError(
            f"{self.problem.id} cannot give its state (resumes is False): only Gymnasium's own MuJoCo and classic-control "
            "environments can"
        )

    def set_state(self, state: dict[str, Tensor]) -> None:
        raise NotImplementedError(f"{self.problem.id} cannot be given a state (resumes is False)")


class Undefined(ValueError):
    """An environment gave numbers that are none."""
