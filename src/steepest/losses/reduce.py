"""How decisions are averaged: mask [N, T] -> the weight of every decision [N, T]; a loss is sum(weight * value).

Weights are taken on a whole minibatch, before it is cut into micro-batches, so that no loss depends
on the cut.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

Reduce = Callable[[Tensor], Tensor]


def token_mean(mask: Tensor) -> Tensor:
    """Every decision counts the same (DAPO, arXiv:2503.14476 eq. 8; every control method)."""
    return mask / mask.sum().clamp(min=1)


def sequence_mean(mask: Tensor) -> Tensor:
    """Every trajectory counts the same: 1 / length inside it (GRPO, arXiv:2402.03300 eq. 3)."""
    return mask / mask.sum(1, keepdim=True).clamp(min=1) / len(mask)


def sequence_sum(mask: Tensor) -> Tensor:
    """The sum over a trajectory, averaged over trajectories: the plain log-probability of a response (RLOO)."""
    return mask / len(mask)


def constant_norm(length: float) -> Reduce:
    """The sum over a trajectory over one constant: no length bias (Dr. GRPO, arXiv:2503.20783 eq. 3)."""
    if length <= 0:
        raise ValueError(f"the constant must be a positive number of decisions, not {length}")
    return lambda mask: mask / length / len(mask)
