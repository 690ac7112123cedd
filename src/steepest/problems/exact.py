"""Models made from plain options."""

from __future__ import annotations

from abc import abstractmethod
from functools import cached_property
from typing import Any

import torch

from ..core.problem import Problem
from ..core.stream import Stream


class Made(Problem):
    """A model built from the options of a frozen dataclass, once. Two are equal when their options are.

    seed  which random instance
    """

    seed: int

    @abstractmethod
    def build(self) -> Any:
        """The model that the options stand for."""

    @cached_property
    def model(self) -> Any:
        return self.build()

    def evaluate(self, policy: Any, rng: Stream) -> dict[str, float]:
        return self.model.evaluate(policy, rng)

    def generator(self) -> torch.Generator:
        """Of the numbers that make the instance."""
        return (Stream(self.seed) / type(self).__name__).torch()
