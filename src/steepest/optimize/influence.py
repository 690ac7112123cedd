"""What one step does to what it was not about."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .natural import flat


def slopes(policy: nn.Module, logp: Tensor) -> Tensor:
    """Gradient of each log-probability [N] by all parameters of the policy [N, P]: times a small move of them, its change."""
    params = [p for p in policy.parameters() if p.requires_grad]
    return torch.stack([flat(torch.autograd.grad(x, params, retain_graph=True, materialize_grads=True)) for x in logp])


def correlation(x: Tensor, y: Tensor) -> float:
    """Pearson's; 0 where one is constant."""
    x, y = x.double() - x.double().mean(), y.double() - y.double().mean()
    size = x.norm() * y.norm()
    return float(x @ y / size) if size > 0 else 0.0
