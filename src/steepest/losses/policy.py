"""Policy-gradient losses: Terms -> [N, T]. They know nothing of models, tokens or environments."""

from __future__ import annotations

import torch
from torch import Tensor

from .terms import Terms, loss


@loss()
def reinforce(t: Terms) -> Tensor:
    """- A log pi: the score-function gradient. Williams, 1992."""
    return -t.new * t.advantage


@loss()
def surrogate(t: Terms) -> Tensor:
    """- r A: REINFORCE's gradient at r = 1, and importance-weighted beyond. arXiv:1502.05477 eq. 14"""
    return -t.ratio * t.advantage


@loss()
def clip(t: Terms, *, low: float = 0.2, high: float = 0.2) -> tuple[Tensor, dict[str, Tensor]]:
    """max(-r A, -clip(r, 1 - low, 1 + high) A): no reward for leaving the band. arXiv:1707.06347 eq. 7"""
    free = t.ratio * t.advantage
    with torch.no_grad():  # beyond the band the value is a constant: no gradient need pass the clamp to find out
        bounded = t.ratio.clamp(1 - low, 1 + high)
        held = bounded * t.advantage
        beyond = bounded != t.ratio
    return -torch.where(free <= held, free, held), {"clipped": beyond}
