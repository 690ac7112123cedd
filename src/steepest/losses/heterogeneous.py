"""Losses that treat decisions by their nature."""

from __future__ import annotations

import torch
from torch import Tensor

from .policy import between
from .terms import Terms, loss


@loss("nature")
def hapo(
    t: Terms, *, width: float = 0.2, widen: float = 1.0, boost: float = 1.0, dual: float = 10.0
) -> tuple[Tensor, dict[str, Tensor]]:
    """PPO's clip with a band and an advantage of each decision's own, by the column `nature` h in [-1, 1], from sure to hesitant.

    A sure decision may fall further (1 - width (1 - widen h)), a hesitant one rise further (1 + width (1 + widen h)). The
    advantage is multiplied by 1 + boost h where a hesitant decision has left the inner half of the band or a sure one is still in
    it. Breaks the law `on_policy`: a sure decision counts less from the first update on.
    """
    h = t.extra["nature"]
    low = torch.where(h <= 0, width * (1 - widen * h), width)
    high = torch.where(h > 0, width * (1 + widen * h), width)
    inner = (t.ratio.detach() - 1).abs() < width / 2
    strength = torch.where((h > 0) ^ inner, 1 + boost * h, 1.0)
    value, metrics = between(t.ratio, t.advantage * strength, 1 - low, 1 + high, dual)
    return value, {**metrics, "strength": strength}
