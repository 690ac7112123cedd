"""Whole batches that wait for their turn."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Queue(nn.Module):
    """`count` entries of some columns, first in, first out. Columns are buffers, so a checkpoint holds them.

    count    entries held, once it is full
    columns  an example entry of each column by name: its shape and dtype are kept
    """

    cursor: Tensor

    def __init__(self, count: int, **columns: Tensor):
        super().__init__()
        if count < 1:
            raise ValueError(f"a queue has room for at least one entry, not {count}")
        self.count, self.names = count, tuple(columns)
        self.register_buffer("cursor", torch.zeros(2, dtype=torch.long))  # the oldest entry, entries held
        for name, example in columns.items():
            self.register_buffer(name, torch.zeros(count, *example.shape, dtype=example.dtype))

    def __len__(self) -> int:
        return int(self.cursor[1])

    def read(self) -> dict[str, Tensor]:
        """The oldest entry, in memory of its own."""
        if len(self) == 0:
            raise ValueError("the queue is empty: write an entry before reading one")
        return {name: getattr(self, name)[self.cursor[0]].clone() for name in self.names}

    def write(self, **entry: Tensor) -> None:
        """Add an entry; in a full queue it takes the place of the oldest. Raises ValueError where it does not fit."""
        if entry.keys() != set(self.names):
            raise ValueError(f"this queue has columns {sorted(self.names)}, the entry has {sorted(entry)}")
        held = len(self)
        slot = (int(self.cursor[0]) + held) % self.count
        for name, x in entry.items():
            column = getattr(self, name)
            if x.shape != column.shape[1:]:
                raise ValueError(f"entries of {name!r} have shape {list(column.shape[1:])}, not {list(x.shape)}")
            column[slot] = x
        if held == self.count:
            self.cursor[0] = (slot + 1) % self.count
        else:
            self.cursor[1] += 1
