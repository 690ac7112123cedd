"""A2C: one gradient step after every few decisions, with a critic that learns in the same step.

Paper.  Mnih et al., Asynchronous Methods for Deep Reinforcement Learning, 2016. arXiv 1602.01783; its synchronous form.
Claim.  A baseline: what the on-policy papers are compared with.
Idea.   theta <- theta + lr E grad log pi(a|s) (R_n - V(s)), R_n the rewards to the end of the batch and then V
State.  policy, critic, one RMSprop; `live` environments
Note.   The paper's workers are asynchronous and each runs one environment.
"""

from __future__ import annotations

from typing import Any

import torch

from ...collectors.experience import experience
from ...core.state import State
from ...core.stream import Stream
from ...core.system import System
from ...engines.policy_gradient import policy_gradient
from ...losses import entropy, reinforce, squared
from ...models.build import actor_state
from ...models.network import Network
from ...optimize.epochs import Epochs
from ...optimize.natural import watched
from .vpg import as_they_are, generalized


def a2c(
    *, lr: float = 7e-4, discount: float = 0.99, decay: float = 1.0, value_weight: float = 1.0, entropy_weight: float = 0.01,
    max_grad_norm: float = 0.5, envs: int = 16, horizon: int = 5, width: int = 64, depth: int = 2,
    model: Network | None = None,
) -> System:  # fmt: skip
    """Advantage actor-critic. For environments.

    lr              of RMSprop (openai/baselines: 7e-4)
    discount        of rewards, per step (paper: 0.99)
    decay           of the advantage's trace; 1: the rewards to the end of the batch (paper: 1)
    value_weight    of the critic's squared error / 2 (openai/baselines: 0.5 of the error without the half)
    entropy_weight  of the entropy bonus (paper: 0.01)
    max_grad_norm   the gradient is scaled down to this norm (openai/baselines: 0.5)
    envs            environments side by side (paper: 16 workers)
    horizon         steps in each (paper: 5)
    width           units of a hidden layer
    depth           hidden layers
    model           a network; None: tanh layers of that width and depth
    """

    def init(problem: Any, rng: Stream) -> State:
        state = actor_state(problem, rng, lr=lr, critic=True, envs=envs, width=width, depth=depth, model=model)
        params = [p for group in state.optimizers["policy"].param_groups for p in group["params"]]
        state.optimizers["policy"] = torch.optim.RMSprop(params, lr, alpha=0.99, eps=1e-5)
        return state

    return policy_gradient(
        init=init, collect=experience(envs=envs, horizon=horizon), credit=generalized(discount, decay, scale=as_they_are),
        loss=reinforce() + value_weight * squared() - entropy_weight * entropy(),  # <- the idea
        update=watched(Epochs(max_norm=max_grad_norm)),
    )  # fmt: skip
