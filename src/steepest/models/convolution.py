"""Images: the convolutions of the Atari papers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..core.problem import flat_size
from .network import Headed, Network, at_least, linear, orthogonal
from .spaces import is_image, views


class Convolution(nn.Module):
    """Images through convolutions, the rest of the observation beside their features: [..., O] -> [..., F]

    Every image of the space has a stack of its own: 8 x 8 / 4, 4 x 4 / 2 and 3 x 3 / 1 with 32, 64 and 64 channels and a layer
    of `width`, a ReLU after each. Mnih et al., Human-level control through deep reinforcement learning, 2015. Channels are the
    shorter of the first and the last axis.
    """

    def __init__(self, space: Any, width: int):
        super().__init__()
        self.space, stacks, beside = space, [], 0
        for leaf, part in views(space, torch.zeros(flat_size(space))):
            if is_image(leaf):
                stacks.append(stack(leaf.shape, width))
            else:
                beside += part.numel()
        if not stacks:
            raise ValueError(f"conv needs images, and {space} has none (boxes of height x width x channels): use mlp or gru")
        self.stacks = nn.ModuleList(stacks)
        self.features = width * len(stacks) + beside

    def forward(self, x: Tensor) -> Tensor:
        stacks, found = iter(self.stacks), []
        for leaf, part in views(self.space, x):
            seen = next(stacks)(channels_first(part.reshape(-1, *leaf.shape), leaf.shape)) if is_image(leaf) else part
            found.append(seen.reshape(*x.shape[:-1], -1))
        return torch.cat(found, -1)


def channels_first(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """[B, *shape] -> [B, C, H, W]"""
    if len(shape) == 2:
        return x[:, None]
    return x if shape[0] < shape[2] else x.permute(0, 3, 1, 2)


def stack(shape: tuple[int, ...], width: int) -> nn.Sequential:
    """The layers for an image of that shape; raises ValueError where nothing would be left of it."""
    example = channels_first(torch.zeros(1, *shape), shape)
    height, wide = example.shape[2:]
    if min(height, wide) < 36:
        raise ValueError(
            f"conv needs images of at least 36 x 36 pixels, not {height} x {wide}: its filters (8, 4 and 3 wide, strides 4, 2 "
            "and 1) leave nothing of smaller ones; use mlp, or enlarge the image in a wrapper"
        )
    layers: list[nn.Module] = []
    channels = example.shape[1]
    for out, size, stride in ((32, 8, 4), (64, 4, 2), (64, 3, 1)):
        layers += [orthogonal(nn.Conv2d(channels, out, size, stride)), nn.ReLU()]
        channels = out
        height, wide = (height - size) // stride + 1, (wide - size) // stride + 1
    return nn.Sequential(*layers, nn.Flatten(), linear(channels * height * wide, width), nn.ReLU())


@dataclass(frozen=True)
class Conv(Network):
    width: int

    def __post_init__(self) -> None:
        at_least(1, width=self.width)

    def net(self, space: Any, outputs: int, gain: float) -> nn.Module:
        return Headed(Convolution(space, self.width), outputs, gain)


def conv(*, width: int = 512) -> Network:
    """Convolutions for images, also inside Dict and Tuple observations: see `Convolution`.

    width  features of an image
    """
    return Conv(width)
