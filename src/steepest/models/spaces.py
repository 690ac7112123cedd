"""Observations are collected as one flat row, in the order of `gymnasium.spaces.flatten`; here their parts are found again."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ..core.problem import flat_size, is_bytes
from .moments import Normalizer


def leaves(space: Any) -> list[Any]:
    """The parts of a space that hold no others, in the order of the flat row."""
    if not hasattr(space, "spaces"):
        return [space]
    inner = space.spaces.values() if hasattr(space.spaces, "values") else space.spaces
    return [leaf for part in inner for leaf in leaves(part)]


def views(space: Any, x: Tensor) -> Iterator[tuple[Any, Tensor]]:
    """Every leaf of the space with its part of x [..., O]: boxes in their own shape [..., *shape], all else flat [..., size]."""
    found = leaves(space)
    for leaf, part in zip(found, x.split([flat_size(leaf) for leaf in found], -1), strict=True):
        yield leaf, part.unflatten(-1, leaf.shape) if hasattr(leaf, "low") and len(leaf.shape) > 1 else part


def is_image(leaf: Any) -> bool:
    """A box of height, width and channels (either end), or of height and width in bytes."""
    return hasattr(leaf, "low") and (len(leaf.shape) == 3 or (len(leaf.shape) == 2 and is_bytes(leaf)))


class Scale(Normalizer):
    """Bytes over 255, whatever stands beside them by running moments or as it is.

    bytes    which numbers of an observation are bytes [O] bool
    running  whether the others are normalised
    """

    bytes: Tensor

    def __init__(self, bytes: Tensor, running: bool):
        super().__init__(len(bytes), bound=10.0 if running else math.inf)
        self.running = running
        self.register_buffer("bytes", bytes, persistent=False)
        self.keep()

    def keep(self) -> None:
        self.mean[self.bytes], self.var[self.bytes] = 0.0, 255.0**2

    @torch.no_grad()
    def write(self, x: Tensor) -> None:
        if self.running:
            super().write(x)
            self.keep()


def normalizer(space: Any, running: bool) -> Normalizer | None:
    """What observations of the space go through before a network sees them."""
    bytes = torch.cat([torch.full((flat_size(leaf),), is_bytes(leaf)) for leaf in leaves(space)])
    if bytes.any():
        return Scale(bytes, running)
    return Normalizer(len(bytes)) if running else None
