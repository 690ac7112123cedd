"""SPO: a quadratic price pulls the ratio of probabilities back to the edge of the band, where the clip lets go of it.

Paper.  Xie, Zhang, Yang, Ni, Zhang and Xu, Simple Policy Optimization, 2024. arXiv 2401.16025.
Claim.  The policy stays nearer to the one that collected than PPO's, also where the network is deep, and earns no less.
Idea.   maximise E [r A - |A| (r - 1)^2 / (2 e)], whose optimum for each sample is r = 1 + e sign(A)
State.  as ppo
Note.   Built from the authors' present code. An older commit of theirs scales PPO's loss by a ratio of divergences instead: that
        is another method. Advantages are standardised over the batch, the authors' code does it in each minibatch.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ...core.system import System, extends
from ...losses import Terms, loss
from .ppo import ppo


@loss()
def quadratic(t: Terms, *, width: float = 0.2) -> tuple[Tensor, dict[str, Tensor]]:
    """-(r A - |A| (r - 1)^2 / (2 width)): as steep as -r A at ratio 1, and least at r = 1 + width sign(A)."""
    away = t.ratio - 1
    value = t.advantage.abs() * away**2 / (2 * width) - t.ratio * t.advantage  # <- the idea
    return value, {"away": away.abs()}


@extends(ppo, without=("clip_range", "loss"))
def spo(*, width_ratio: float = 0.2, minibatches: int = 4, value_clip: float | None = 0.2, **options: Any) -> System:
    """PPO with a quadratic penalty in place of the clip.

    width_ratio  how far from 1 the ratio of a sample is drawn (paper: 0.2)
    minibatches  optimizer steps of a pass (authors' code: 4)
    value_clip   how far an update may move a value before its gradient stops; None: freely (authors' code: 0.2)
    """
    if not width_ratio > 0:
        raise ValueError(f"width_ratio must be positive, not {width_ratio}: at 0 no ratio but 1 would be free")
    return ppo(loss=quadratic(width=width_ratio), minibatches=minibatches, value_clip=value_clip, **options)
