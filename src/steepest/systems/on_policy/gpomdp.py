"""GPOMDP: the policy gradient from what was earned after each decision of whole episodes, without a critic.

Paper.  Baxter and Bartlett, Infinite-Horizon Policy-Gradient Estimation, 2001; Williams' REINFORCE (1992) with `earned=total`.
Claim.  A baseline: rewards from before a decision are left out of its credit, so the gradient varies less than REINFORCE's.
Idea.   gradient = E sum_t grad log pi(a_t|s_t) sum_{k >= t} discount^(k-t) r_k
State.  policy, one Adam
Note.   The papers step along the gradient, this Adam. For texts see `reinforce`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ...collectors.episodes import episodes
from ...core.batch import Batch
from ...core.problem import Control
from ...core.state import State
from ...core.stream import Stream
from ...core.system import System
from ...credit import reward_to_go
from ...engines.policy_gradient import policy_gradient
from ...losses import reinforce, sequence_sum
from ...models.build import policy_for
from ...optimize.epochs import Epochs
from ...optimize.natural import watched


def total(reward: Tensor, mask: Tensor, *, discount: float) -> Tensor:
    """What the whole episode earned, for each of its decisions [N, T]: REINFORCE."""
    return reward_to_go(reward, mask, discount=discount)[:, :1].expand_as(reward)


def gpomdp(
    *, lr: float = 1e-3, discount: float = 0.99, count: int = 16, width: int = 64, depth: int = 2,
    earned: Callable[..., Tensor] = reward_to_go,  # <- the idea
) -> System:  # fmt: skip
    """The score-function gradient on returns: one step a batch, no critic. For environments.

    lr        learning rate of Adam
    discount  of rewards, per step
    count     episodes a step
    width     units of a hidden layer
    depth     hidden layers
    earned    (reward, mask, discount=) -> what each decision is credited with [N, T]; `total`: REINFORCE;
              `credit.beyond_others`: with the mean of the other episodes as baseline
    """
    if not lr > 0 or not 0 <= discount <= 1 or count < 1:
        raise ValueError(f"lr must be positive, discount in [0, 1] and count at least 1, not {lr}, {discount} and {count}")

    def init(problem: Any, rng: Stream) -> State:
        if not isinstance(problem, Control):
            raise TypeError(f"gpomdp needs environments, and {type(problem).__name__} is no Control problem: see reinforce")
        state = State(policy=policy_for(problem, rng / "policy", width=width, depth=depth))
        state.optimizers["policy"] = torch.optim.Adam(state.policy.parameters(), lr, fused=True)
        return state

    def collect(state: State, problem: Any, rng: Stream) -> Batch:
        found = episodes(state.policy, problem, rng, count=count)
        return found.having(info={"return": float(found.score.mean())})

    return policy_gradient(
        init=init, collect=collect, credit=lambda state, batch: earned(batch.reward, batch.mask, discount=discount),
        loss=reinforce(), reduce=sequence_sum, update=watched(Epochs(max_norm=math.inf)),
    )  # fmt: skip
