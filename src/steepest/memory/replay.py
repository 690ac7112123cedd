"""A ring of rows."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Replay(nn.Module):
    """The last `capacity` rows of some columns, drawn uniformly. Columns are buffers, so a checkpoint holds them.

    capacity  rows kept
    columns   an example row of each column by name: its shape and dtype are kept
    """

    cursor: Tensor

    def __init__(self, capacity: int, **columns: Tensor):
        super().__init__()
        if capacity < 1:
            raise ValueError(f"a replay needs room for at least one row, not {capacity}")
        self.capacity, self.names = capacity, tuple(columns)
        self.register_buffer("cursor", torch.zeros(2, dtype=torch.long))  # next slot, rows held
        for name, example in columns.items():
            self.register_buffer(name, torch.zeros(capacity, *example.shape, dtype=example.dtype))

    def __len__(self) -> int:
        return int(self.cursor[1])

    def write(self, **rows: Tensor) -> None:
        """Add rows [n, ...] of every column; the oldest make room."""
        if rows.keys() != set(self.names):
            raise ValueError(f"this replay has columns {sorted(self.names)}, the rows have {sorted(rows)}")
        count = len(next(iter(rows.values())))
        skip = max(0, count - self.capacity)  # a slot written twice in one call would hold either row
        slots = (self.cursor[0] + torch.arange(skip, count, device=self.cursor.device)) % self.capacity
        for name in self.names:
            getattr(self, name)[slots] = rows[name][skip:].to(getattr(self, name))
        self.cursor[0] = (self.cursor[0] + count) % self.capacity
        self.cursor[1] = torch.clamp(self.cursor[1] + count, max=self.capacity)

    def read(self, count: int, generator: torch.Generator) -> dict[str, Tensor]:
        """`count` rows drawn with replacement, by column."""
        held = len(self)
        if held == 0:
            raise ValueError("the replay is empty: write rows before reading any")
        rows = torch.randint(held, (count,), generator=generator, device=generator.device)
        return {name: getattr(self, name)[rows] for name in self.names}
