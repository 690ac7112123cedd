"""Control problems of our own, stepped as a batch: equal to Gymnasium's, a hundred times faster in the kernels that know them."""

from __future__ import annotations

import math
import warnings
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..core import native
from ..core.problem import Control, Rolled, Step, Vector
from ..core.stream import Stream

Array = NDArray[Any]


def folded(code: Array, name: Array | int) -> Array:
    """Hash codes [...] uint64 with one more name in them: the finaliser of splitmix64, Steele, Lea and Flood, 2014."""
    z = code + (np.atleast_1d(name).astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def uniforms(seed: int, index: Array, episode: Array, count: int) -> Array:
    """`count` random numbers in [0, 1) for each address (seed, index, episode): [n] and [n] -> [n, count]."""
    here = folded(folded(folded(np.zeros(1, np.uint64), seed), index), episode)
    return (folded(here[:, None], np.arange(count)) >> np.uint64(11)) * 2.0**-53


class Batched(Control):
    """A control problem whose environments share one array of states, [count, S] in float64.

    What differs between problems are three functions of that array. `limit` steps end an episode by the clock.
    """

    size: int  # S
    draws: int  # random numbers of a reset
    world: int  # which of the kernels' the class is; a subclass is none
    limit: int
    episodes: int

    def __post_init__(self) -> None:
        for name in ("limit", "episodes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")

    @abstractmethod
    def start(self, u: Array) -> Array:
        """First states [n, S] from random numbers u [n, draws] in [0, 1)."""

    @abstractmethod
    def move(self, state: Array, action: Array) -> tuple[Array, Array, Array]:
        """state [count, S], action [count, ...] -> next state, reward [count] float32, terminated [count] bool."""

    @abstractmethod
    def see(self, state: Array) -> Array:
        """What a state shows [count, O] float32, in memory of its own."""

    def make(self, count: int) -> Sides:
        return Sides(self, count)

    def evaluate(self, policy: Any, rng: Stream) -> dict[str, float]:
        """`return` of greedy episodes, mean; `return_std` between them; `length`."""
        return greedy(self, policy, self.episodes, rng)


class Sides(Vector):
    """`count` environments of a `Batched` problem.

    The numbers of a reset come from the address (seed, environment, its episode), so three integers stand for
    all the randomness to come.
    """

    def __init__(self, problem: Batched, count: int):
        if count < 1:
            raise ValueError(f"at least one environment is needed, not {count}")
        self.problem, self.count, self.seed = problem, count, 0
        self.state = np.zeros((count, problem.size))
        self.clock, self.episode = np.zeros(count, np.int64), np.zeros(count, np.int64)
        space = problem.action_space
        self.taken = torch.empty((count, *space.shape), dtype=torch.long if hasattr(space, "n") else torch.float32)
        self.shown = torch.empty(count, *problem.observation_space.shape)

    def begin(self, index: Array) -> None:
        self.state[index] = self.problem.start(uniforms(self.seed, index, self.episode[index], self.problem.draws))
        self.clock[index] = 0
        self.episode[index] += 1

    def see(self) -> Tensor:
        return torch.from_numpy(self.problem.see(self.state))

    def reset(self, rng: Stream) -> Tensor:
        self.seed = rng.seed
        self.episode[:] = 0
        self.begin(np.arange(self.count))
        return self.see()

    def step(self, action: Tensor) -> Step:
        if native.library is not None and self.world is not None and action.shape == self.taken.shape:
            obs, action = torch.empty_like(self.shown), action.to(self.taken.dtype).contiguous()
            reward, next_obs, terminated, truncated = self.run(1, obs, action, None, 0, 0, 0, 0)
            return Step(obs, next_obs[:, 0], reward[:, 0], terminated[:, 0], truncated[:, 0])
        self.state, earned, ended = self.problem.move(self.state, action.numpy())
        self.clock += 1
        late = self.clock >= self.problem.limit
        cut = late & ~ended
        next_obs = obs = self.see()
        over = (ended | late).nonzero()[0]
        if len(over):
            self.begin(over)
            obs = self.see()
        wrap = torch.from_numpy
        return Step(obs, next_obs, wrap(earned), wrap(ended), wrap(cut))

    @property
    def world(self) -> int | None:
        return native.own(self.problem, "world")

    def run(self, horizon: int, obs: Tensor, action: Tensor, *acting: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """`horizon` steps in the kernel -> reward, next_obs, terminated, truncated [count, horizon, ...]. obs: where to act first,
        then next; the rest as it takes them."""
        shape = self.count, horizon
        reward, next_obs = torch.empty(shape), torch.empty(*shape, *self.shown.shape[1:])
        terminated, truncated = torch.empty(shape, dtype=torch.bool), torch.empty(shape, dtype=torch.bool)
        net, spread, noise, logp, seen = acting
        native.library.roll(
            self.world, *shape, self.problem.limit, self.seed, *(x.ctypes.data for x in (self.state, self.clock, self.episode)),
            obs.data_ptr(), net, spread, noise, action.data_ptr(), logp, seen, next_obs.data_ptr(), reward.data_ptr(),
            terminated.data_ptr(), truncated.data_ptr(),
        )  # fmt: skip
        return reward, next_obs, terminated, truncated

    def roll(self, policy: Any, obs: Tensor, generator: torch.Generator, horizon: int) -> Rolled | None:
        if self.world is None or type(self) is not Sides or not hasattr(policy, "actor"):
            return None
        actor = policy.actor(obs, generator, horizon)
        if actor is None or (actor.action.shape[2:], actor.action.dtype) != (self.taken.shape[1:], self.taken.dtype):
            return None
        logp, seen, obs = torch.empty(self.count, horizon), torch.empty(self.count, horizon, *obs.shape[1:]), obs.clone()
        net, spread, noise, action = actor
        told = self.run(horizon, obs, action, net, spread, noise.data_ptr(), logp.data_ptr(), seen.data_ptr())
        return Rolled(obs, (seen, action, logp, *told))

    def get_state(self) -> dict[str, Tensor]:
        parts = {"state": self.state, "clock": self.clock, "episode": self.episode, "seed": np.array([self.seed])}
        return {name: torch.from_numpy(x.copy()) for name, x in parts.items()}

    def set_state(self, state: dict[str, Tensor]) -> None:
        self.state, self.clock, self.episode = (state[name].numpy().copy() for name in ("state", "clock", "episode"))
        self.seed = int(state["seed"])


@torch.no_grad()
def greedy(problem: Control, policy: Any, episodes: int, rng: Stream, longest: int = 30_000) -> dict[str, float]:
    """Mean and deviation of the return, and the mean length, of the first episode of each of `episodes` environments.

    One that has not ended after `longest` steps counts as far as it came: a warning says so, and `unfinished` how many did not.
    A policy whose `meets` makes the problem another, with an internal state for one, meets that.
    """
    met = policy.meets(problem) if hasattr(policy, "meets") else problem
    vector, generator = met.make(episodes), (rng / "act").torch()
    actor = policy.begin(episodes) if hasattr(policy, "begin") else policy  # one that remembers
    obs = vector.reset(rng / "reset")
    score, length, open_ = torch.zeros(episodes, dtype=torch.float64), torch.zeros(episodes), torch.ones(episodes)
    for _ in range(longest):
        step = vector.step(actor.act(obs, generator, True).cpu())
        score += step.reward * open_
        length += open_
        open_ = open_ * ~(step.terminated | step.truncated)
        obs = step.obs
        if not open_.any():
            break
    told = {"return": float(score.mean()), "return_std": float(score.std(correction=0)), "length": float(length.mean())}
    if open_.any():
        told["unfinished"] = float(open_.sum())
        warnings.warn(
            f"{told['unfinished']:.0f} of {episodes} episodes of {problem} had not ended after {longest} steps and count as far as "
            "they came: give the environment a time limit (options: max_episode_steps)", stacklevel=2,
        )  # fmt: skip
    return told


@dataclass(frozen=True)
class CartPole(Batched):
    """Keep a pole upright on a cart by pushing it left or right. Gymnasium's CartPole-v1.

    obs [4]: position, velocity, angle, angular velocity. Reward 1 a step, until the pole leans 12 degrees or the
    cart is 2.4 away. Barto, Sutton and Anderson, 1983.

    limit     steps until the clock ends an episode
    episodes  greedy episodes of an evaluation
    """

    limit: int = 500
    episodes: int = 20

    size, draws, world = 4, 4, native.CARTPOLE
    edge = (2.4, 12 * math.pi / 180)

    @property
    def observation_space(self) -> Any:  # type: ignore[override]
        from gymnasium.spaces import Box

        high = np.array([4.8, np.inf, 24 * math.pi / 180, np.inf], np.float32)
        return Box(-high, high)

    @property
    def action_space(self) -> Any:  # type: ignore[override]
        from gymnasium.spaces import Discrete

        return Discrete(2)

    def start(self, u: Array) -> Array:
        return -0.05 + 0.1 * u

    def see(self, state: Array) -> Array:
        return state.astype(np.float32)

    def move(self, state: Array, action: Array) -> tuple[Array, Array, Array]:
        pole, total, half, tau = 0.1, 1.1, 0.5, 0.02  # mass of the pole, of all; half its length; seconds
        angle, turn = state[:, 2], state[:, 3]
        cos, sin = np.cos(angle), np.sin(angle)
        lever = pole * half / total
        push = turn * turn
        push *= sin
        push *= lever
        push += 20.0 / total * action - 10.0 / total  # the force is 10, to the right for action 1
        bend = 9.8 * sin
        bend -= cos * push
        bend /= half * 4.0 / 3.0 - lever * (cos * cos)
        after = np.empty_like(state)  # how fast each number changes, then what it becomes
        after[:, ::2] = state[:, 1::2]
        after[:, 3] = bend
        bend *= cos
        bend *= lever
        after[:, 1] = push - bend
        after *= tau
        after += state
        outside = np.abs(after[:, ::2]) > self.edge
        return after, np.ones(len(state), np.float32), outside[:, 0] | outside[:, 1]


@dataclass(frozen=True)
class Pendulum(Batched):
    """Swing a pendulum up and hold it, with a torque in [-2, 2]. Gymnasium's Pendulum-v1.

    obs [3]: cosine and sine of the angle, angular velocity. Reward -(angle^2 + speed^2 / 10 + torque^2 / 1000).

    limit     steps until the clock ends an episode
    episodes  greedy episodes of an evaluation
    """

    limit: int = 200
    episodes: int = 20

    size, draws, world = 2, 2, native.PENDULUM

    @property
    def observation_space(self) -> Any:  # type: ignore[override]
        from gymnasium.spaces import Box

        high = np.array([1, 1, 8], np.float32)
        return Box(-high, high)

    @property
    def action_space(self) -> Any:  # type: ignore[override]
        from gymnasium.spaces import Box

        return Box(-2.0, 2.0, (1,))

    def start(self, u: Array) -> Array:
        return np.array([-math.pi, -1.0]) + np.array([2 * math.pi, 2.0]) * u

    def see(self, state: Array) -> Array:
        return np.stack([np.cos(state[:, 0]), np.sin(state[:, 0]), state[:, 1]], 1, dtype=np.float32)

    def move(self, state: Array, action: Array) -> tuple[Array, Array, Array]:
        angle, speed = state.T
        torque = np.clip(action.reshape(-1), -2.0, 2.0)  # in single precision, as Gymnasium leaves it
        lean = (angle + math.pi) % (2 * math.pi) - math.pi
        reward = -(lean**2 + 0.1 * speed**2 + 0.001 * torque**2)
        speed = np.clip(speed + (15.0 * np.sin(angle) + 3.0 * torque) * 0.05, -8.0, 8.0)
        return np.stack([angle + 0.05 * speed, speed], 1), reward.astype(np.float32), np.zeros(len(state), bool)


@dataclass(frozen=True)
class PointMass(Batched):
    """Push a point in the plane to the origin and hold it there, with a force in [-1, 1]^2: the easiest continuous problem.

    obs [4]: position, velocity. Reward -(distance^2 + force^2 / 100).

    limit     steps until the clock ends an episode
    episodes  greedy episodes of an evaluation
    """

    limit: int = 50
    episodes: int = 20

    size, draws, world = 4, 2, native.POINTMASS

    @property
    def observation_space(self) -> Any:  # type: ignore[override]
        from gymnasium.spaces import Box

        return Box(-np.inf, np.inf, (4,))

    @property
    def action_space(self) -> Any:  # type: ignore[override]
        from gymnasium.spaces import Box

        return Box(-1.0, 1.0, (2,))

    def start(self, u: Array) -> Array:
        return np.concatenate([-1.0 + 2.0 * u, np.zeros_like(u)], 1)

    def see(self, state: Array) -> Array:
        return state.astype(np.float32)

    def move(self, state: Array, action: Array) -> tuple[Array, Array, Array]:
        force = np.clip(action.astype(np.float64), -1.0, 1.0)
        speed = 0.9 * state[:, 2:] + 0.1 * force
        place = state[:, :2] + 0.5 * speed
        reward = -(place**2).sum(1) - 0.01 * (force**2).sum(1)
        return np.concatenate([place, speed], 1), reward.astype(np.float32), np.zeros(len(state), bool)
