"""Two action-value networks."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def mlp(inputs: int, outputs: int, hidden: int) -> nn.Sequential:
    """Two hidden layers of ReLU."""
    return nn.Sequential(
        nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, outputs)
    )  # fmt: skip


class TwinQ(nn.Module):
    """Q1 and Q2 of (obs [B, S], act [B, A]), each [B]. arXiv:1802.09477"""

    def __init__(self, obs: int, actions: int, hidden: int):
        super().__init__()
        self.one, self.two = mlp(obs + actions, 1, hidden), mlp(obs + actions, 1, hidden)

    def forward(self, obs: Tensor, act: Tensor) -> tuple[Tensor, Tensor]:
        x = torch.cat([obs, act], -1)
        return self.one(x)[..., 0], self.two(x)[..., 0]
