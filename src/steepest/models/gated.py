"""A gated recurrent unit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_sequence, unpack_sequence

from ..core.problem import flat_size
from ..core.recurrent import Memory
from .network import Network, Recurrent, at_least, linear


class Gated(nn.Module):
    """A tanh layer and a gated recurrent unit: [N, T, O] -> [N, T, width]. Cho et al., 2014. arXiv:1406.1078"""

    def __init__(self, inputs: int, width: int):
        super().__init__()
        self.features = width
        self.inner, self.unit = nn.Sequential(linear(inputs, width), nn.Tanh()), nn.GRU(width, width, batch_first=True)
        for p in self.unit.parameters():
            nn.init.orthogonal_(p) if p.dim() > 1 else nn.init.zeros_(p)

    def fresh(self, count: int) -> Memory:
        return (torch.zeros(count, self.features),)

    def forward(self, x: Tensor, start: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        n, t = start.shape
        (held,), x = memory, self.inner(x)
        held = held * ~start[:, :1]
        if t == 1:
            y, last = self.unit(x, held[None])
            return y, (last[0],)
        # episodes are sequences of their own, side by side: one call, whatever their lengths
        first = start.clone()
        first[:, 0] = True
        row, at = first.nonzero(as_tuple=True)
        begin = row * t + at
        lengths = torch.diff(begin, append=begin.new_tensor([n * t]))
        packed = pack_sequence(x.reshape(n * t, -1).split(lengths.tolist()), enforce_sorted=False)
        y, last = self.unit(packed, torch.where(at[:, None] == 0, held[row], 0.0)[None])
        ends = torch.cat([row[1:] != row[:-1], row.new_ones(1, dtype=torch.bool)])
        return torch.cat(unpack_sequence(y)).view(n, t, -1), (last[0][ends],)


@dataclass(frozen=True)
class Gru(Network):
    width: int

    def __post_init__(self) -> None:
        at_least(1, width=self.width)

    def net(self, space: Any, outputs: int, gain: float) -> nn.Module:
        return Recurrent(Gated(flat_size(space), self.width), outputs, gain)


def gru(*, width: int = 64) -> Network:
    """A recurrent network: see `Gated`.

    width  units of the layer before it and of its memory
    """
    return Gru(width)
