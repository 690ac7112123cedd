"""Policy optimization as least squares on whole answers: how far the policy has moved, regressed on what was gained.

The movement of an answer is the sum of its log-ratios; the loss is (scale / 2) (movement / scale - A)^2, of which each decision
carries a part, so that `sequence_sum` averages the squares. At no movement its gradient is that of REINFORCE.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from .terms import Loss, Terms, Value, loss


def half_square(t: Terms, shift: Tensor, scale: float) -> tuple[Tensor, dict[str, Tensor]]:
    """The square of an answer whose movement is shifted by `shift` [N, 1], cut into its decisions. The advantage is that of the
    answer, the same at all of its decisions."""
    steps = t.mask.sum(1, keepdim=True)
    part = torch.where(t.mask > 0, t.log_ratio, 0.0) + shift / steps
    movement = (part * t.mask).sum(1, keepdim=True)
    value = part * (0.5 * movement / scale - t.advantage) + 0.5 * scale * t.advantage**2 / steps
    return value, {"residual": (movement.detach() / scale - t.advantage) ** 2}


@loss()
def regress(t: Terms, *, scale: float = 1.0) -> tuple[Tensor, dict[str, Tensor]]:
    """(scale / 2) (movement / scale - A)^2: policy mirror descent whose normalizer is part of A. arXiv:2501.12599 eq. 3"""
    return half_square(t, torch.zeros_like(t.mask[:, :1]), scale)


@loss("whole", "key")
def regress_pairs(t: Terms, *, scale: float = 1.0) -> tuple[Tensor, dict[str, Tensor]]:
    """The squares of differences between two answers to a prompt, over all pairs. arXiv:2404.16767 eq. 1

    The sum of (x_i - x_j)^2 over all pairs of G numbers is 2 G times that of (x_i - mean)^2, and the mean's own gradient cancels:
    so each answer is compared with the mean movement of its group, whatever part of the minibatch is looked at. Wants an
    advantage that is centred in its group.
    """
    movement = torch.where(t.whole.mask > 0, t.whole.log_ratio, 0.0).sum(1)
    mates = (t.key[:, :1] == t.whole.key[:, 0]).to(movement.dtype)
    return half_square(t, -(mates @ movement / mates.sum(1))[:, None], scale)


@loss("value", "ref")
def regress_value(t: Terms, *, scale: float = 1.0) -> tuple[Tensor, dict[str, Tensor]]:
    """`regress` of the movement from the reference plus the value of the first decision, which learns too. arXiv:2505.15311"""
    return half_square(replace(t, old=t.ref), t.value[:, :1], scale)


def from_reference(inner: Loss) -> Loss:
    """The same loss with the frozen reference in the place of the policy that acted."""

    def fn(t: Terms) -> Value:
        whole = None if t.whole is None else replace(t.whole, old=t.whole.ref)
        return inner(replace(t, old=t.ref, whole=whole))

    return Loss(fn, inner.needs | {"ref"}, f"{inner.name} from the reference")
