"""A course of waypoints for a vehicle whose acceleration a user limits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .control import Array, Batched

CORNERS = ((1.0, 1.0), (-1.0, 1.0), (-1.0, -1.0), (1.0, -1.0))


@dataclass(frozen=True)
class Waypoints(Batched):
    """Pass four waypoints in turn as fast as an acceleration of at most c allows; every episode has a c of its own.

    A point of unit mass in the plane, steps of 0.2 s. obs [8]: to the next waypoint, from there to the one after it, velocity,
    waypoints left, and c, last. The action [2] is an acceleration; one longer than c is shortened to it. Reward: how much nearer
    the waypoint came, less 0.05 a step; 1 for each waypoint passed (nearer than 0.3); -5 where the vehicle leaves the field,
    2.5 from its middle, which ends the episode as the last waypoint does.

    least     lowest c that is drawn; both: the same c in every episode
    most      highest c that is drawn
    limit     steps until the clock ends an episode
    episodes  greedy episodes of an evaluation
    """

    least: float = 0.2
    most: float = 1.0
    limit: int = 200
    episodes: int = 50

    size, draws = 6, 3  # place, velocity, waypoints passed, c

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.least <= self.most:
            raise ValueError(f"the limit of the acceleration is positive and least <= most, not {self.least} and {self.most}")

    @property
    def observation_space(self) -> Any:  # type: ignore[override]
        from gymnasium.spaces import Box

        free = np.full(6, np.inf, np.float32)
        low, high = np.array([0, self.least], np.float32), np.array([len(CORNERS), self.most], np.float32)
        return Box(np.concatenate([-free, low]), np.concatenate([free, high]))

    @property
    def action_space(self) -> Any:  # type: ignore[override]
        from gymnasium.spaces import Box

        return Box(-1.0, 1.0, (2,))

    def start(self, u: Array) -> Array:
        limit = self.least + (self.most - self.least) * u[:, 2:]
        return np.concatenate([0.4 * u[:, :2] - 0.2, np.zeros((len(u), 3)), limit], 1)

    def see(self, state: Array) -> Array:
        passed = state[:, 4].astype(int)
        course = np.array([*CORNERS, CORNERS[-1], CORNERS[-1]])
        here, after = course[passed], course[passed + 1]
        left = len(CORNERS) - state[:, 4:5]
        return np.concatenate([here - state[:, :2], after - here, state[:, 2:4], left, state[:, 5:]], 1, dtype=np.float32)

    def push(self, state: Array, action: Array) -> Array:
        """The acceleration [count, 2] that the actuators give for an action: never longer than c."""
        wanted = np.clip(action.astype(np.float64), -1.0, 1.0)
        long = np.maximum(np.linalg.norm(wanted, axis=1, keepdims=True), 1e-12)
        return wanted * np.minimum(1.0, state[:, 5:] / long)

    def move(self, state: Array, action: Array) -> tuple[Array, Array, Array]:
        speed = state[:, 2:4] + 0.2 * self.push(state, action)
        place = state[:, :2] + 0.2 * speed
        goal = np.array(CORNERS)[state[:, 4].astype(int)]
        before, now = (np.linalg.norm(goal - at, axis=1) for at in (state[:, :2], place))
        there, lost = now < 0.3, np.linalg.norm(place, axis=1) > 2.5
        passed = state[:, 4] + there
        reward = before - now - 0.05 + there - 5.0 * lost
        after = np.concatenate([place, speed, passed[:, None], state[:, 5:]], 1)
        return after, reward.astype(np.float32), lost | (passed >= len(CORNERS))
