"""Critic losses, as loss terms [N, T]."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, mse_loss

from .terms import Terms, loss


@loss("value", "target")
def squared(t: Terms) -> tuple[Tensor, dict[str, Tensor]]:
    """(V - target)^2 / 2"""
    value = 0.5 * mse_loss(t.value, t.target, reduction="none")
    return value, {"value_loss": value}


@loss("value", "old_value", "target")
def squared_clip(t: Terms, *, width: float = 0.2) -> tuple[Tensor, dict[str, Tensor]]:
    """max((V - target)^2, (V_old + clip(V - V_old, +-width) - target)^2) / 2, as in openai/baselines' PPO."""
    near = t.old_value + (t.value - t.old_value).clamp(-width, width)
    value = 0.5 * torch.maximum((t.value - t.target) ** 2, (near - t.target) ** 2)
    return value, {"value_loss": value}


@loss("value", "target")
def cross_entropy(t: Terms) -> tuple[Tensor, dict[str, Tensor]]:
    """-y log s - (1 - y) log(1 - s), where s is the logistic function of the value and y the target, a chance in [0, 1]."""
    value = binary_cross_entropy_with_logits(t.value, t.target, reduction="none")
    return value, {"value_loss": value}
