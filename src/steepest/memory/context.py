"""What was lived through since a context began."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Context(nn.Module):
    """Columns of up to `steps` steps in each of `count` environments, written piece after piece. Buffers, so that a checkpoint
    holds them.

    columns  an example of a step of all environments [count, ...] by name: its shape and dtype are kept
    """

    def __init__(self, steps: int, **columns: Tensor):
        super().__init__()
        if steps < 1:
            raise ValueError(f"a context has at least one step, not {steps}")
        self.steps, self.names = steps, tuple(columns)
        for name, x in columns.items():
            self.register_buffer(name, torch.zeros(x.shape[0], steps, *x.shape[1:], dtype=x.dtype))

    def write(self, since: int, **columns: Tensor) -> None:
        """Write the steps from `since` on, [count, T, ...] of every column. Raises ValueError where they do not fit."""
        if columns.keys() != set(self.names):
            raise ValueError(f"this context has columns {sorted(self.names)}, the steps have {sorted(columns)}")
        until = since + next(iter(columns.values())).shape[1]
        if until > self.steps:
            raise ValueError(f"steps {since} to {until} do not fit a context of {self.steps}: begin another")
        for name, x in columns.items():
            getattr(self, name)[:, since:until] = x

    def read(self, until: int) -> dict[str, Tensor]:
        """The first `until` steps [count, until, ...], by column, in memory of their own."""
        return {name: getattr(self, name)[:, :until].clone() for name in self.names}
