"""CartPole among signals that have nothing to do with it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from .control import Array, CartPole


@dataclass(frozen=True)
class DistractedCartPole(CartPole):
    """CartPole that also shows waves, which nothing depends on and no action changes.

    obs [4 + distractors]: CartPole's, then the sines of phases that turn at speeds of their own from random starts.

    limit        steps until the clock ends an episode
    episodes     greedy episodes of an evaluation
    distractors  how many waves
    """

    distractors: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.distractors < 1:
            raise ValueError(f"distractors must be at least 1, not {self.distractors}: without them it is CartPole")

    @property
    def size(self) -> int:  # type: ignore[override]
        return 4 + self.distractors

    @property
    def draws(self) -> int:  # type: ignore[override]
        return 4 + self.distractors

    @property
    def observation_space(self) -> Any:  # type: ignore[override]
        from gymnasium.spaces import Box

        high = np.concatenate([super().observation_space.high, np.ones(self.distractors, np.float32)])
        return Box(-high, high)

    def start(self, u: Array) -> Array:
        return np.concatenate([super().start(u[:, :4]), 2 * math.pi * u[:, 4:]], 1)

    def see(self, state: Array) -> Array:
        return np.concatenate([super().see(state[:, :4]), np.sin(state[:, 4:])], 1, dtype=np.float32)

    def move(self, state: Array, action: Array) -> tuple[Array, Array, Array]:
        pole, reward, over = super().move(state[:, :4], action)
        return np.concatenate([pole, state[:, 4:] + 0.3 * np.sqrt(1 + np.arange(self.distractors))], 1), reward, over
