"""The last few numbers of each key."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Recent(nn.Module):
    """The last `window` numbers that were written of each of `rows` keys, and how many were written ever."""

    value: Tensor
    uses: Tensor

    def __init__(self, rows: int, window: int):
        super().__init__()
        if rows < 1 or window < 1:
            raise ValueError(f"there is room for at least one number of one key, not for {window} of {rows}")
        self.register_buffer("value", torch.zeros(rows, window))
        self.register_buffer("uses", torch.zeros(rows, dtype=torch.long))

    def read(self, key: Tensor) -> Tensor:
        """Their mean; 0 where nothing was written."""
        held = self.uses[key].clamp(max=self.value.shape[1])
        return self.value[key].sum(1) / held.clamp(min=1)  # what was not written is 0

    @torch.no_grad()
    def write(self, key: Tensor, value: Tensor) -> None:
        """One number of each of the keys, which differ."""
        if len(key.unique()) < len(key):
            raise ValueError("a key occurs twice: reduce what belongs to one key first")
        self.value[key, self.uses[key] % self.value.shape[1]] = value.to(self.value)
        self.uses[key] += 1
