"""Policy-gradient losses: Terms -> [N, T]. They know nothing of models, tokens or environments."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .bounds import balanced, second_moment
from .ratio import averaged, summed
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
    ratio = torch.where(t.mask > 0, t.ratio.detach(), 1.0)  # what lies under the mask may be NaN, and NaN times no gradient is NaN
    weight = ratio.clamp(1 - low, 1 + high)
    return -weight * t.advantage * t.new, {"clipped": weight != ratio}


@loss()
def cpgd(t: Terms, *, width: float = 0.2, drift: float = 0.01, cap: float = 0.2) -> tuple[Tensor, dict[str, Tensor]]:
    """-min(z A, clip(z, log(1 - width), log(1 + width)) A), z = log r, plus `drift` times an estimate of KL(old || new).

    No ratio multiplies the gradient: it is A inside the band and 0 where the band was left for the better. The drift's gradient is
    min(r - 1, cap) times that of log pi. arXiv:2505.12504
    """
    free = t.log_ratio * t.advantage
    bounded = t.log_ratio.detach().clamp(math.log1p(-width), math.log1p(width))
    held, pull = bounded * t.advantage, (torch.where(t.mask > 0, t.ratio.detach(), 1.0) - 1).clamp(max=cap)
    return drift * pull * t.new - torch.where(free <= held, free, held), {"clipped": bounded != t.log_ratio, "drift": pull}


@loss("whole")
def bapo(
    t: Terms, *, target: float = 0.5, low: float = 0.8, high: float = 1.2, low_most: float = 0.95, high_most: float = 2.0,
    low_step: float = 0.05, high_step: float = 0.1, dual: float = 3.0,
) -> tuple[Tensor, dict[str, Tensor]]:  # fmt: skip
    """PPO's clip between absolute bounds that are moved until what was better than expected pulls at least `target` times as
    strongly as what was worse. They are the same for the whole minibatch; `balanced` finds them. arXiv:2510.18927"""
    bounds = balanced(t.whole, target, (low, high), (low_most, high_most), (low_step, high_step))
    value, metrics = between(t.ratio, t.advantage, *bounds, dual)
    return value, {**metrics, **{name: torch.full_like(t.mask, x) for name, x in zip(("low", "high"), bounds, strict=True)}}


@loss("whole")
def m2po(t: Terms, *, budget: float = 0.04, low: float = 0.3, high: float = 0.5) -> tuple[Tensor, dict[str, Tensor]]:
    """PPO's clip at exp(+-tau), where tau cuts the mean square of log r to `budget`, over the decisions that a step would push
    further away; never narrower than [1 - low, 1 + high]. arXiv:2510.01161"""
    tau = second_moment(t.whole, budget)
    return between(t.ratio, t.advantage, (-tau).exp().clamp(max=1 - low), tau.exp().clamp(min=1 + high))


@loss()
def topr(
    t: Terms, *, good_low: float = 1.0, good_high: float = 1.0, bad_low: float = 0.0, bad_high: float = 1.0
) -> tuple[Tensor, dict[str, Tensor]]:
    """-clip(s, low, high) A log pi, s the ratio of the whole trajectory, without gradient: what was worse than expected loses its
    weight once the policy has left it. arXiv:2503.14286 eq. 7

    good_low, good_high  bounds of the weight of what was better than expected
    bad_low, bad_high    and of what was worse. All four at 1: REINFORCE on whatever data
    """
    with torch.no_grad():
        ratio = summed(t).exp()
        weight = torch.where(t.advantage >= 0, ratio.clamp(good_low, good_high), ratio.clamp(bad_low, bad_high))
    return -weight * t.advantage * t.new, {"weight": weight}


@loss()
def rapid(t: Terms, *, most: float = 2.0) -> tuple[Tensor, dict[str, Tensor]]:
    """-min(s, most) A log pi, s the ratio of the whole trajectory, without gradient. arXiv:2510.03515"""
    with torch.no_grad():
        weight = summed(t).exp().clamp(max=most).expand_as(t.mask)
    return -weight * t.advantage * t.new, {"weight": weight}
