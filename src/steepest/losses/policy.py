"""Policy-gradient losses: Terms -> [N, T]. They know nothing of models, tokens or environments."""

from __future__ import annotations

import torch
from torch import Tensor

from .ratio import averaged
from .terms import Terms, loss

Bound = float | Tensor


@loss()
def reinforce(t: Terms) -> Tensor:
    """- A log pi: the score-function gradient. Williams, 1992."""
    return -t.new * t.advantage


@loss()
def surrogate(t: Terms) -> Tensor:
    """- r A: REINFORCE's gradient at r = 1, and importance-weighted beyond. arXiv:1502.05477 eq. 14"""
    return -t.ratio * t.advantage


def between(
    ratio: Tensor, advantage: Tensor, low: Bound, high: Bound, dual: float | None = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """max(-r A, -clip(r, low, high) A) at every decision; the band [low, high] may be numbers or tensors that broadcast to [N, T].

    dual  an action that was worse than expected costs at most this many |A| (arXiv:1912.09729 eq. 10); None: no bound
    """
    free = ratio * advantage
    with torch.no_grad():  # beyond the band the value is a constant: no gradient need pass the clamp to find out
        bounded = ratio.clamp(low, high)  # type: ignore[arg-type]
        held = bounded * advantage
        beyond = bounded != ratio
    value = -torch.where(free <= held, free, held)
    if dual is not None:
        value = torch.where(advantage < 0, value.minimum(-dual * advantage), value)
    return value, {"clipped": beyond}


@loss()
def clip(t: Terms, *, low: float = 0.2, high: float = 0.2, dual: float | None = None) -> tuple[Tensor, dict[str, Tensor]]:
    """max(-r A, -clip(r, 1 - low, 1 + high) A): no reward for leaving the band. arXiv:1707.06347 eq. 7

    dual  an action that was worse than expected costs at most this many |A|; None: no bound
    """
    return between(t.ratio, t.advantage, 1 - low, 1 + high, dual)


@loss()
def gspo(t: Terms, *, low: float = 3e-4, high: float = 4e-4) -> tuple[Tensor, dict[str, Tensor]]:
    """PPO's clip of s = exp(mean over the trajectory of log r), so that a trajectory counts as a whole or not at all.
    arXiv:2507.18071 eq. 5

    At every decision stands s with the gradient of that decision's log-probability (eq. 14): averaged over the trajectory
    (`sequence_mean`) these are the gradient of s. With one decision to a trajectory it is `clip`.
    """
    here = (t.new - t.new.detach()).exp()  # 1, with a gradient
    return between(averaged(t).detach().exp() * here, t.advantage, 1 - low, 1 + high)


@loss()
def cispo(t: Terms, *, low: float = 1.0, high: float = 0.28) -> tuple[Tensor, dict[str, Tensor]]:
    """-clip(r, 1 - low, 1 + high) A log pi, the weight without gradient: what is clipped is how much a decision counts, and never
    whether it counts. arXiv:2506.13585 eq. 4"""
    with torch.no_grad():
        weight = t.ratio.clamp(1 - low, 1 + high)
    return -weight * t.advantage * t.new, {"clipped": weight != t.ratio}
