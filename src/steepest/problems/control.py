"""Control problems of our own, stepped as a batch in numpy: equal to Gymnasium's, an order of magnitude faster."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..core.problem import Control, Step, Vector
from ..core.stream import Stream

Array = NDArray[Any]


class Batched(Control):
    """A control problem whose environments share one array of states, [count, S] in float64.

    What differs between problems are four functions of that array. `limit` steps end an episode by the clock.
    """

    size: int  # S
    limit: int
    episodes: int

    def __post_init__(self) -> None:
        for name in ("limit", "episodes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")

    @abstractmethod
    def start(self, generator: np.random.Generator) -> Array:
        """A first state [S]."""

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

    def begin(self, index: int) -> None:
        address = Stream(self.seed, index, self.episode[index])
        self.state[index] = self.problem.start(address.numpy())
        self.clock[index] = 0
        self.episode[index] += 1

    def see(self) -> Tensor:
        return torch.from_numpy(self.problem.see(self.state))

    def reset(self, rng: Stream) -> Tensor:
        self.seed = rng.seed
        self.episode[:] = 0
        for index in range(self.count):
            self.begin(index)
        return self.see()

    def step(self, action: Tensor) -> Step:
        self.state, reward, terminated = self.problem.move(self.state, action.numpy())
        self.clock += 1
        late = self.clock >= self.problem.limit
        truncated = late & ~terminated
        next_obs = obs = self.see()
        over = (terminated | late).nonzero()[0].tolist()
        if over:
            for index in over:
                self.begin(index)
            obs = self.see()
        wrap = torch.from_numpy
        return Step(obs, next_obs, wrap(reward), wrap(terminated), wrap(truncated))

    def get_state(self) -> dict[str, Tensor]:
        parts = {"state": self.state, "clock": self.clock, "episode": self.episode, "seed": np.array([self.seed])}
        return {name: torch.from_numpy(x.copy()) for name, x in parts.items()}

    def set_state(self, state: dict[str, Tensor]) -> None:
        self.state, self.clock, self.episode = (state[name].numpy().copy() for name in ("state", "clock", "episode"))
        self.seed = int(state["seed"])


@torch.no_grad()
def greedy(problem: Control, policy: Any, episodes: int, rng: Stream) -> dict[str, float]:
    """Mean and deviation of the return, and the mean length, of the first episode of each of `episodes` environments."""
    vector, generator = problem.make(episodes), (rng / "act").torch()
    obs = vector.reset(rng / "reset")
    score, length, open_ = torch.zeros(episodes, dtype=torch.float64), torch.zeros(episodes), torch.ones(episodes)
    while open_.any():
        step = vector.step(policy.act(obs, generator, True).cpu())
        score += step.reward * open_
        length += open_
        open_ = open_ * ~(step.terminated | step.truncated)
        obs = step.obs
    return {"return": float(score.mean()), "return_std": float(score.std(correction=0)), "length": float(length.mean())}


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

    size = 4
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

    def start(self, generator: np.random.Generator) -> Array:
        return generator.uniform(-0.05, 0.05, 4)

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

    size = 2

    @property
    def observation_space(self) -> Any:  # type: ignore[override]
        from gymnasium.spaces import Box

        high = np.array([1, 1, 8], np.float32)
        return Box(-high, high)

    @property
    def action_space(self) -> Any:  # type: ignore[override]
        from gymnasium.spaces import Box

        return Box(-2.0, 2.0, (1,))

    def start(self, generator: np.random.Generator) -> Array:
        return generator.uniform([-math.pi, -1.0], [math.pi, 1.0])

    def see(self, state: Array) -> Array:
        return np.stack([np.cos(state[:, 0]), np.sin(state[:, 0]), state[:, 1]], 1, dtype=np.float32)

    def move(self, state: Array, action: Array) -> tuple[Array, Array, Array]:
        angle, speed = state.T
        torque = np.clip(action.reshape(-1).astype(np.float64), -2.0, 2.0)
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

    size = 4

    @property
    def observation_space(self) -> Any:  # type: ignore[override]
        from gymnasium.spaces import Box

        return Box(-np.inf, np.inf, (4,))

    @property
    def action_space(self) -> Any:  # type: ignore[override]
        from gymnasium.spaces import Box

        return Box(-1.0, 1.0, (2,))

    def start(self, generator: np.random.Generator) -> Array:
        return np.concatenate([generator.uniform(-1, 1, 2), np.zeros(2)])

    def see(self, state: Array) -> Array:
        return state.astype(np.float32)

    def move(self, state: Array, action: Array) -> tuple[Array, Array, Array]:
        force = np.clip(action.astype(np.float64), -1.0, 1.0)
        speed = 0.9 * state[:, 2:] + 0.1 * force
        place = state[:, :2] + 0.5 * speed
        reward = -(place**2).sum(1) - 0.01 * (force**2).sum(1)
        return np.concatenate([place, speed], 1), reward.astype(np.float32), np.zeros(len(state), bool)
