"""Engines that step many environments in threads of their own, in C++: EnvPool, and the Arcade Learning Environment's."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..core.near import nearest
from ..core.problem import Vector
from .flat import converter, viewer
from .registered import Registered, Stepped, known, need

Array = NDArray[Any]


@dataclass(frozen=True)
class EnvPool(Registered):
    """Environments of EnvPool. Needs the extra `envpool`. They cannot be given a state, and their observations and resets are
    EnvPool's own: near Gymnasium's, not equal.

    Every environment is seeded once, when the run starts, and draws its later episodes from its own generator.

    id        as `envpool.list_all_envs()` has it, e.g. HalfCheetah-v5
    options   keywords of `envpool.make`
    episodes  greedy episodes of an evaluation
    threads   that share the environments; 0: as many as torch uses. Results never depend on it
    """

    id: str
    options: dict[str, Any] = field(default_factory=dict)
    episodes: int = 10
    threads: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.threads < 0:
            raise ValueError(f"threads must be at least 0 (0: as many as torch uses), not {self.threads}")
        ids = need("envpool", "envpool", f"EnvPool({self.id!r})").list_all_envs()
        if self.id not in ids:
            raise ValueError(f"EnvPool has no {self.id!r}{nearest(self.id, ids)}")

    @cached_property
    def true_spaces(self) -> tuple[Any, Any]:  # type: ignore[override]
        pool = self.pool(1, [0])
        return pool.observation_space, pool.action_space

    def pool(self, count: int, seeds: list[int]) -> Any:
        import envpool

        threads = min(self.threads or torch.get_num_threads(), count)
        try:
            return envpool.make(
                self.id, env_type="gymnasium", num_envs=count, num_threads=threads, seed=seeds, **self.options
            )  # fmt: skip
        except TypeError as error:
            raise ValueError(f"{self.id} does not take the options {self.options}: {error}") from error

    def make(self, count: int) -> Vector:
        return Pooled(self, count)


@dataclass(frozen=True)
class Atari(Registered):
    """A game of the Arcade Learning Environment. Needs the extra `atari`. It cannot be given a state.

    Observations are the last `frames` pictures, 84 x 84 in grey, uint8; an action is held for `skip` frames, of which the last
    two are merged by their maximum, and is replaced by the one before with probability `sticky` (Machado et al., 2018).
    Every environment is seeded once, when the run starts, and draws its later episodes from its own generator.
    An episode ends with the game, or is truncated after `limit` steps, by a clock of this library's: that of the emulator stops
    before the last picture is taken.

    id        as ale_py registers it, e.g. ALE/Pong-v5
    options   further keywords of `ale_py.vector_env.AtariVectorEnv`, e.g. episodic_life
    episodes  greedy episodes of an evaluation
    frames    pictures in an observation
    skip      frames that an action is held
    sticky    probability that the action before is held instead
    noops     at most so many frames pass at the start before the first action
    limit     steps until the clock ends an episode (27,000 steps of 4 frames are half an hour)
    threads   that share the environments; 0: as many as torch uses. Results never depend on it
    """

    id: str
    options: dict[str, Any] = field(default_factory=dict)
    episodes: int = 10
    frames: int = 4
    skip: int = 4
    sticky: float = 0.25
    noops: int = 30
    limit: int = 27_000
    threads: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least in (("frames", 1), ("skip", 1), ("noops", 0), ("limit", 1), ("threads", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, not {getattr(self, name)}")
        if not 0 <= self.sticky < 1:
            raise ValueError(f"sticky is a probability below 1, not {self.sticky}")
        if "game" not in known(self.id).kwargs:
            raise ValueError(f"{self.id} is no game of the Arcade Learning Environment: name it as a Gym")

    @cached_property
    def true_spaces(self) -> tuple[Any, Any]:  # type: ignore[override]
        pool = self.pool(1)
        return pool.single_observation_space, pool.single_action_space

    def pool(self, count: int) -> Any:
        module = need("ale_py.vector_env", "atari", self.id)
        usual = {
            "frameskip": self.skip, "stack_num": self.frames, "repeat_action_probability": self.sticky, "noop_max": self.noops,
            "num_threads": min(self.threads or torch.get_num_threads(), count), "reward_clipping": False,
            "use_fire_reset": False, "max_num_frames_per_episode": 2**31 - 1,
        }  # fmt: skip
        try:
            return module.AtariVectorEnv(known(self.id).kwargs["game"], count, **usual | self.options)
        except TypeError as error:
            raise ValueError(f"{self.id} does not take the options {self.options}: {error}") from error

    def make(self, count: int) -> Vector:
        return Arcade(self, count)


class External(Stepped):
    """Environments that another library holds. Finished ones are reset by hand in the same call, so that the step on which these
    libraries reset by themselves, whatever the action, never comes."""

    resumes = False

    def __init__(self, problem: EnvPool | Atari, count: int):
        super().__init__(problem, count)
        seen, takes = problem.true_spaces
        self.see, self.convert = viewer(seen), converter(takes)
        self.boxed = hasattr(seen, "low")

    @abstractmethod
    def again(self, which: Array, seeds: list[int]) -> tuple[Any, Array]:
        """Reset `which` -> what these environments show, by number of the environment in the second array."""

    @abstractmethod
    def forward(self, action: Array) -> tuple[Any, Array, Array, Array]:
        """One step of all -> what they show, reward, terminated, truncated."""

    def begin(self, which: Array, seeds: list[int], out: Array) -> None:
        seen, numbers = self.again(which, seeds)
        rows = np.empty((len(numbers), *self.shape), self.dtype)
        self.view(seen, rows)
        place = np.full(self.count, -1)
        place[numbers] = np.arange(len(numbers))
        out[which] = rows[place[which]]

    def view(self, seen: Any, rows: Array) -> None:
        if self.boxed:
            np.copyto(rows, seen.reshape(rows.shape), "unsafe")
            return
        for index, row in enumerate(rows):
            self.see(pick(seen, index), row)

    def move(self, action: Tensor) -> tuple[Array, Array, Array, Array]:
        seen, reward, terminated, truncated = self.forward(self.convert(action))
        next_obs = np.empty((self.count, *self.shape), self.dtype)
        self.view(seen, next_obs)
        return next_obs, reward.astype(np.float32), terminated.astype(bool), truncated.astype(bool)


def pick(seen: Any, index: int) -> Any:
    """One environment's observation out of those of all."""
    if isinstance(seen, dict):
        return {name: pick(part, index) for name, part in seen.items()}
    return tuple(pick(part, index) for part in seen) if isinstance(seen, tuple) else seen[index]


class Pooled(External):
    """EnvPool takes seeds when it is made and at no other time."""

    pool: Any = None

    def again(self, which: Array, seeds: list[int]) -> tuple[Any, Array]:
        if not self.episode.any():  # the very first episodes: `reset` was called
            self.pool = self.problem.pool(self.count, seeds)  # type: ignore[attr-defined]
        seen, told = self.pool.reset(which.astype(np.int32))
        return seen, told["env_id"]

    def forward(self, action: Array) -> tuple[Any, Array, Array, Array]:
        return self.pool.step(action)[:4]


class Arcade(External):
    """Games. A seed makes the emulator load the game again, a tenth of a second, so only the first episodes are given one."""

    def __init__(self, problem: Atari, count: int):
        super().__init__(problem, count)
        self.limit, self.pool = problem.limit, problem.pool(count)

    def again(self, which: Array, seeds: list[int]) -> tuple[Any, Array]:
        if not self.episode.any():
            seen, told = self.pool.reset(seed=np.array(seeds))
        else:
            seen, told = self.pool.reset(options={"reset_mask": np.isin(np.arange(self.count), which)})
        return seen, told["env_id"]

    def forward(self, action: Array) -> tuple[Any, Array, Array, Array]:
        return self.pool.step(action)[:4]
