"""S5: diagonal linear state spaces, which read a whole sequence at once and act one step at a time."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..core.problem import flat_size
from ..core.recurrent import Memory
from .network import Network, Recurrent, at_least, linear

CHUNK = 128  # beyond it the log T passes of the scan cost more than going on from its end


def scan(decay: Tensor, inputs: Tensor, start: Tensor, state: Tensor) -> Tensor:
    """x_t = decay x_{t-1} + inputs_t, x_{t-1} being 0 if `start` and the first one `state`: every x_t at once.

    decay [P], inputs [N, T, P], start [N, T] bool, state [N, P] -> [N, T, P]. The operator of Lu et al.,
    arXiv:2303.03982, a start being an element of decay 0: spans that double, in chunks of 128 steps.
    """
    found = []
    for x, begins in zip(inputs.split(CHUNK, 1), start.split(CHUNK, 1), strict=True):
        a = torch.where(begins[..., None], 0.0, decay)
        x = torch.cat([x[:, :1] + a[:, :1] * state[:, None], x[:, 1:]], 1)
        span = 1
        while span < x.shape[1]:  # after this pass, x_t has gathered 2 span inputs
            x = torch.cat([x[:, :span], x[:, span:] + a[:, span:] * x[:, :-span]], 1)
            a = torch.cat([a[:, :span], a[:, span:] * a[:, :-span]], 1)
            span *= 2
        state = x[:, -1]
        found.append(x)
    return torch.cat(found, 1)


def hippo(size: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Eigenvalues [size / 2] of the normal part of HiPPO-LegS, one of each pair of conjugates, and their eigenvectors.

    Gu et al., 2020.
    """
    n = np.arange(size)
    outer = np.sqrt(np.outer(2 * n + 1, 2 * n + 1))
    normal = 0.5 * outer - np.tril(outer, -1) - np.diag(n + 1)  # LegS and a term of rank one: -1/2 on the diagonal, else skew
    values, vectors = np.linalg.eigh(-1j * (normal + 0.5 * np.eye(size)))
    kept = values > 0
    return -0.5 + 1j * values[kept], vectors[:, kept]


class StateSpace(nn.Module):
    """A layer of S5: norm, x_t = A x_{t-1} + B u_t, y = 2 Re(C x) + D u, a gated activation, a residual.

    A = exp(Lambda Delta) and B = (A - 1) / Lambda B~, Lambda [P] complex, diagonal and stable, from HiPPO-N, with a step Delta
    each. Smith et al., arXiv:2208.04933

    width  of u and y
    size   numbers of state, 2 P: conjugates are not kept
    """

    def __init__(self, width: int, size: int):
        super().__init__()
        values, vectors = hippo(size)
        half = size // 2
        self.decay = nn.Parameter(torch.as_tensor(-values.real, dtype=torch.float32).log())  # of -Re Lambda: it stays negative
        self.turn = nn.Parameter(torch.as_tensor(values.imag, dtype=torch.float32))
        self.log_step = nn.Parameter(torch.empty(half).uniform_(math.log(0.001), math.log(0.1)))
        inverse = torch.as_tensor(vectors.conj().T, dtype=torch.complex64)
        into = inverse @ (torch.randn(size, width) / math.sqrt(width)).to(torch.complex64)
        out = (torch.randn(width, size) / math.sqrt(size)).to(torch.complex64) @ inverse.conj().T
        self.into, self.out = nn.Parameter(torch.view_as_real(into)), nn.Parameter(torch.view_as_real(out))
        self.skip = nn.Parameter(torch.randn(width))
        self.norm, self.gate = nn.LayerNorm(width), linear(width, width, 1.0)

    def discrete(self) -> tuple[Tensor, Tensor]:
        """The decay A [P], and B [P, width], by a zero-order hold."""
        rate = torch.complex(-self.decay.exp(), self.turn)
        held = (rate * self.log_step.exp()).exp()
        return held, ((held - 1) / rate)[:, None] * torch.view_as_complex(self.into)

    def forward(self, x: Tensor, start: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """x [N, T, width], start [N, T], state [N, P] complex -> the same, and the state after the last."""
        u = self.norm(x)
        held, into = self.discrete()
        states = scan(held, u.to(into.dtype) @ into.T, start, state)
        y = 2 * (states @ torch.view_as_complex(self.out).T).real + self.skip * u
        y = nn.functional.gelu(y)
        return x + y * self.gate(y).sigmoid(), states[:, -1]


class Layers(nn.Module):
    """A linear layer and `depth` layers of S5: [N, T, O] -> [N, T, width]. Memory: real and imaginary parts [N, depth, P, 2]."""

    def __init__(self, inputs: int, width: int, size: int, depth: int):
        super().__init__()
        self.features, self.pairs = width, size // 2
        self.inner = nn.Sequential(linear(inputs, width), nn.LeakyReLU())
        self.layers, self.last = nn.ModuleList([StateSpace(width, size) for _ in range(depth)]), nn.LayerNorm(width)

    def fresh(self, count: int) -> Memory:
        return (torch.zeros(count, len(self.layers), self.pairs, 2),)

    def forward(self, x: Tensor, start: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        x, after = self.inner(x), []
        for layer, state in zip(self.layers, torch.view_as_complex(memory[0].contiguous()).unbind(1), strict=True):
            x, state = layer(x, start, state)
            after.append(torch.view_as_real(state))
        return self.last(x), (torch.stack(after, 1),)


@dataclass(frozen=True)
class S5(Network):
    width: int
    size: int
    depth: int

    def __post_init__(self) -> None:
        at_least(1, width=self.width, depth=self.depth)
        if self.size < 2 or self.size % 2:
            raise ValueError(f"size must be even, for states come in conjugate pairs, and at least 2, not {self.size}")

    def net(self, space: Any, outputs: int, gain: float) -> nn.Module:
        return Recurrent(Layers(flat_size(space), self.width, self.size, self.depth), outputs, gain)


def s5(*, width: int = 64, size: int = 64, depth: int = 2) -> Network:
    """Layers of diagonal linear state spaces: see `StateSpace`.

    width  numbers between the layers
    size   numbers of a layer's state; they come in conjugate pairs
    depth  layers
    """
    return S5(width, size, depth)
