"""One row of numbers per key."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Table(nn.Module):
    """Named columns of `rows` numbers, each with a default: ``Table(1000, mean=0.5, count=0)``."""

    def __init__(self, rows: int, **defaults: float):
        super().__init__()
        for name, value in defaults.items():
            self.register_buffer(name, torch.full((rows,), float(value)))

    def read(self, key: Tensor, name: str) -> Tensor:
        return getattr(self, name)[key]

    def write(self, key: Tensor, name: str, value: Tensor, reduce: str = "mean") -> None:
        """Rows that occur several times in `key` are reduced first ("mean", "amin", "amax", "sum")."""
        column = getattr(self, name)
        column.scatter_reduce_(0, key, value.to(column), reduce, include_self=reduce != "mean")
