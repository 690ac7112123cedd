"""Control problems that hide velocities: what one observation says is not enough to act well."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from .control import Array, CartPole, Pendulum


@dataclass(frozen=True)
class HiddenCartPole(CartPole):
    """CartPole that shows position and angle alone, no velocity.

    obs [2]: position, angle. The rest as CartPole.

    limit     steps until the clock ends an episode
    episodes  greedy episodes of an evaluation
    """

    @property
    def observation_space(self) -> Any:  # type: ignore[override]
        from gymnasium.spaces import Box

        high = np.array([4.8, 24 * math.pi / 180], np.float32)
        return Box(-high, high)

    def see(self, state: Array) -> Array:
        return state[:, ::2].astype(np.float32)


@dataclass(frozen=True)
class HiddenPendulum(Pendulum):
    """Pendulum that shows the angle alone, no velocity.

    obs [2]: cosine and sine of the angle. The rest as Pendulum.

    limit     steps until the clock ends an episode
    episodes  greedy episodes of an evaluation
    """

    @property
    def observation_space(self) -> Any:  # type: ignore[override]
        from gymnasium.spaces import Box

        return Box(-1.0, 1.0, (2,))

    def see(self, state: Array) -> Array:
        return np.ascontiguousarray(super().see(state)[:, :2])
