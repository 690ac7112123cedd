"""What kind of token it was: a fork where the policy hesitated, or one that followed from the others. Pure."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

TINY = 1e-12  # an entropy, nats: that of a policy that is certain is 0, and has no logarithm


class Scale(NamedTuple):
    """How log-entropies become numbers in [-1, 1]: what is 0, and what is 1 and -1 away from it."""

    middle: float
    top: float
    bottom: float


def scale_of(entropy: Tensor, mask: Tensor, *, share: float = 0.8) -> Scale:
    """Of the decisions made: the `share`-quantile of log-entropy is 0, the largest is 1 and the smallest -1."""
    log = entropy[mask > 0].clamp(min=TINY).log()
    middle = log.quantile(share)
    return Scale(float(middle), float(log.max() - middle), float(middle - log.min()))


def nature(entropy: Tensor, scale: Scale) -> Tensor:
    """Entropies [...] on that scale, in [-1, 1]; 0 where all were alike."""
    away = entropy.clamp(min=TINY).log() - scale.middle
    up, down = (away / size if size > 0 else torch.zeros_like(away) for size in (scale.top, scale.bottom))
    return torch.where(away > 0, up, down).clamp(-1, 1)
