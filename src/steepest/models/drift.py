"""A drift that is a network, to be learned: see `losses.drift` for what a drift is."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

FEATURES = 8
SLACK = 1e-6  # what a drift must exceed: around ratio 1 it is 0, and so is its slope


def features(log_ratio: Tensor, advantage: Tensor) -> Tensor:
    """1 - r and log r, their squares, and all four times the advantage: [...] -> [..., 8]. Each is 0 at ratio 1.

    arXiv:2210.05639 sec. 4.1
    """
    away = -log_ratio.expm1()
    alone = torch.stack([away, away.square(), log_ratio, log_ratio.square()], -1)
    return torch.cat([alone, alone * advantage[..., None]], -1)


class DriftNet(nn.Module):
    """relu(w . tanh(W x) - 1e-6) of the features x: whatever the weights, at least 0, and 0 with its slope at ratio 1.

    It has no biases, which would break that. At first w is 0: a drift of nothing. Nothing is differentiated through the weights,
    so it may stand in a loss as it is: ``ppo(loss=mirror_drift(drift=net))``. arXiv:2210.05639 sec. 4.1

    hidden  units of its layer
    """

    def __init__(self, hidden: int = 128):
        super().__init__()
        if hidden < 1:
            raise ValueError(f"a drift network needs a unit at least, not {hidden}")
        self.inner = nn.Parameter(torch.randn(FEATURES, hidden) / math.sqrt(FEATURES), requires_grad=False)
        self.outer = nn.Parameter(torch.zeros(hidden, 1), requires_grad=False)

    def forward(self, log_ratio: Tensor, advantage: Tensor) -> Tensor:
        """[...] -> [...]"""
        return drift_of(self.inner, self.outer, log_ratio, advantage)

    def rows(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Weights of P networks like this one, theta [P, D] as `parameters_to_vector` writes them: [P, 8, H] and [P, H, 1]."""
        inner, outer = theta.split([self.inner.numel(), self.outer.numel()], 1)
        return inner.view(-1, *self.inner.shape), outer.view(-1, *self.outer.shape)


def drift_of(inner: Tensor, outer: Tensor, log_ratio: Tensor, advantage: Tensor) -> Tensor:
    """What a network of these weights says [..., T]; P networks ([P, 8, H] and [P, H, 1]) say it of a row [P, T] each."""
    x = features(log_ratio, advantage)
    return ((x @ inner.to(x)).tanh() @ outer.to(x)).squeeze(-1).sub(SLACK).relu()
