"""Divergences from a reference and entropy, as loss terms [N, T]."""

from __future__ import annotations

from torch import Tensor

from .terms import LOG_RATIO_MAX, Terms, loss


@loss("ref")
def k3(t: Terms) -> tuple[Tensor, dict[str, Tensor]]:
    """KL(new || ref), estimated from samples of `new` without bias and never below 0: e^d - d - 1, d = ref - new.

    Schulman, Approximating KL Divergence, 2020; used by GRPO, arXiv:2402.03300 eq. 4.
    """
    d = (t.ref - t.new).clamp(-LOG_RATIO_MAX, LOG_RATIO_MAX)
    value = d.exp() - d - 1
    return value, {"kl_ref": value}


@loss("entropy")
def entropy(t: Terms) -> tuple[Tensor, dict[str, Tensor]]:
    """The entropy of the policy at each decision; subtract it for a bonus."""
    return t.entropy, {"entropy": t.entropy}
