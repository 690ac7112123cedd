"""A deterministic actor on normalised observations."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .twin_q import mlp


class DeterministicActor(nn.Module):
    """tanh(MLP((obs - mean) / (std + 1e-3))). `mean`, `std` [S] are buffers, so evaluation sees what training saw."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Tensor, std: Tensor, actions: int, hidden: int):
        super().__init__()
        self.register_buffer("mean", mean.clone())
        self.register_buffer("std", std.clone())
        self.net = mlp(len(mean), actions, hidden)

    def normalize(self, obs: Tensor) -> Tensor:
        return (obs - self.mean) / (self.std + 1e-3)

    def forward(self, obs: Tensor) -> Tensor:
        """obs [B, S] -> action [B, A] in (-1, 1)"""
        return self.net(self.normalize(obs)).tanh()

    def act(self, obs: Tensor, generator: torch.Generator, greedy: bool = False) -> Tensor:
        return self(obs)
