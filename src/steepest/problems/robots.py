"""Gymnasium's six running robots, stepped in batches and in threads: its trajectories to the bit."""

from __future__ import annotations

import ctypes
import functools
import os
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..core import native
from ..core.problem import Rolled
from .flat import converter
from .registered import Registered, Stepped, build

Array = NDArray[Any]


@functools.cache
def engine() -> tuple[int, ...] | None:
    """Where MuJoCo's functions that step, set and take a state lie, for the kernels; None where they are not found."""
    import mujoco

    folder = Path(mujoco.__file__).parent
    for path in sorted(folder.glob("libmujoco*")):
        try:
            library = ctypes.CDLL(str(path), os.RTLD_NOLOAD | os.RTLD_NOW)  # that which Python's own calls go to
        except (AttributeError, OSError):
            continue
        calls = (getattr(library, name) for name in ("mj_step", "mj_setState", "mj_getState"))
        return tuple(ctypes.cast(call, ctypes.c_void_p).value or 0 for call in calls)
    return None


@dataclass(frozen=True)
class Mujoco(Registered):
    """HalfCheetah, Hopper, Walker2d, Ant, Humanoid and Swimmer of Gymnasium, version 5: all environments in one call of MuJoCo's
    batches, and observations, rewards and ends as arrays. What comes out is what `Gym` gives, to the bit, for every number of
    threads, and its state can be taken and given back.

    id        e.g. HalfCheetah-v5
    options   keywords of `gymnasium.make`
    episodes  greedy episodes of an evaluation
    threads   that share the environments; 0: as many as torch uses
    """

    id: str
    options: dict[str, Any] = field(default_factory=dict)
    episodes: int = 10
    threads: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.threads < 0:
            raise ValueError(f"threads must be at least 0 (0: as many as torch uses), not {self.threads}")
        if self.id not in dict(ROBOTS):
            known = ", ".join(dict(ROBOTS))
            raise ValueError(f"batches of MuJoCo step {known}, not {self.id!r}: name it as a Gym, which steps any id")

    @cached_property
    def true_spaces(self) -> tuple[Any, Any]:  # type: ignore[override]
        env = build(self.id, self.options)
        env.close()
        return env.observation_space, env.action_space

    def make(self, count: int) -> Robots:
        kinds: dict[str, Callable[[Mujoco, int], Robots]] = dict(ROBOTS)
        return kinds[self.id](self, count)


class Robots(Stepped):
    """`count` robots of one kind. Rows of MuJoCo's integration state are all that the physics to come depends on; the forward
    reward needs besides where each robot was seen last, `place`."""

    skip = 1  # positions that are left out of the observation if they are to be
    persistent = False  # whether each environment keeps all that MuJoCo derives: contact forces are computed from it

    def __init__(self, problem: Mujoco, count: int):
        from gymnasium.wrappers import TimeLimit
        from mujoco.batch import Batch

        super().__init__(problem, count)
        made = build(problem.id, problem.options)
        env = made.unwrapped
        while made is not env:
            if type(made) is TimeLimit:
                self.limit = min(self.limit, made._max_episode_steps)
            made = made.env
        self.env, self.model, self.dt = env, env.model, env.dt
        threads = min(problem.threads or torch.get_num_threads(), count)
        self.threads, self.batch = threads, Batch(self.model, count, threads, self.persistent)
        self.qpos, self.qvel, self.ctrl = (self.batch.bind(name) for name in ("qpos", "qvel", "ctrl"))
        self.first_position = self.skip * env._exclude_current_positions_from_observation
        self.convert = converter(env.action_space)
        self.place = np.zeros(count)
        self.falls = bool(getattr(env, "_terminate_when_unhealthy", False))

    @abstractmethod
    def where(self) -> Array:
        """Where each robot is on the way forward [count]."""

    @abstractmethod
    def parts(self) -> list[Array]:
        """What the observation is made of, in its order, [count, ...] each."""

    @abstractmethod
    def healthy(self) -> Array:
        """Whether each robot is well [count]."""

    @abstractmethod
    def judge(self, action: Array, speed: Array, well: Array) -> Array:
        """action [B, A] as the environment takes it, speed [B] forward, well [B] -> reward [B]"""

    def noise(self, generator: np.random.Generator, size: int) -> Array:
        """Of the speeds at the start; positions are always uniform."""
        scale = self.env._reset_noise_scale
        return generator.uniform(low=-scale, high=scale, size=size)

    def begin(self, which: Array, seeds: list[int], out: Array) -> None:
        from gymnasium.utils.seeding import np_random
        from mujoco import mjtStage

        env, scale, ids = self.env, self.env._reset_noise_scale, which.astype(np.int32)
        self.batch.reset(ids, stage=mjtStage.mjSTAGE_NONE.value)
        for index, seed in zip(which.tolist(), seeds, strict=True):
            generator = np_random(seed)[0]
            self.qpos[index] = env.init_qpos + generator.uniform(low=-scale, high=scale, size=self.model.nq)
            self.qvel[index] = env.init_qvel + self.noise(generator, self.model.nv)
        self.batch.forward(ids)
        self.touch(which, begins=True)
        self.place[which] = self.where()[which]
        out[which] = self.see()[which]

    def touch(self, which: Array, begins: bool = False) -> None:
        """What has to be computed by hand after the physics."""

    def see(self) -> Array:
        found = [part.reshape(self.count, -1) for part in self.parts()]
        return np.concatenate(found, 1, dtype=np.float32, casting="same_kind")

    def move(self, action: Tensor) -> tuple[Array, Array, Array, Array]:
        taken = self.convert(action)
        self.ctrl[:] = taken
        self.batch.step(nstep=self.env.frame_skip)
        self.touch(np.arange(self.count))
        before, self.place = self.place, self.where().copy()
        well = self.healthy()
        reward = self.judge(taken, (self.place - before) / self.dt, well)
        return self.see(), reward.astype(np.float32), ~well & self.falls, np.zeros(self.count, bool)

    def effort(self, action: Array) -> Array:
        return self.env._ctrl_cost_weight * np.square(action).sum(1)

    def get_state(self) -> dict[str, Tensor]:
        own = {"state": self.batch.state, "place": self.place}
        return {name: torch.from_numpy(x.copy()) for name, x in own.items()} | self.counters()

    def set_state(self, state: dict[str, Tensor]) -> None:
        self.batch.state[:] = state["state"].numpy()
        self.place = state["place"].numpy().copy()
        self.set_counters(state)


class Plain(Robots):
    """Robots that show positions and speeds alone, and are well while these are within `ranges`. A policy that the kernels know
    acts in them in one native call."""

    swift = np.inf  # speeds are shown up to here

    def __init__(self, problem: Mujoco, count: int):
        from mujoco import MjData

        super().__init__(problem, count)
        self.desks = [MjData(self.model) for _ in range(self.threads)]
        self.low, self.high = (np.full(self.model.nq + self.model.nv, bound) for bound in (-np.inf, np.inf))
        for part, (low, high) in self.ranges():
            self.low[part], self.high[part] = np.maximum(self.low[part], low), np.minimum(self.high[part], high)

    def ranges(self) -> list[tuple[slice, tuple[float, float]]]:
        """Within what limits these of the positions and speeds [nq + nv] have to be."""
        return []

    def where(self) -> Array:
        return self.qpos[:, 0]

    def parts(self) -> list[Array]:
        return [self.qpos[:, self.first_position :], self.qvel.clip(-self.swift, self.swift)]

    def healthy(self) -> Array:
        at = np.concatenate([self.qpos, self.qvel], 1)
        return np.all((self.low < at) & (at < self.high), axis=1)

    def judge(self, action: Array, speed: Array, well: Array) -> Array:
        return self.env._forward_reward_weight * speed - self.effort(action)

    def roll(self, policy: Any, obs: Tensor, generator: torch.Generator, horizon: int) -> Rolled | None:
        box, n, drawn, before = self.problem.action_space, self.count, generator.get_state(), self.get_state()
        known = native.library is not None and type(self) in dict(ROBOTS).values() and box.dtype == np.float32
        if not known or engine() is None or not hasattr(policy, "actor"):
            return None
        actor = policy.actor(obs, generator, horizon)
        if actor is None or (actor.action.shape[2:], actor.action.dtype) != (box.shape, torch.float32):
            return None
        noise, action, logp = actor.noise, actor.action, torch.empty(n, horizon)
        seen, next_obs, obs = *(torch.empty(n, horizon, *self.shape) for _ in range(2)), obs.clone()
        moved, (well, over), at = np.empty((n, horizon)), np.empty((2, n, horizon), bool), np.zeros(n, np.int64)
        desks = tuple((desk._address, *(x.ctypes.data for x in (desk.qpos, desk.qvel, desk.ctrl))) for desk in self.desks)
        ways = (self.first_position, self.swift, self.low.ctypes.data, self.high.ctypes.data, self.falls)
        told = *(x.data_ptr() for x in (obs, action, logp, seen, next_obs)), *(x.ctypes.data for x in (moved, well, over))
        while (begun := at < horizon).any():
            held = (x.ctypes.data for x in (at, self.clock, self.batch.state, self.place))
            native.library.journey(
                self.physics(), desks, ways, (box.low.ctypes.data, box.high.ctypes.data), actor.net, actor.spread, noise.data_ptr(),
                n, horizon, int(min(self.limit, 2**62)), *held, *told,
            )  # fmt: skip
            ended = begun & over[np.arange(n), at - 1]
            if ended.any():
                self.renew(ended.nonzero()[0], obs.numpy())
        reward = self.judge(self.convert(action.flatten(0, 1)), moved.ravel() / self.dt, well.ravel()).astype(np.float32)
        if not np.isfinite(float(next_obs.sum()) + float(reward.sum())):  # step by step it is found, and said, where
            self.set_state(before)
            generator.set_state(drawn)
            return None
        ends = over & ~well & self.falls
        earned, terminated, truncated = map(torch.from_numpy, (reward.reshape(n, horizon), ends, over & ~ends))
        return Rolled(obs, (seen, action, logp, earned, next_obs, terminated, truncated))

    def physics(self) -> tuple[int, ...]:
        """What the kernels need to know of MuJoCo and of the model."""
        from mujoco import mjtState

        model, size = self.model, self.batch.state.shape[1]
        which = int(mjtState.mjSTATE_INTEGRATION)
        return (*(engine() or ()), model._address, which, size, self.env.frame_skip, model.nq, model.nv)


class HalfCheetahs(Plain):
    def noise(self, generator: np.random.Generator, size: int) -> Array:
        return self.env._reset_noise_scale * generator.standard_normal(size)


class Swimmers(Plain):
    skip = 2


class Walkers(Plain):
    """Walker2d: healthy while its height and its angle are within their ranges."""

    swift = 10.0

    def ranges(self) -> list[tuple[slice, tuple[float, float]]]:
        return [(slice(1, 2), self.env._healthy_z_range), (slice(2, 3), self.env._healthy_angle_range)]

    def judge(self, action: Array, speed: Array, well: Array) -> Array:
        earned = self.env._forward_reward_weight * speed + well * self.env._healthy_reward
        return earned - self.effort(action)


class Hoppers(Walkers):
    """As a walker, and all other numbers of its state are in a range too."""

    def ranges(self) -> list[tuple[slice, tuple[float, float]]]:
        return [*super().ranges(), (slice(2, None), self.env._healthy_state_range)]


class Touching(Robots):
    """Robots that feel contact forces, which MuJoCo computes only when it is asked, from all that an environment keeps."""

    skip = 2
    persistent = True

    def __init__(self, problem: Mujoco, count: int):
        import mujoco

        super().__init__(problem, count)
        self.contacts, self.forces = self.batch.bind("ncon"), np.zeros((count, self.model.nbody, 6))
        self.desk = mujoco.MjData(self.model)

    def touch(self, which: Array, begins: bool = False) -> None:
        import mujoco

        self.forces[which] = 0
        if begins:  # Gymnasium asks after a step and not after a reset
            return
        for index in which[self.contacts.reshape(-1)[which] > 0].tolist():
            self.batch.get_data(index, self.desk)
            mujoco.mj_rnePostConstraint(self.model, self.desk)
            self.forces[index] = self.desk.cfrc_ext


class Ants(Touching):
    def __init__(self, problem: Mujoco, count: int):
        super().__init__(problem, count)
        self.bodies, self.main = self.batch.bind("xpos"), self.model.body(self.env._main_body).id

    def where(self) -> Array:
        return self.bodies[:, self.main, 0]

    def parts(self) -> list[Array]:
        found = [self.qpos[:, self.first_position :], self.qvel]
        return [*found, self.clipped()[:, 1:]] if self.env._include_cfrc_ext_in_observation else found

    def noise(self, generator: np.random.Generator, size: int) -> Array:
        return self.env._reset_noise_scale * generator.standard_normal(size)

    def clipped(self) -> Array:
        return self.forces.clip(*self.env._contact_force_range)

    def healthy(self) -> Array:
        low, high = self.env._healthy_z_range
        z = self.qpos[:, 2]
        return np.isfinite(self.qpos).all(1) & np.isfinite(self.qvel).all(1) & (low <= z) & (z <= high)

    def judge(self, action: Array, speed: Array, well: Array) -> Array:
        earned = speed * self.env._forward_reward_weight + well * self.env._healthy_reward
        pressed = self.env._contact_cost_weight * np.square(self.clipped()).reshape(self.count, -1).sum(1)
        return earned - (self.effort(action) + pressed)


class Humanoids(Touching):
    def __init__(self, problem: Mujoco, count: int):
        super().__init__(problem, count)
        env, bind = self.env, self.batch.bind
        self.centres, self.mass = bind("xipos"), self.model.body_mass
        felt = {"cinert": env._include_cinert_in_observation is True, "cvel": env._include_cvel_in_observation is True}
        self.felt = [bind(name)[:, 1:] for name, wanted in felt.items() if wanted]
        if env._include_qfrc_actuator_in_observation is True:
            self.felt.append(bind("qfrc_actuator")[:, 6:])
        if env._include_cfrc_ext_in_observation is True:
            self.felt.append(self.forces[:, 1:])

    def where(self) -> Array:
        # the centre of mass, summed as Gymnasium sums it: one product by batches rounds otherwise
        return np.array([np.einsum("b,bj->j", self.mass, x)[0] for x in self.centres]) / self.mass.sum()

    def parts(self) -> list[Array]:
        return [self.qpos[:, self.first_position :], self.qvel, *self.felt]

    def healthy(self) -> Array:
        low, high = self.env._healthy_z_range
        z = self.qpos[:, 2]
        return (low < z) & (z < high)

    def judge(self, action: Array, speed: Array, well: Array) -> Array:
        earned = self.env._forward_reward_weight * speed + well * self.env._healthy_reward
        pressed = self.env._contact_cost_weight * np.square(self.forces).reshape(self.count, -1).sum(1)
        spent = self.effort(action.astype(np.float64)) + pressed.clip(*self.env._contact_cost_range)
        return earned - spent


ROBOTS = (
    ("HalfCheetah-v5", HalfCheetahs), ("Hopper-v5", Hoppers), ("Walker2d-v5", Walkers), ("Ant-v5", Ants),
    ("Humanoid-v5", Humanoids), ("Swimmer-v5", Swimmers),
)  # fmt: skip
