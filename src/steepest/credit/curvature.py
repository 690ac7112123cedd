"""What a step of the last layer would do, to second order. Pure: D decisions over a vocabulary of V."""

from __future__ import annotations

import torch
from torch import Tensor


def predicted(logp: Tensor, shift: Tensor, token: Tensor, advantage: Tensor) -> tuple[Tensor, Tensor]:
    """Of decisions with log-probabilities `logp` [D, V] whose logits move by `shift` [D, V]: what the decided `token` [D] gains,
    A (rho - 1), and the divergence KL(old || new), both up to the second order [D].

    With e and v the mean and the variance of the shift under the policy and x = shift of the token - e, the first is
    A (x + (x^2 - v) / 2) and the second is v / 2: gradient with Hessian and Fisher information of the head along the step.
    """
    p = logp.exp()
    mean = (p * shift).sum(1, keepdim=True)
    spread = (p * (shift - mean) ** 2).sum(1)
    own = (shift - mean).gather(1, token[:, None]).squeeze(1)
    return advantage * (own + (own**2 - spread) / 2), spread / 2


def pull(logp: Tensor, token: Tensor, weight: Tensor) -> Tensor:
    """The gradient of sum of weight * log pi(token) by the logits [D, V]."""
    return (torch.zeros_like(logp).scatter_(1, token[:, None], 1.0) - logp.exp()) * weight[:, None]
