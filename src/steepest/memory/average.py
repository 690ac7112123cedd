"""An exponential moving average of a module: target networks, mean teachers."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


class Average(nn.Module):
    """A frozen copy that follows a module: mine <- decay * mine + (1 - decay) * theirs, buffers copied."""

    def __init__(self, module: nn.Module, decay: float):
        super().__init__()
        if not 0 <= decay <= 1:
            raise ValueError(f"decay must lie in [0, 1], not {decay}")
        self.decay, self.module = decay, copy.deepcopy(module).requires_grad_(False)

    def read(self) -> nn.Module:
        return self.module

    @torch.no_grad()
    def write(self, module: nn.Module) -> None:
        mine: list[Tensor] = [*self.module.parameters()]
        torch._foreach_lerp_(mine, [*module.parameters()], 1 - self.decay)
        for a, b in zip(self.module.buffers(), module.buffers(), strict=True):
            a.copy_(b)
