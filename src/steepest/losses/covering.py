"""Divergences that keep what a stored policy could do: estimated on its own answers, they pull up what has become too rare."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .terms import LOG_RATIO_MAX, Terms, loss

Divergence = Callable[[Tensor], Tensor]


def forward_kl(u: Tensor) -> Tensor:
    """u - 1 - log u, u = pi / base on answers of the base: KL(base || pi), every estimate at least 0."""
    return u - 1 - u.log()


def jensen_shannon(u: Tensor) -> Tensor:
    """u log u - (1 + u) log((1 + u) / 2): twice their mean divergence from their mixture."""
    return u * u.log() - (1 + u) * ((1 + u) / 2).log()


def alpha_divergence(u: Tensor, *, alpha: float = 0.2) -> Tensor:
    """(u^(1 - a) - (1 - a) u - a) / (a (a - 1)), 0 < a < 1: from one KL to the other as a goes from 0 to 1."""
    return (u ** (1 - alpha) - (1 - alpha) * u - alpha) / (alpha * (alpha - 1))


@loss("rehearsed", "base")
def covering(t: Terms, *, divergence: Divergence = forward_kl) -> tuple[Tensor, dict[str, Tensor]]:
    """A divergence from the policy whose log-probabilities stand in the column `base`, where `rehearsed` is 1; else 0.

    divergence  of u = pi / base, zero and flat at u = 1. DPH-RL, arXiv:2509.07430
    """
    old = t.extra["rehearsed"] > 0
    u = (t.new - t.extra["base"]).clamp(-LOG_RATIO_MAX, LOG_RATIO_MAX).exp()
    value = torch.where(old, divergence(u.where(old, 1.0)), 0.0)
    return value, {"covering": value}
