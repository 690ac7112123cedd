"""Regression that is linear in features, in closed form."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Quadratic(nn.Module):
    """y = W phi(x), phi the monomials of x up to degree 2: ridge regression on all rows written so far.

    The sums of products are buffers, so that old rows need not be kept.

    ridge  added to the diagonal of the features' second moments
    """

    gram: Tensor  # [P, P] double
    cross: Tensor  # [P, O] double
    weight: Tensor  # [P, O]
    pairs: Tensor  # [2, ...] which inputs are multiplied

    def __init__(self, inputs: int, outputs: int, ridge: float = 1e-3):
        super().__init__()
        if not ridge > 0:
            raise ValueError(f"ridge must be positive, not {ridge}: on few rows nothing else makes the weights unique")
        self.ridge, size = ridge, 1 + inputs + inputs * (inputs + 1) // 2
        self.register_buffer("gram", torch.zeros(size, size, dtype=torch.float64))
        self.register_buffer("cross", torch.zeros(size, outputs, dtype=torch.float64))
        self.register_buffer("weight", torch.zeros(size, outputs))
        self.register_buffer("pairs", torch.triu_indices(inputs, inputs), persistent=False)

    def features(self, x: Tensor) -> Tensor:
        """[B, I] -> [B, P]"""
        return torch.cat([torch.ones_like(x[:, :1]), x, x[:, self.pairs[0]] * x[:, self.pairs[1]]], 1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, I] -> [B, O], differentiable by x"""
        return self.features(x) @ self.weight

    @torch.no_grad()
    def write(self, x: Tensor, y: Tensor) -> None:
        """Take rows x [B, I] and y [B, O] into account."""
        phi = self.features(x.double())
        self.gram += phi.T @ phi
        self.cross += phi.T @ y.double()
        eye = torch.eye(len(self.gram), dtype=torch.float64, device=phi.device)
        self.weight.copy_(torch.linalg.solve(self.gram + self.ridge * eye, self.cross))
