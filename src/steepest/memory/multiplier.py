"""The price of a constraint."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Multiplier(nn.Module):
    """A number that grows while a constraint is violated and falls, to `least` at least, while it holds: dual ascent.

    least  the smallest price, which it begins with
    rate   of its growth for one unit of violation
    """

    value: Tensor

    def __init__(self, least: float, rate: float):
        super().__init__()
        if least < 0 or rate < 0:
            raise ValueError(f"a multiplier and its rate must not be negative, not {least} and {rate}")
        self.least, self.rate = least, rate
        self.register_buffer("value", torch.tensor(float(least)))

    def read(self) -> Tensor:
        return self.value

    def write(self, violation: float) -> None:
        """violation: how far beyond the bound, negative where there is room."""
        self.value.copy_((self.value + self.rate * violation).clamp(min=self.least))
