"""A dark room in which a goal has to be found again and again: a problem that asks for learning within a context."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .control import Array, Batched

MOVES = ((1, 0), (-1, 0), (0, 1), (0, -1), (0, 0))


@dataclass(frozen=True)
class DarkRoom(Batched):
    """Find a goal that cannot be seen, and go back to it in each further trial. Laskin et al., arXiv:2210.14215; the start in a
    corner and the moves are those of Lee et al., arXiv:2306.14892.

    A context is `trials` trials of `horizon` steps in a room of side x side cells, whose goal is drawn once, for the whole context.
    Every trial starts in the corner (0, 0). Actions: a step in one of four directions (against a wall: none), or none. Reward 1
    for each step that ends at the goal. The clock of the whole context alone ends an episode (`truncated`), so that a memory
    reaches over its trials.

    obs [side^2 + 7]: the cell, one-hot; the last action, one-hot; the last reward; whether a trial begins.

    side      cells along a wall
    horizon   steps of a trial
    trials    of a context
    episodes  greedy contexts of an evaluation
    """

    side: int = 5
    horizon: int = 15
    trials: int = 16
    episodes: int = 100

    size, draws = 6, 1  # cell (2), goal, step of the context, last action, last reward

    def __post_init__(self) -> None:
        for name, least in (("side", 2), ("horizon", 1), ("trials", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, not {getattr(self, name)}")
        super().__post_init__()

    @property
    def limit(self) -> int:  # type: ignore[override]
        return self.horizon * self.trials

    @property
    def observation_space(self) -> Any:  # type: ignore[override]
        from gymnasium.spaces import Box

        return Box(0.0, 1.0, (self.side**2 + len(MOVES) + 2,))

    @property
    def action_space(self) -> Any:  # type: ignore[override]
        from gymnasium.spaces import Discrete

        return Discrete(len(MOVES))

    def start(self, u: Array) -> Array:
        state = np.zeros((len(u), self.size))
        state[:, 2] = np.floor(u[:, 0] * self.side**2)
        state[:, 4] = -1  # no action yet
        return state

    def see(self, state: Array) -> Array:
        cells, row = self.side**2, np.arange(len(state))
        shown = np.zeros((len(state), cells + len(MOVES) + 2), np.float32)
        shown[row, (state[:, 0] * self.side + state[:, 1]).astype(int)] = 1
        acted = state[:, 4] >= 0
        shown[row[acted], cells + state[acted, 4].astype(int)] = 1
        shown[:, -2] = state[:, 5]
        shown[:, -1] = state[:, 3] % self.horizon == 0
        return shown

    def move(self, state: Array, action: Array) -> tuple[Array, Array, Array]:
        cell = np.clip(state[:, :2] + np.array(MOVES)[action], 0, self.side - 1)
        earned = cell[:, 0] * self.side + cell[:, 1] == state[:, 2]
        step = state[:, 3] + 1
        cell[step % self.horizon == 0] = 0  # the next trial follows as one observation follows another
        after = np.column_stack([cell, state[:, 2], step, action, earned])
        return after, earned.astype(np.float32), np.zeros(len(state), bool)
