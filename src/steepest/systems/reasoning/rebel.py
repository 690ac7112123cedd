"""REBEL: regress the difference of two answers' log-ratios on the difference of their rewards.

Paper.  Gao et al., REBEL: Reinforcement Learning via Regressing Relative Rewards, 2024. arXiv 2404.16767.
Claim.  Without critic and clipping it learns as well as or better than PPO and REINFORCE with a leave-one-out baseline.
Idea.   minimise mean ((1 / eta) [log rho(y) - log rho(y')] - [r(y) - r(y')])^2 over pairs of answers to one prompt
State.  as grpo
Note.   All pairs of a group count, which are one for the paper's group of 2. The loss is a multiple of the paper's, so that eta
        does not change the first step. Log-ratios are those of whole answers. Minibatches draw single answers, not pairs: an answer
        whose mates are elsewhere is compared with those at hand.
"""

from __future__ import annotations

from typing import Any

from ...core.system import System, extends
from ...credit import centred
from ...engines.answers import by_score
from ...losses import Reduce, regress_pairs, sequence_sum
from .grpo import grpo


@extends(grpo, without=("credit", "loss", "clip_range"))
def rebel(*, eta: float = 1.0, group: int = 2, kl: float = 0.0, reduce: Reduce = sequence_sum, **options: Any) -> System:
    """Least squares on pairs of answers.

    eta     how far the log-ratio moves for a unit of reward (paper: 1 for rewards of about 1)
    group   answers to each prompt, all pairs of which count (paper: 2)
    kl      of the estimated KL(pi || reference), a loss term (0: the square alone)
    reduce  how decisions are averaged; the square is the sum over an answer's
    """
    if not eta > 0:
        raise ValueError(f"eta must be positive, not {eta}")
    objective = regress_pairs(scale=eta)  # <- the idea
    return grpo(loss=objective, credit=by_score(centred), group=group, kl=kl, reduce=reduce, **options)
