"""VPG: one step along the policy gradient for each batch, with a fitted critic as baseline.

Paper.  Williams, Simple statistical gradient-following algorithms for connectionist reinforcement learning, 1992;
        Schulman et al., High-dimensional continuous control using generalized advantage estimation, 2015. arXiv 1506.02438.
Claim.  A baseline: what the on-policy papers are compared with.
Idea.   theta <- theta + lr E grad log pi(a|s) A
State.  policy, critic, an Adam for each; `live` environments
Note.   The critic is fitted for several passes over each batch, as in the trust-region papers, so that they differ in the
        policy's step alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ...collectors.experience import experience
from ...core.batch import Batch
from ...core.problem import Control
from ...core.state import State
from ...core.stream import Stream
from ...core.system import System
from ...credit import gae, standardize
from ...engines.policy_gradient import Credit, PolicyObjective, policy_gradient
from ...engines.values import values
from ...losses import Loss, reinforce, squared, token_mean
from ...models.build import actor_state
from ...models.network import Network
from ...optimize.epochs import Epochs, Objective, Update
from ...optimize.natural import watched


def as_they_are(advantage: Tensor, mask: Tensor) -> Tensor:
    """No scale."""
    return advantage


def generalized(discount: float, decay: float, *, scale: Callable[[Tensor, Tensor], Tensor] = standardize) -> Credit:
    """Generalised advantages and the critic's targets. arXiv:1506.02438

    scale  (advantage, mask [N, T]) -> [N, T]: brings them to unit scale over the batch

    Raises ValueError where discount or decay lies outside [0, 1].
    """
    if not 0 <= discount <= 1 or not 0 <= decay <= 1:
        raise ValueError(f"discount and decay must lie in [0, 1], not {discount} and {decay}")

    def credit(state: State, batch: Batch) -> dict[str, Tensor]:
        value, later, terminated, truncated = values(state, batch)
        advantage = gae(batch.reward, value, later, terminated, truncated, discount=discount, decay=decay)
        return {"advantage": scale(advantage, batch.mask), "value": value, "target": advantage + value}

    return credit


def alternate(
    loss: Loss, step: Update, *, lr: float | None, critic_lr: float, critic_epochs: int, critic_minibatches: int, discount: float,
    decay: float, envs: int, horizon: int, width: int, depth: int, model: Network | None = None,
) -> System:  # fmt: skip
    """`step` on the policy, then a few passes on the critic. lr: of the policy's Adam; None: it has none. The rest: see `vpg`."""
    fit = Epochs(critic_epochs, critic_minibatches, max_norm=float("inf"), optimizer="critic")
    error, moving = PolicyObjective(squared(), token_mean), watched(step)
    if not all(rate is None or rate > 0 for rate in (lr, critic_lr)):
        raise ValueError(f"learning rates must be positive, not lr={lr} and critic_lr={critic_lr}")

    def init(problem: Any, rng: Stream) -> State:
        if not isinstance(problem, Control):
            raise TypeError(
                f"this method needs environments, and {type(problem).__name__} is no Control problem: for texts use ppo or grpo"
            )
        state = actor_state(problem, rng, lr=critic_lr, critic=True, envs=envs, width=width, depth=depth, model=model)
        state.optimizers = {"critic": torch.optim.Adam(state.critic.parameters(), critic_lr, fused=True)}
        if lr is not None:
            state.optimizers["policy"] = torch.optim.Adam(state.policy.parameters(), lr, fused=True)
        return state

    def update(state: State, objective: Objective, batch: Batch, rng: Stream) -> dict[str, Any]:
        metrics = moving(state, objective, batch, rng / "policy")
        return {**metrics, "value_loss": fit(state, error, batch, rng / "critic")["value_loss"]}

    collect, credit = experience(envs=envs, horizon=horizon), generalized(discount, decay)
    return policy_gradient(init=init, collect=collect, credit=credit, loss=loss, update=update)


def vpg(
    *, lr: float = 3e-4, critic_lr: float = 1e-3, critic_epochs: int = 5, critic_minibatches: int = 32, discount: float = 0.99,
    decay: float = 0.95, envs: int = 8, horizon: int = 256, width: int = 64, depth: int = 2, model: Network | None = None,
) -> System:  # fmt: skip
    """Plain policy gradient, one step a batch, and a critic. For environments.

    lr                  of the policy's Adam
    critic_lr           of the critic's Adam (openai/baselines, TRPO: 1e-3)
    critic_epochs       the critic's passes over a batch (openai/baselines, TRPO: 5)
    critic_minibatches  optimizer steps of a pass (openai/baselines, TRPO: minibatches of 64)
    discount            of rewards, per step
    decay               of the advantage's trace, lambda (arXiv 1506.02438: 0.92 to 0.98)
    envs                environments side by side
    horizon             steps in each
    width               units of a hidden layer
    depth               hidden layers
    model               a network; None: tanh layers of that width and depth
    """
    return alternate(
        reinforce(), Epochs(1, 1, max_norm=float("inf")), lr=lr, critic_lr=critic_lr, critic_epochs=critic_epochs,  # <- the idea
        critic_minibatches=critic_minibatches, discount=discount, decay=decay, envs=envs, horizon=horizon, width=width, depth=depth,
        model=model,
    )  # fmt: skip
