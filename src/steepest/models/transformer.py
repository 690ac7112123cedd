"""A causal transformer over an episode, with a learned key and value that take what attention has nowhere else to put."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..core.problem import flat_size
from ..core.recurrent import Memory
from .network import Network, Recurrent, at_least, linear


class Attention(nn.Module):
    """Attention of `heads` heads with a sink: softmax over [q.k_sink, q.k_1, ...]. Both sink vectors start at 0, where the softmax
    has exp(0) more in its denominator, and are learned. arXiv:2410.02751, section 3.2"""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.query, self.key, self.given, self.out = (linear(width, width, 1.0) for _ in range(4))
        self.sink_key, self.sink_value = nn.Parameter(torch.zeros(width)), nn.Parameter(torch.zeros(width))

    def parted(self, x: Tensor) -> Tensor:
        """[..., J, width] -> [..., heads, J, width / heads]"""
        return x.unflatten(-1, (self.heads, -1)).transpose(-3, -2)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, far: Tensor) -> Tensor:
        """q [N, T, width] over k and v [N, J, width]. far [N, T, J]: how many steps ago, infinite where it may not look."""
        slope = 2.0 ** (-8.0 * torch.arange(1, self.heads + 1, device=q.device) / self.heads)  # arXiv:2108.12409
        q, sink = self.parted(self.query(q)), self.parted(self.sink_key[None])
        steps = q @ self.parted(k).transpose(-1, -2) - slope[:, None, None] * far[:, None]
        score = torch.cat([q @ sink.transpose(-1, -2), steps], -1)
        weight = (score / math.sqrt(q.shape[-1])).softmax(-1)
        found = weight[..., 1:] @ self.parted(v) + weight[..., :1] * self.parted(self.sink_value[None])
        return self.out(found.transpose(-3, -2).flatten(-2))


class Block(nn.Module):
    """Attention and a layer of 4 widths, each behind a norm and beside what it adds to."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.inner = nn.Sequential(linear(width, 4 * width), nn.GELU(), linear(4 * width, width, 1.0))

    def forward(self, x: Tensor, held: Tensor, far: Tensor) -> tuple[Tensor, Tensor]:
        """x [N, T, width], keys and values of steps before it [N, C, 2, width] -> x, and those of all steps [N, C + T, 2, width]"""
        y = self.first(x)
        held = torch.cat([held, torch.stack([self.attention.key(y), self.attention.given(y)], -2)], 1)
        x = x + self.attention(y, *held.unbind(-2), far)
        return x + self.inner(self.second(x)), held


class Blocks(nn.Module):
    """[N, T, O] -> [N, T, width]. Each step looks at the last `context` steps of its episode, itself included; the memory holds
    their keys and values in every block [N, depth, context, 2, width], and how many there are [N]."""

    def __init__(self, inputs: int, width: int, depth: int, heads: int, context: int):
        super().__init__()
        self.features, self.context = width, context
        self.inner, self.last = linear(inputs, width, 1.0), nn.LayerNorm(width)
        self.blocks = nn.ModuleList([Block(width, heads) for _ in range(depth)])

    def fresh(self, count: int) -> Memory:
        return torch.zeros(count, len(self.blocks), self.context, 2, self.features), torch.zeros(count, dtype=torch.long)

    def forward(self, x: Tensor, start: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        (held, known), (n, t), c = memory, start.shape, self.context
        here = torch.arange(c + t, device=x.device)
        episode = torch.cat([torch.zeros_like(start[:, :1], dtype=torch.long).expand(n, c), start.long().cumsum(1)], 1)
        steps = (here[c:, None] - here[None, :]).expand(n, t, c + t)
        there = (here >= c) | (here >= c - known[:, None])  # what is held of an episode, and what comes now
        seen = (steps >= 0) & (steps < c) & (episode[:, c:, None] == episode[:, None]) & there[:, None]
        far = torch.where(seen, steps.float(), math.inf)
        x, after = self.inner(x), []
        for block, one in zip(self.blocks, held.unbind(1), strict=True):
            x, one = block(x, one, far)
            after.append(one[:, -c:])
        back = start.flip(1).long()
        since = torch.where(start.any(1), back.argmax(1) + 1, known + t)  # steps of the last episode
        return self.last(x), (torch.stack(after, 1), since.clamp(max=c))


@dataclass(frozen=True)
class Transformer(Network):
    width: int
    depth: int
    heads: int
    context: int

    def __post_init__(self) -> None:
        at_least(1, width=self.width, depth=self.depth, heads=self.heads, context=self.context)
        if self.width % self.heads:
            raise ValueError(f"width is shared out among the heads: {self.width} cannot be among {self.heads}")

    def net(self, space: Any, outputs: int, gain: float) -> nn.Module:
        return Recurrent(Blocks(flat_size(space), self.width, self.depth, self.heads, self.context), outputs, gain)


def transformer(*, width: int = 64, depth: int = 2, heads: int = 4, context: int = 64) -> Network:
    """A causal transformer: see `Blocks` and `Attention`.

    width    numbers of a step between the blocks
    depth    blocks
    heads    of attention
    context  steps of its episode that a step can look back on, itself included
    """
    return Transformer(width, depth, heads, context)
