"""Mirror descent with the negative entropy, in log-probabilities. Pure."""

from __future__ import annotations

from torch import Tensor


def mirror_step(logp: Tensor, q: Tensor, eta: float) -> Tensor:
    """argmax_p <p, q> - KL(p || exp logp) / eta, that is p proportional to exp(logp + eta q), as log-probabilities [..., A]."""
    return (logp + eta * q).log_softmax(-1)


def geo_mix(logp: Tensor, logq: Tensor, share: float) -> Tensor:
    """The geometric mixture p^(1 - share) q^share / Z as log-probabilities [..., A]. Both must be finite."""
    return ((1 - share) * logp + share * logq).log_softmax(-1)
