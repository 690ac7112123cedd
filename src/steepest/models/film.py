"""Networks that a parameter of the user's steers: feature-wise linear modulation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..core.problem import flat_size
from .network import Headed, Network, at_least, linear


class Modulated(nn.Module):
    """tanh layers, the first of which is scaled and shifted, unit by unit, by what the last numbers of an observation say:
    h <- (1 + g(c)) h + b(c). Perez et al., FiLM, 2018. [..., O] -> [..., F]

    g and b start at 0, so that the network is at first the same for every c.

    said    numbers of c
    hidden  units of the layer between c and g, b; 0: c is not looked at
    """

    def __init__(self, inputs: int, *, said: int, width: int, depth: int, hidden: int):
        super().__init__()
        if inputs <= said:
            raise ValueError(
                f"an observation of {inputs} numbers has nothing left when {said} of them are the user's: it must show the state "
                "first and the user's parameter last"
            )
        self.inputs, self.said, self.features = inputs, said, width
        self.layers = nn.ModuleList(linear(inputs - said if not i else width, width) for i in range(depth))
        self.steer = nn.Sequential(linear(said, hidden), nn.Tanh(), linear(hidden, 2 * width)) if hidden else None
        if self.steer is not None:
            nn.init.zeros_(self.steer[2].weight)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-1] != self.inputs:
            raise ValueError(
                f"an observation has {x.shape[-1]} numbers, not {self.inputs}: the last {self.said} are the user's parameter, "
                "which must be given whenever the policy acts"
            )
        h, said = x[..., : -self.said], x[..., -self.said :]
        for i, layer in enumerate(self.layers):
            h = layer(h).tanh()
            if not i and self.steer is not None:
                scale, shift = self.steer(said).chunk(2, -1)
                h = torch.addcmul(h + shift, scale, h)
        return h


@dataclass(frozen=True)
class Film(Network):
    said: int
    width: int
    depth: int
    hidden: int

    def __post_init__(self) -> None:
        at_least(1, said=self.said, width=self.width, depth=self.depth)
        at_least(0, hidden=self.hidden)

    def net(self, space: Any, outputs: int, gain: float) -> nn.Module:
        trunk = Modulated(flat_size(space), said=self.said, width=self.width, depth=self.depth, hidden=self.hidden)
        return Headed(trunk, outputs, gain)


def film(*, said: int = 1, width: int = 64, depth: int = 2, hidden: int = 32) -> Network:
    """tanh layers that the last numbers of an observation steer: see `Modulated`.

    said    how many of them the user says
    width   units of a hidden layer
    depth   hidden layers
    hidden  units of the layer that reads them; 0: they are not looked at
    """
    return Film(said, width, depth, hidden)
