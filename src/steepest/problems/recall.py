"""A problem that asks for memory and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .control import Batched

Array = NDArray[Any]


@dataclass(frozen=True)
class Recall(Batched):
    """A sign is shown once; `length` steps later, it has to be named. The corridor of the T-maze: Bakker, 2001.

    obs [signs + 1]: the sign, one-hot, at the first step; a mark at the last. Reward 1 for the right name at the last step, so that
    who remembers nothing earns 1 / signs at best.

    length    decisions of an episode; at all but the last nothing can be won
    signs     among which one is shown
    episodes  greedy episodes of an evaluation
    """

    length: int = 8
    signs: int = 2
    episodes: int = 100

    size, draws = 2, 1

    def __post_init__(self) -> None:
        if self.length < 2 or self.signs < 2:
            raise ValueError(f"length and signs must be at least 2, not {self.length} and {self.signs}: else nothing is remembered")
        super().__post_init__()

    @property
    def limit(self) -> int:  # type: ignore[override]
        return self.length + 1  # episodes end by themselves

    @property
    def observation_space(self) -> Any:  # type: ignore[override]
        from gymnasium.spaces import Box

        return Box(0.0, 1.0, (self.signs + 1,))

    @property
    def action_space(self) -> Any:  # type: ignore[override]
        from gymnasium.spaces import Discrete

        return Discrete(self.signs)

    def start(self, u: Array) -> Array:
        return np.concatenate([np.floor(u * self.signs), np.zeros_like(u)], 1)  # the sign, and the step

    def see(self, state: Array) -> Array:
        sign, step = state.T
        shown = np.zeros((len(state), self.signs + 1), np.float32)
        shown[np.arange(len(state)), sign.astype(int)] = step == 0
        shown[:, -1] = step == self.length - 1
        return shown

    def move(self, state: Array, action: Array) -> tuple[Array, Array, Array]:
        sign, step = state.T
        last = step == self.length - 1
        return np.stack([sign, step + 1], 1), (last & (action == sign)).astype(np.float32), last
