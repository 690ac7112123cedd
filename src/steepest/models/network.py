"""What stands between what is observed and the heads of policy and critic: an exchangeable part."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor, nn

from ..core.recurrent import Memory


class Network(ABC):
    """The recipe of a network: a small frozen object of plain options, which a system takes as its `model`.

    ``net`` is asked twice, once for the policy and once for the critic, each time with torch's generator seeded by an address.
    """

    @abstractmethod
    def net(self, space: Any, outputs: int, gain: float) -> nn.Module:
        """A module from observations of the space to `outputs` numbers: [..., O] -> [..., outputs], where O numbers are the
        observation as `gymnasium.spaces.flatten` writes it (`spaces.views` finds its parts again).

        One that remembers is a `Recurrent` instead.

        gain  of the last layer's orthogonal start: small for a policy, whose first decisions are then near uniform
        """


class Headed(nn.Module):
    """A trunk, [..., O] -> [..., F] with F its `features`, and a linear layer."""

    def __init__(self, trunk: nn.Module, outputs: int, gain: float):
        super().__init__()
        self.trunk, self.head = trunk, linear(trunk.features, outputs, gain)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.trunk(x))

    def compiled(self, x: Tensor) -> bool:
        """The kernels know the multi-layer perceptron alone."""
        return False


class Recurrent(nn.Module):
    """A network that remembers: a trunk and a linear layer, over whole sequences.

    trunk  its `features` are F; ``fresh(count)`` is the memory before an episode, a tuple of tensors [count, ...];
           (x [N, T, O], start [N, T] bool, memory) -> features [N, T, F] and the memory after the last x. Where `start`, the
           memory is cleared before x is read
    """

    def __init__(self, trunk: nn.Module, outputs: int, gain: float):
        super().__init__()
        self.trunk, self.head = trunk, linear(trunk.features, outputs, gain)  # type: ignore[arg-type]

    def fresh(self, count: int) -> Memory:
        return self.trunk.fresh(count)  # type: ignore[operator]

    def forward(self, x: Tensor, start: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        """x [N, T, O], start [N, T] -> [N, T, outputs], and the memory after the last x."""
        y, memory = self.trunk(x, start, memory)
        return self.head(y), memory


def linear(inputs: int, outputs: int, gain: float = math.sqrt(2)) -> nn.Linear:
    """Orthogonal with a gain, biases 0."""
    return orthogonal(nn.Linear(inputs, outputs), gain)


def orthogonal(layer: Any, gain: float = math.sqrt(2)) -> Any:
    nn.init.orthogonal_(layer.weight, gain)
    nn.init.zeros_(layer.bias)
    return layer


def at_least(least: int, **sizes: int) -> None:
    """Raise ValueError where a size is too small."""
    for name, size in sizes.items():
        if size < least:
            raise ValueError(f"{name} must be at least {least}, not {size}")
