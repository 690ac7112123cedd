"""Losses of preference pairs: PairTerms -> [N]. They know nothing of models or texts."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import softplus

from .terms import loss


@dataclass(frozen=True)
class PairTerms:
    """Log-probabilities of whole answers, for N pairs.

    chosen        of the preferred answer under the policy being trained, with gradient [N]
    rejected      of the other one, with gradient [N]
    ref_chosen    of the preferred answer under the reference [N]
    ref_rejected  of the other one [N]
    """

    chosen: Tensor
    rejected: Tensor
    ref_chosen: Tensor
    ref_rejected: Tensor

    def __post_init__(self) -> None:
        for name in ("ref_chosen", "ref_rejected"):
            if getattr(self, name).requires_grad:
                raise ValueError(f"PairTerms.{name} carries a gradient: the reference is frozen, compute it under torch.no_grad()")

    @property
    def margin(self) -> Tensor:
        """D = log pi/ref (chosen) - log pi/ref (rejected) [N]"""
        return (self.chosen - self.ref_chosen) - (self.rejected - self.ref_rejected)


def positive(beta: float) -> float:
    if not beta > 0:
        raise ValueError(f"beta must be positive, not {beta}: at 0 the policy never moves")
    return beta


@loss()
def logistic(t: PairTerms, *, beta: float = 0.1, smoothing: float = 0.0) -> Tensor:
    """-(1 - e) log sigmoid(beta D) - e log sigmoid(-beta D): DPO; e > 0 smooths the labels. arXiv:2305.18290 eq. 7"""
    if not 0 <= smoothing <= 0.5:
        raise ValueError(f"smoothing must lie in [0, 1/2], not {smoothing}")
    z = positive(beta) * t.margin
    return (1 - smoothing) * softplus(-z) + smoothing * softplus(z)


@loss()
def robust_logistic(t: PairTerms, *, beta: float = 0.1, flip: float = 0.1) -> Tensor:
    """The logistic loss without bias where a share `flip` of the labels is wrong. arXiv:2403.00409"""
    if not 0 <= flip < 0.5:
        raise ValueError(
            f"flip must lie in [0, 1/2), not {flip}: from labels that are wrong half of the time nothing can be learned"
        )
    z = positive(beta) * t.margin
    return ((1 - flip) * softplus(-z) - flip * softplus(z)) / (1 - 2 * flip)


@loss()
def square(t: PairTerms, *, beta: float = 0.1) -> Tensor:
    """(D - 1 / (2 beta))^2: IPO, whose margin stays bounded when every label agrees. arXiv:2310.12036 eq. 17"""
    return (t.margin - 1 / (2 * positive(beta))) ** 2


@loss()
def hinge(t: PairTerms, *, beta: float = 0.1) -> Tensor:
    """max(0, 1 - beta D). arXiv:2309.06657"""
    return (1 - positive(beta) * t.margin).relu()
