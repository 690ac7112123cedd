"""PPO with a penalty: no clip; how far the policy moved costs, and the price follows how far it went.

Paper.  Schulman, Wolski, Dhariwal, Radford and Klimov, Proximal Policy Optimization Algorithms, 2017. arXiv 1707.06347, sec. 4.
Claim.  A baseline: the paper found that the clip earns more.
Idea.   maximise E [r A - b KL(old || new)]; then b <- b / 2 if KL < d / 1.5, b <- 2 b if KL > 1.5 d
State.  as ppo, and `penalty`, the price b
"""

from __future__ import annotations

from typing import Any

from ...core.batch import Batch
from ...core.state import State
from ...core.stream import Stream
from ...core.system import System, extends, holding
from ...losses import kl_old_new, penalized, surrogate
from ...optimize.dual import Multiplier, moved
from ...optimize.epochs import Epochs, Objective, Update
from .ppo import ppo


@extends(ppo, without=("clip_range", "loss", "wrap"))
def ppo_penalty(*, target: float = 0.01, penalty: float = 1.0, **options: Any) -> System:
    """PPO with an adaptive price on the mean KL(old || new).

    target   the mean KL of an update that is aimed at, nats (paper: 0.003, 0.01 or 0.03)
    penalty  its first price (paper: 1; what it is hardly matters)
    """
    if not (target > 0 and penalty > 0):
        raise ValueError(f"target and penalty must be positive, not {target} and {penalty}: a price of 0 could not be doubled")

    def adapting(epochs: Epochs) -> Update:
        def update(state: State, objective: Objective, batch: Batch, rng: Stream) -> dict[str, Any]:
            metrics = epochs(state, objective, batch, rng)
            away, price = float((moved(state, batch) * batch.mask).sum() / batch.mask.sum()), state.penalty.value.item()
            state.penalty.write(price / 2 if away < target / 1.5 else price * 2 if away > target * 1.5 else price)  # <- the idea
            return metrics

        return update

    system = ppo(loss=surrogate() + penalized(kl_old_new()), wrap=adapting, **options)
    return holding(system, penalty=lambda state, problem, rng: Multiplier(penalty))
