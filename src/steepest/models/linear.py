"""Functions that are linear in features of finitely many states."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Linear(nn.Module):
    """V = features [S, d] @ weights [d], which are 0 at first. No gradient flows to them: whoever fits them writes them."""

    features: Tensor
    weights: Tensor

    def __init__(self, features: Tensor):
        super().__init__()
        self.register_buffer("features", features)
        self.register_buffer("weights", torch.zeros_like(features[0]))

    def values(self) -> Tensor:
        """[S]"""
        return self.features @ self.weights
