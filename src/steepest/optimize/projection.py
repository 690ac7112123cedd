"""Euclidean projections. Pure."""

from __future__ import annotations

import torch
from torch import Tensor


def simplex(x: Tensor, total: float = 1.0) -> Tensor:
    """The nearest rows that are not negative and sum to `total`, for x [..., n]. Held, Wolfe and Crowder, 1974."""
    if not total > 0:
        raise ValueError(f"total must be positive, not {total}")
    high = x.sort(-1, descending=True).values
    shift = (high.cumsum(-1) - total) / torch.arange(1, x.shape[-1] + 1, dtype=x.dtype, device=x.device)
    last = (high > shift).sum(-1, keepdim=True) - 1
    return (x - shift.gather(-1, last)).clamp(min=0)


def l1_ball(x: Tensor, centre: Tensor, radius: float) -> Tensor:
    """The nearest point with |x - centre|_1 <= radius, all entries of x together. Duchi et al., 2008."""
    away = x - centre
    if float(away.abs().sum()) <= radius:
        return x
    return centre + away.sign() * simplex(away.abs().reshape(-1), radius).view_as(x)
