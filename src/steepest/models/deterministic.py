"""A deterministic actor on normalised observations."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .twin_q import mlp


class DeterministicActor(nn.Module):
    """tanh(MLP((obs - mean) / (std + 1e-3))). `mean`, `std` [S] are buffers, so evaluation sees what training saw.

    noise  standard deviation of what `sample` adds
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Tensor, std: Tensor, actions: int, hidden: int, noise: float = 0.0):
        super().__init__()
        self.noise = noise
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

    def sample(self, obs: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """obs [B, S] -> action [B, A] with noise, within [-1, 1], and zeros [B] for the density that it does not have."""
        chosen = self(obs)
        jitter = self.noise * torch.randn(chosen.shape, generator=generator, device=chosen.device)
        return (chosen + jitter).clamp(-1, 1), torch.zeros_like(chosen[:, 0])
