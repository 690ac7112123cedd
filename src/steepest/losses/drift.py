"""Drifts: what a sample pays for the distance of its ratio from 1. (log ratio [...], advantage [...]) -> [...]

Mirror learning (Kuba et al., 2022, arXiv:2201.02373): whatever drift is at least 0, and 0 with its slope at ratio 1, keeps the
guarantee of improvement. PPO's clip is one, DPO's another, and one can be learned (`models.drift`).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .terms import Terms, loss

Drift = Callable[[Tensor, Tensor], Tensor]


@loss()
def mirror_drift(t: Terms, *, drift: Drift) -> tuple[Tensor, dict[str, Tensor]]:
    """-(r A - drift). arXiv:2210.05639 eq. 5"""
    paid = drift(t.log_ratio, t.advantage)
    return paid - t.ratio * t.advantage, {"drift": paid}


def clip_drift(log_ratio: Tensor, advantage: Tensor, *, low: float = 0.2, high: float = 0.2) -> Tensor:
    """relu((r - clip(r, 1 - low, 1 + high)) A): with it the loss is PPO's. arXiv:2210.05639 sec. 3"""
    ratio = log_ratio.exp()
    return ((ratio - ratio.clamp(1 - low, 1 + high)) * advantage).relu()


def discovered_drift(log_ratio: Tensor, advantage: Tensor, *, alpha: float = 2.0, beta: float = 0.6) -> Tensor:
    """relu(x - alpha tanh(x / alpha)), x = (r - 1) A, where A >= 0; relu(y - beta tanh(y / beta)), y = A log r, where A < 0.

    What was read off a learned drift: a likelier action gains less and less, an unlikelier one is pulled back.
    arXiv:2210.05639 sec. 5.2
    """
    good = advantage >= 0
    x = torch.where(good, log_ratio.expm1(), log_ratio) * advantage
    scale = torch.where(good, alpha, beta).to(x)
    return (x - scale * (x / scale).tanh()).relu()
