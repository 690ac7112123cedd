"""Networks that remember: what they saw, and their memory as part of State."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

Memory = tuple[Tensor, ...]  # [count, ...] each: one row for each environment


@dataclass(frozen=True)
class Seen:
    """Whole sequences of observations, as those who remember need them: the `obs` of a Batch.

    obs     [N, T, O]
    start   [N, T] bool: the observation is the first of its episode, before which the memory is cleared
    memory  what each of the networks remembered before the first observation, by the part of State it belongs to
    """

    obs: Tensor
    start: Tensor
    memory: dict[str, Memory]


def observations(obs: Any) -> Tensor:
    """The observations alone, whoever saw them."""
    return obs.obs if isinstance(obs, Seen) else obs


class Remembered(nn.Module):
    """What the networks of a State remember of `count` running episodes, from one collection to the next. Buffers, so that a
    checkpoint holds them.

    parts  the memory before an episode, by the part of State that it belongs to
    """

    start: Tensor  # [count] bool: an episode begins with the observation to come

    def __init__(self, count: int, parts: dict[str, Memory]):
        super().__init__()
        self.sizes = tuple((name, len(memory)) for name, memory in parts.items())
        self.register_buffer("start", torch.ones(count, dtype=torch.bool))
        for name, memory in parts.items():
            for k, x in enumerate(memory):
                self.register_buffer(f"{name}_{k}", x.clone())

    def read(self) -> dict[str, Memory]:
        return {name: tuple(getattr(self, f"{name}_{k}").clone() for k in range(count)) for name, count in self.sizes}

    def write(self, start: Tensor, parts: dict[str, Memory]) -> None:
        self.start.copy_(start)
        for name, count in self.sizes:
            for k in range(count):
                getattr(self, f"{name}_{k}").copy_(parts[name][k])
