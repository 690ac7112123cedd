"""Quantiles of a stream of numbers, without the numbers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Quantiles(nn.Module):
    """Estimates at `levels`, which move up by `rate` times the level and down by `rate` times the share that lies below: at rest
    where that share is the level. Before anything was written, they are those of the numbers at hand. Robbins and Monro, 1951.

    levels  in (0, 1), ascending
    rate    of one write, in units of the numbers
    """

    def __init__(self, levels: Sequence[float], *, rate: float = 0.1):
        super().__init__()
        if not all(0 < a < b < 1 for a, b in zip((1e-9, *levels), levels, strict=False)) or not rate > 0:
            raise ValueError(f"levels must ascend within (0, 1) and rate be positive, not {levels} and {rate}")
        self.rate = rate
        self.register_buffer("level", torch.tensor(levels, dtype=torch.float32))
        self.register_buffer("value", torch.full((len(levels),), torch.nan))

    level: Tensor
    value: Tensor

    def read(self, x: Tensor) -> Tensor:
        """One estimate for each level; of the numbers x alone, where nothing was written yet."""
        return x.float().flatten().quantile(self.level) if bool(self.value.isnan().any()) else self.value

    def write(self, x: Tensor) -> None:
        before = self.read(x)
        below = (x.float().flatten() < before[:, None]).float().mean(1)
        self.value.copy_(before + self.rate * (self.level - below))
