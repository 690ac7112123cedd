"""Ratios of whole trajectories: Terms -> [N, 1]. What lies under the mask does not count."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import hardtanh

from .terms import LOG_RATIO_MAX, Terms


def summed(t: Terms) -> Tensor:
    """log pi(trajectory) - log pi_old(trajectory)."""
    away = torch.where(t.mask > 0, t.new - t.old, 0.0).sum(1, keepdim=True)
    return hardtanh(away, -LOG_RATIO_MAX, LOG_RATIO_MAX)


def averaged(t: Terms) -> Tensor:
    """The mean of the decisions' log-ratios: that of the geometric mean, which does not grow with length. arXiv:2507.18071 eq. 7"""
    away = torch.where(t.mask > 0, t.log_ratio, 0.0).sum(1, keepdim=True)
    return away / t.mask.sum(1, keepdim=True).clamp(min=1)
