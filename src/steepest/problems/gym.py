"""Any environment of Gymnasium, by its id."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..core.problem import Control, Step, Vector
from ..core.stream import Stream
from .control import greedy

Array = NDArray[Any]

# What MuJoCo derives from the state and Gymnasium's robots read before they step again.
DERIVED = (
    "xpos", "xquat", "xmat", "xipos", "ximat", "geom_xpos", "geom_xmat", "site_xpos", "site_xmat", "subtree_com", "cinert",
    "cvel", "cfrc_ext", "qfrc_actuator", "qfrc_constraint", "sensordata",
)  # fmt: skip


@dataclass(frozen=True)
class Gym(Control):
    """``gymnasium.make(id, **options)``, stepped one after another in this process.

    Observations are flat float32 vectors, a Discrete one is one-hot. Actions outside a Box are clipped to it.

    id        as Gymnasium registers it, e.g. HalfCheetah-v5
    options   keywords of `gymnasium.make`
    episodes  greedy episodes of an evaluation
    """

    id: str
    options: dict[str, Any] = field(default_factory=dict)
    episodes: int = 10

    def __post_init__(self) -> None:
        if self.episodes < 1:
            raise ValueError(f"episodes must be at least 1, not {self.episodes}")
        import gymnasium

        try:
            gymnasium.spec(self.id)
        except Exception as error:  # what a module of the user's own raises while it registers is told, whatever it is
            raise ValueError(f"Gymnasium cannot find {self.id!r}: {error}") from error

    @cached_property
    def spaces(self) -> tuple[Any, Any]:
        """Of flat observations, and of flat actions."""
        from gymnasium.spaces import Box, Discrete

        env = build(self)
        seen, done = env.observation_space, env.action_space
        env.close()
        for what, space in (("observations", seen), ("actions", done)):
            if not isinstance(space, (Box, Discrete)):
                raise TypeError(
                    f"{self.id} has {what} in {space}: Box and Discrete are supported. Wrap the environment "
                    "(gymnasium.wrappers.FlattenObservation, or an action wrapper), register it and name the wrapped id"
                )
        obs = Box(0.0, 1.0, (int(seen.n),)) if isinstance(seen, Discrete) else Box(-math.inf, math.inf, (math.prod(seen.shape),))
        action = Discrete(int(done.n)) if isinstance(done, Discrete) else Box(done.low.ravel(), done.high.ravel())
        return obs, action

    @property
    def observation_space(self) -> Any:  # type: ignore[override]
        return self.spaces[0]

    @property
    def action_space(self) -> Any:  # type: ignore[override]
        return self.spaces[1]

    def make(self, count: int) -> Envs:
        return Envs(self, count)

    def evaluate(self, policy: Any, rng: Stream) -> dict[str, float]:
        """`return` of greedy episodes, mean; `return_std` between them; `length`."""
        return greedy(self, policy, self.episodes, rng)


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


def build(problem: Gym) -> Any:
    import gymnasium

    try:
        with hushed(gymnasium.spec(problem.id)):
            return gymnasium.make(problem.id, disable_env_checker=True, **problem.options)
    except TypeError as error:
        raise ValueError(f"{problem.id} does not take the options {problem.options}: {error}") from error


class Envs(Vector):
    """`count` environments in a list. Finished ones are reset in the same call, with a seed from their address.

    `resumes` where the state of the environment is known to be complete: Gymnasium's own MuJoCo and classic-control
    environments, inside no wrapper but Gymnasium's time limit and checks. Others cannot be given a state.
    """

    def __init__(self, problem: Gym, count: int):
        from gymnasium.wrappers import OrderEnforcing, PassiveEnvChecker, TimeLimit

        if count < 1:
            raise ValueError(f"at least one environment is needed, not {count}")
        self.problem, self.count, self.seed = problem, count, 0
        self.shape = problem.observation_space.shape
        self.envs = [build(problem) for _ in range(count)]
        first, self.limit, plain = self.envs[0], math.inf, True
        while first is not first.unwrapped:
            plain &= type(first) in (OrderEnforcing, PassiveEnvChecker, TimeLimit)
            if type(first) is TimeLimit:
                self.limit = min(self.limit, first._max_episode_steps)
            first = first.env
        home = type(first).__module__ if plain else ""
        self.keeper = next((keeper for name, keeper in KEEPERS if home.startswith(name)), None)
        self.resumes = self.keeper is not None
        if plain:  # the clock is kept here, so the wrappers have nothing left to do
            self.envs = [env.unwrapped for env in self.envs]
        else:
            self.limit = math.inf
        self.convert, self.see = self.converter(), self.viewer()
        self.clock, self.episode = np.zeros(count, np.int64), np.zeros(count, np.int64)

    def converter(self) -> Callable[[Tensor], Any]:
        """From the policy's actions [count, ...] to what each environment takes, in a row."""
        space = self.envs[0].action_space
        if hasattr(space, "n"):
            start = int(space.start)
            return lambda action: (action + start if start else action).tolist()
        shape, dtype, low, high = space.shape, space.dtype, space.low, space.high
        return lambda action: action.numpy().reshape(-1, *shape).clip(low, high).astype(dtype)  # a clipped integer cannot wrap

    def viewer(self) -> Callable[[Any, Array], None]:
        """Writes an observation of one environment as a flat row."""
        space = self.envs[0].observation_space
        if not hasattr(space, "n"):
            return lambda seen, out: np.copyto(out, np.ravel(seen), "unsafe")
        start = int(space.start)

        def one_hot(seen: Any, out: Array) -> None:
            out[:] = 0
            out[int(seen) - start] = 1

        return one_hot

    def begin(self, index: int, out: Array) -> None:
        address = Stream(self.seed, index, self.episode[index])
        seen, _ = self.envs[index].reset(seed=address.seed % 2**31)
        self.see(seen, out)
        self.clock[index] = 0
        self.episode[index] += 1
        if not np.isfinite(out).all():
            self.refuse(index, "an observation that is not finite")

    def reset(self, rng: Stream) -> Tensor:
        self.seed = rng.seed
        self.episode[:] = 0
        obs = np.empty((self.count, *self.shape), np.float32)
        for index in range(self.count):
            self.begin(index, obs[index])
        return torch.from_numpy(obs)

    def step(self, action: Tensor) -> Step:
        next_obs = np.empty((self.count, *self.shape), np.float32)
        reward = np.empty(self.count, np.float32)
        terminated, truncated = np.zeros(self.count, bool), np.zeros(self.count, bool)
        self.clock += 1
        for index, (env, act) in enumerate(zip(self.envs, self.convert(action), strict=True)):
            seen, reward[index], ended, cut, _ = env.step(act)
            self.see(seen, next_obs[index])
            terminated[index], truncated[index] = ended, not ended and (cut or self.clock[index] >= self.limit)
        if not math.isfinite(float(next_obs.sum()) + float(reward.sum())):  # or finite numbers whose sum is not
            for index in range(self.count):
                if not np.isfinite(reward[index]):
                    self.refuse(index, f"the reward {reward[index]}")
                if not np.isfinite(next_obs[index]).all():
                    self.refuse(index, "an observation that is not finite")
        obs = next_obs
        over = terminated | truncated
        if over.any():
            obs = next_obs.copy()
            for index in over.nonzero()[0].tolist():
                self.begin(index, obs[index])
        return Step(*map(torch.from_numpy, (obs, next_obs, reward, terminated, truncated)))

    def refuse(self, index: int, what: str) -> None:
        raise ValueError(
            f"{self.problem.id}, environment {index}, gave {what} at step {self.clock[index]} of its episode "
            f"{self.episode[index]}: its physics has diverged or its reward is undefined there"
        )

    def get_state(self) -> dict[str, Tensor]:
        if self.keeper is None:
            raise NotImplementedError(
                f"{self.problem.id} cannot give its state (resumes is False): only Gymnasium's own MuJoCo and classic-control "
                "environments can"
            )
        rows = [self.keeper.take(env) for env in self.envs]
        parts = {name: torch.from_numpy(np.stack([row[name] for row in rows])) for name in rows[0]}
        own = {"clock": self.clock, "episode": self.episode, "seed": np.array([self.seed])}
        return parts | {name: torch.from_numpy(x.copy()) for name, x in own.items()}

    def set_state(self, state: dict[str, Tensor]) -> None:
        if self.keeper is None:
            raise NotImplementedError(f"{self.problem.id} cannot be given a state (resumes is False)")
        parts = {name: x.numpy() for name, x in state.items()}
        for index, env in enumerate(self.envs):
            self.keeper.give(env, {name: x[index] for name, x in parts.items() if name not in ("clock", "episode", "seed")})
        self.clock, self.episode, self.seed = parts["clock"].copy(), parts["episode"].copy(), int(parts["seed"][0])


class Classic:
    """Classic control keeps all in `state`; its precision differs between environments and even between steps."""

    @staticmethod
    def take(env: Any) -> dict[str, Array]:
        state = np.asarray(env.state)
        return {"state": state.astype(np.float64), "single": np.array(state.dtype == np.float32)}

    @staticmethod
    def give(env: Any, parts: dict[str, Array]) -> None:
        env.state = parts["state"].astype(np.float32 if parts["single"] else np.float64)
        if hasattr(env, "steps_beyond_terminated"):
            env.steps_beyond_terminated = None


class Mujoco:
    """MuJoCo's integration state decides the physics to come; `DERIVED` what rewards read of the step before."""

    @staticmethod
    def take(env: Any) -> dict[str, Array]:
        import mujoco

        whole = mujoco.mjtState.mjSTATE_INTEGRATION
        state = np.empty(mujoco.mj_stateSize(env.model, whole))
        mujoco.mj_getState(env.model, env.data, state, whole)
        return {"state": state, "derived": np.concatenate([np.ravel(getattr(env.data, name)) for name in DERIVED])}

    @staticmethod
    def give(env: Any, parts: dict[str, Array]) -> None:
        import mujoco

        whole = mujoco.mjtState.mjSTATE_INTEGRATION
        state = np.ascontiguousarray(parts["state"])
        mujoco.mj_setState(env.model, env.data, state, whole)
        mujoco.mj_forward(env.model, env.data)
        mujoco.mj_setState(env.model, env.data, state, whole)  # forward moved the warm start
        start = 0
        for name in DERIVED:
            array = getattr(env.data, name)
            array[...] = parts["derived"][start : start + array.size].reshape(array.shape)
            start += array.size


KEEPERS: tuple[tuple[str, Any], ...] = (("gymnasium.envs.classic_control", Classic), ("gymnasium.envs.mujoco", Mujoco))
