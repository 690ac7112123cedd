"""TRPO: the longest policy-gradient step that moves the policy's decisions no further than a bound.

Paper.  Schulman, Levine, Moritz, Jordan and Abbeel, Trust Region Policy Optimization, 2015. arXiv 1502.05477.
Claim.  With the same data and the same number of policy updates it earns more than plain policy gradient, and no update
        moves the policy further than the bound.
Idea.   maximise E r A subject to E KL(old || new) <= delta: step sqrt(2 delta / x'Fx) x, F x = g, then halve until both hold
State.  policy, critic and its Adam; `live` environments
Note.   Advantages are generalised estimates (arXiv 1506.02438) from a critic fitted by Adam; the paper's were Monte Carlo.
"""

from __future__ import annotations

from typing import Any

from ...core.system import System, extends
from ...losses import surrogate
from ...optimize.natural import TrustRegion
from .vpg import alternate, vpg


@extends(vpg)
def trpo(
    *, max_kl: float = 0.01, damping: float = 0.1, cg_steps: int = 10, tries: int = 10, shrink: float = 0.5, **options: Any
) -> System:  # fmt: skip
    """Natural policy gradient within a trust region, and a critic. For environments.

    max_kl    bound of the mean KL(old || new) of an update, nats (paper: 0.01)
    damping   added to the diagonal of the Fisher matrix (authors' code: 0.1)
    cg_steps  of conjugate gradient (paper: 10)
    tries     step lengths tried before the update is given up (authors' code: 10)
    shrink    each is this share of the one before (authors' code: 0.5)
    """
    return alternate(surrogate(), TrustRegion(max_kl, damping, cg_steps, tries, shrink), lr=None, **options)  # <- the idea
