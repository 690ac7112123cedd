"""MDPO: each update solves, by a few gradient steps, for the policy that earns more and has not gone far.

Paper.  Tomar, Shani, Efroni and Ghavamzadeh, Mirror Descent Policy Optimization, 2020. arXiv 2005.09814.
Claim.  Several gradient steps on each batch, a soft price on the divergence holding them, earn more than one.
Idea.   minimise E [-r A + KL(new || old) / t_k], t_k = 1 - k / K
State.  policy, critic, an Adam for each; `penalty`, the price 1 / t_k of this step; `live` environments
Note.   The on-policy method; the off-policy one is not built. t_k stays above `floor`, where the authors' code lets it reach 0.
        The critic is fitted as in `vpg`, without their clip of its step.
"""

from __future__ import annotations

from typing import Any

from ...core.batch import Batch
from ...core.state import State
from ...core.stream import Stream
from ...core.system import System, holding
from ...losses import kl_new_old, penalized, surrogate
from ...models.network import Network
from ...optimize.dual import Multiplier
from ...optimize.epochs import Epochs, Objective
from .vpg import alternate


def mdpo(
    *, updates: int = 5, anneal: int | None = 500, floor: float = 0.01, lr: float = 3e-4, max_grad_norm: float = 0.5,
    critic_lr: float = 3e-4, critic_epochs: int = 3, critic_minibatches: int = 16, discount: float = 0.99, decay: float = 0.98,
    envs: int = 8, horizon: int = 256, width: int = 64, depth: int = 2, model: Network | None = None,
) -> System:  # fmt: skip
    """Mirror descent in policy space, and a critic. For environments.

    updates             gradient steps on a batch, each on all of it (authors' code: 5 to 10)
    anneal              K, the training steps over which t_k falls linearly from 1 to 0; None: it stays 1 (paper: the whole run)
    floor               t_k falls no further than this
    lr                  of the policy's Adam (authors' code: 3e-4)
    max_grad_norm       the policy's gradient is scaled down to this norm (authors' code: 0.5)
    critic_lr           of the critic's Adam (authors' code: 3e-4)
    critic_epochs       the critic's passes over a batch (authors' code: 3)
    critic_minibatches  optimizer steps of a pass (authors' code: minibatches of 128)
    discount            of rewards, per step
    decay               of the advantage's trace, lambda (authors' code: 0.98)
    envs                environments side by side
    horizon             steps in each (authors' code: 1024 to 2048 in all)
    width               units of a hidden layer
    depth               hidden layers
    model               a network; None: tanh layers of that width and depth
    """
    if not floor > 0 or (anneal is not None and anneal < 1):
        raise ValueError(f"floor must be positive and anneal at least 1 or None, not {floor} and {anneal}: 1 / t_k is a price")
    steps = Epochs(updates, 1, max_norm=max_grad_norm)

    def descend(state: State, objective: Objective, batch: Batch, rng: Stream) -> dict[str, Any]:
        size = 1.0 if anneal is None else max(floor, 1 - state.step / anneal)
        state.penalty.write(1 / size)
        return steps(state, objective, batch, rng)

    system = alternate(
        surrogate() + penalized(kl_new_old()), descend, lr=lr, critic_lr=critic_lr, critic_epochs=critic_epochs,  # <- the idea
        critic_minibatches=critic_minibatches, discount=discount, decay=decay, envs=envs, horizon=horizon, width=width, depth=depth,
        model=model,
    )  # fmt: skip
    return holding(system, penalty=lambda state, problem, rng: Multiplier(1.0))
