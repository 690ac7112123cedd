"""Divergences from a reference and entropy, as loss terms [N, T]."""

from __future__ import annotations

from torch import Tensor

from .terms import LOG_RATIO_MAX, Loss, Terms, Value, loss


@loss("ref")
def k3(t: Terms) -> tuple[Tensor, dict[str, Tensor]]:
    """KL(new || ref), estimated from samples of `new` without bias and never below 0: e^d - d - 1, d = ref - new.

    Schulman, Approximating KL Divergence, 2020; used by GRPO, arXiv:2402.03300 eq. 4.
    """
    d = (t.ref - t.new).clamp(-LOG_RATIO_MAX, LOG_RATIO_MAX)
    value = d.exp() - d - 1
    return value, {"kl_ref": value}


@loss("kl_old_new")
def kl_old_new(t: Terms) -> tuple[Tensor, dict[str, Tensor]]:
    """KL(old || new) at each decision, in closed form: the distance of TRPO (arXiv:1502.05477) and of PPO's penalty."""
    return t.kl_old_new, {"kl_old_new": t.kl_old_new}


@loss("kl_new_old")
def kl_new_old(t: Terms) -> tuple[Tensor, dict[str, Tensor]]:
    """KL(new || old) at each decision, in closed form: the distance of mirror descent (arXiv:2005.09814)."""
    return t.kl_new_old, {"kl_new_old": t.kl_new_old}


def penalized(divergence: Loss) -> Loss:
    """A divergence times the price that the State has set on it: `state.penalty`, a `steepest.optimize.dual.Multiplier`."""

    def fn(t: Terms) -> Value:
        value, metrics = divergence(t)
        return Value(t.penalty * value, {**metrics, "penalty": t.penalty})

    return Loss(fn, divergence.needs | {"penalty"}, f"penalty * {divergence.name}")


@loss("entropy")
def entropy(t: Terms) -> tuple[Tensor, dict[str, Tensor]]:
    """The entropy of the policy at each decision; subtract it for a bonus."""
    return t.entropy, {"entropy": t.entropy}
