"""The multi-layer perceptron as one vector of numbers: small tanh networks, made to cost little."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from ..core import native
from ..core.problem import flat_size
from .moments import Normalizer
from .network import Network, at_least

Net = tuple[int, tuple[int, ...], int, int, float]  # addresses of theta, of a mean and of a variance, as the kernels take them


def parts(theta: Tensor, sizes: tuple[int, ...]) -> list[tuple[Tensor, Tensor]]:
    """Weights [I, O] and biases [O] of each layer, as views of the vector that holds them all."""
    found, at = [], 0
    for i, o in pairwise(sizes):
        end = at + i * o
        found.append((theta[at:end].reshape(i, o), theta[end : end + o]))
        at = end + o
    return found


def plain(x: Tensor, theta: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """The network in torch, differentiable as often as one likes: x [B, I] -> [B, O]"""
    *hidden, (w, b) = parts(theta, sizes)
    for weight, bias in hidden:
        x = torch.addmm(bias, x, weight).tanh()
    return torch.addmm(b, x, w)


class Fused(torch.autograd.Function):
    """The network and its gradient as one native call each: for the few rows of a minibatch a tenth of the time that autograd's
    dozen nodes take. A gradient that is itself to be differentiated goes through `plain`. x [B, I]"""

    @staticmethod
    def forward(ctx: Any, x: Tensor, theta: Tensor, sizes: tuple[int, ...]) -> Tensor:
        out, net = torch.empty(len(x), sizes[-1]), (theta.data_ptr(), sizes, 0, 0, 0.0)
        kept = torch.empty(len(x) * sum(sizes[1:-1]))
        native.library.forward(net, len(x), x.data_ptr(), kept.data_ptr(), out.data_ptr())
        ctx.save_for_backward(x, theta, kept)
        ctx.sizes = sizes
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, theta, kept = ctx.saved_tensors
        if torch.is_grad_enabled():
            wanted = [t for t, need in zip((x, theta), ctx.needs_input_grad, strict=False) if need]
            again = iter(torch.autograd.grad(plain(x, theta, ctx.sizes), wanted, grad, create_graph=True))
            twice = [next(again) if need else None for need in ctx.needs_input_grad[:2]]
            return twice[0], twice[1], None
        g, found = grad.contiguous(), torch.zeros_like(theta)
        by_x = torch.empty_like(x) if ctx.needs_input_grad[0] else None
        net, to = (theta.data_ptr(), ctx.sizes, 0, 0, 0.0), 0 if by_x is None else by_x.data_ptr()
        native.library.backward(net, len(x), x.data_ptr(), kept.data_ptr(), g.data_ptr(), found.data_ptr(), to)
        return by_x, found if ctx.needs_input_grad[1] else None, None


class Mlp(nn.Module):
    """tanh layers of `width`, `depth` of them, orthogonal with gain sqrt(2); the last is linear with gain `gain`, biases 0.

    All numbers are one parameter `theta` [P] (`parts` are its views), so that an optimizer step costs one tensor, not
    a dozen, and a natural gradient is a vector to begin with.
    """

    def __init__(self, inputs: int, outputs: int, *, width: int, depth: int, gain: float):
        super().__init__()
        Perceptron(width, depth)  # refuses sizes that make no sense
        self.sizes = (inputs, *[width] * depth, outputs)
        self.theta = nn.Parameter(torch.zeros(sum(i * o + o for i, o in pairwise(self.sizes))))
        for (w, _), scale in zip(parts(self.theta.data, self.sizes), [math.sqrt(2)] * depth + [gain], strict=True):
            w.copy_(nn.init.orthogonal_(torch.empty(w.shape), scale))

    def forward(self, x: Tensor) -> Tensor:
        """x [..., I] -> [..., O]"""
        rows = x.reshape(-1, self.sizes[0]).contiguous()
        run = Fused.apply if self.compiled(rows) else plain
        return run(rows, self.theta, self.sizes).view(*x.shape[:-1], self.sizes[-1])

    def compiled(self, x: Tensor) -> bool:
        """Whether the kernels take x [..., I] and this very class."""
        known = type(self) is Mlp and len(self.sizes) <= native.LAYERS + 1
        return known and x.shape[-1] == self.sizes[0] and native.fits(x, self.theta)

    def address(self, norm: Normalizer | None) -> Net:
        """The network behind `norm`, for the kernels, while both stay where they are."""
        moments = (0, 0, 0.0) if norm is None else (norm.mean.data_ptr(), norm.var.data_ptr(), norm.bound)
        return (self.theta.data_ptr(), self.sizes, *moments)

    def kept(self, rows: int, norm: Normalizer | None) -> Tensor:
        """Room for what a gradient needs of a forward pass."""
        return torch.empty(rows * (sum(self.sizes[1:-1]) + (0 if norm is None else self.sizes[0])))


@dataclass(frozen=True)
class Perceptron(Network):
    width: int
    depth: int

    def __post_init__(self) -> None:
        at_least(1, width=self.width)
        at_least(0, depth=self.depth)

    def net(self, space: Any, outputs: int, gain: float) -> nn.Module:
        return Mlp(flat_size(space), outputs, width=self.width, depth=self.depth, gain=gain)


def mlp(*, width: int = 64, depth: int = 2) -> Network:
    """tanh layers: see `Mlp`. What a system takes where no network is given, of its own width and depth.

    width  units of a hidden layer
    depth  hidden layers
    """
    return Perceptron(width, depth)
