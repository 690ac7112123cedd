"""Losses on what several policies said, of which the present one is neither the one that acted nor the one being trained."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from .divergence import k3
from .terms import LOG_RATIO_MAX, Terms, Value, loss


@loss("now")
def mixed_clip(t: Terms, *, width: float) -> Tensor:
    """The clipped ratio, its band around the ratio of the present policy (`now`) to the one that acted. arXiv:2507.06892"""
    centre = (t.extra["now"] - t.old).clamp(-LOG_RATIO_MAX, LOG_RATIO_MAX).exp()
    bounded = t.ratio.clamp(centre - width, centre + width)
    return -torch.minimum(t.ratio * t.advantage, bounded * t.advantage)


@loss("ref", "before", "share")
def between(t: Terms) -> Value:
    """share k3(reference) + (1 - share) k3(the policy before)."""
    base, told = k3()(t)
    recent = k3()(replace(t, ref=t.extra["before"])).loss
    return Value(t.extra["share"] * base + (1 - t.extra["share"]) * recent, told)
