"""The last thing that was written of each key."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Latest(nn.Module):
    """One row of every column for each of `rows` keys: zeros until something is written.

    columns  an example row of each column by name: its shape and dtype are kept
    """

    def __init__(self, rows: int, **columns: Tensor):
        super().__init__()
        self.names = tuple(columns)
        for name, example in columns.items():
            self.register_buffer(name, torch.zeros(rows, *example.shape, dtype=example.dtype))

    def read(self, key: Tensor) -> dict[str, Tensor]:
        return {name: getattr(self, name)[key] for name in self.names}

    @torch.no_grad()
    def write(self, key: Tensor, **rows: Tensor) -> None:
        """Rows [N, ...] of every column; of those with one key the last one stays. Shorter rows are filled up with zeros."""
        if rows.keys() != set(self.names):
            raise ValueError(f"this memory has columns {sorted(self.names)}, the rows have {sorted(rows)}")
        last = {k: n for n, k in enumerate(key.tolist())}
        chosen, index = torch.tensor([*last.values()], device=key.device), torch.tensor([*last], device=key.device)
        for name, x in rows.items():
            column = getattr(self, name)
            whole = torch.zeros(len(index), *column.shape[1:], dtype=column.dtype, device=column.device)
            whole[(slice(None), *map(slice, x.shape[1:]))] = x[chosen].to(column)
            column[index] = whole
