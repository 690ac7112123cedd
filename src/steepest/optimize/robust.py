"""Exact solutions where nature answers with the worst model of a rectangular set. Pure."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from .planning import fixed_point


def robust_value_iteration(mdp: Any, *, tolerance: float = 1e-10) -> tuple[Tensor, Tensor]:
    """The optimal worst-case V [S] within `tolerance`, and a policy that attains it. Iyengar, 2005; Nilim and El Ghaoui, 2005.

    ``mdp.worst(v)`` is nature's choice, transition probabilities [S, A, S'] that depend on each (s, a) alone.
    """
    return fixed_point(mdp, mdp.worst, tolerance)
