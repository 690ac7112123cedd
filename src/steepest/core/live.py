"""Environments in the middle of their episodes, as part of State."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from .problem import Control, Vector
from .stream import Stream


class Live(nn.Module):
    """`count` environments that go on from one collection to the next: their state, the observation to act on, and
    what their running episodes have earned. Buffers, so that a checkpoint holds them.

    The environments themselves are Python objects, which no checkpoint can hold. They stand in `_live_cache`, which
    is nothing but a saving: `resume` puts the buffers into it before every collection, so the buffers alone decide
    what happens, whether the object is an hour old, was made a moment ago or comes from another State.
    Environments that cannot be given a state (``Vector.resumes`` False) are the exception: there the object is the
    state, and without it new episodes begin, with a warning.
    """

    obs: Tensor  # [count, ...]
    score: Tensor  # [count] double, of the running episodes
    length: Tensor  # [count] long

    def __init__(self, problem: Control, count: int, rng: Stream):
        super().__init__()
        self.count = count
        vector = problem.make(count)
        self.register_buffer("obs", vector.reset(rng).clone())
        self.register_buffer("score", torch.zeros(count, dtype=torch.float64))
        self.register_buffer("length", torch.zeros(count, dtype=torch.long))
        state = vector.get_state() if vector.resumes else {}
        self.names = tuple(state)
        for name, x in state.items():
            self.register_buffer(f"state_{name}", x.clone())
        self._live_cache: Vector | None = vector

    def resume(self, problem: Control, rng: Stream) -> tuple[Vector, Tensor]:
        """The environments as they were left, and what they show."""
        vector = self._live_cache or problem.make(self.count)
        if vector.resumes:
            vector.set_state({name: getattr(self, f"state_{name}") for name in self.names})
        elif self._live_cache is None:
            warnings.warn(f"{problem} cannot be given a state: its episodes begin anew", stacklevel=2)
            self.obs.copy_(vector.reset(rng))
            self.score.zero_()
            self.length.zero_()
        self._live_cache = vector
        return vector, self.obs.clone()

    def leave(self, vector: Vector, obs: Tensor) -> None:
        """Keep where they are."""
        self.obs.copy_(obs)
        if vector.resumes:
            for name, x in vector.get_state().items():
                getattr(self, f"state_{name}").copy_(x)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Live:
        return self  # environments live on the CPU in their own precision, whatever the models do

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_live_cache": None}  # copies of a State share no environment
