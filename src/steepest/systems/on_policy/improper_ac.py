"""ACIL: learn how often to let each of some given controllers decide; the mixture may be good where all of them are bad.

Paper.  Zaki, Mohan, Gopalan and Mannor, Actor-Critic based Improper Reinforcement Learning, 2022. arXiv 2207.09090.
Claim.  The mixture that it learns costs less than any of the given controllers and than letting them decide equally often.
Idea.   pi(a|s) = sum_m w_m K_m(a|s), w = softmax(theta); theta <- theta + lr E sum_t gamma^t delta_t (e_m - w), m the one drawn
State.  policy: theta [M] and the controllers [M, S, A]; critic: weights of the features [d], unless the model is given
Note.   A controller is an option that lasts one step, so the mixture is a policy over M actions that sees no state, in a model
        whose transitions are the controllers'; all that is known of policy gradients holds in it. NACIL is `damping`: the
        Fisher matrix of the weights is diag(w) - w w', so it is not estimated. The critic is TD(0), linear in `features`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ...collectors.exact import exact
from ...collectors.walks import walk
from ...core.batch import Batch
from ...core.state import State
from ...core.stream import Stream
from ...core.system import System
from ...credit import beyond_others
from ...models.linear import Linear
from ...models.mixture import Mixture, choices
from ...optimize.planning import softmax_gradient
from ...problems.tabular import TabularMDP


def always(model: TabularMDP) -> Tensor:
    """A controller for each action, which takes it everywhere [A, S, A]."""
    states, actions = model.R.shape
    return torch.eye(actions, dtype=model.R.dtype, device=model.R.device)[:, None].repeat(1, states, 1)


def one_hot(model: TabularMDP) -> Tensor:
    """A feature for each state [S, S]: the critic is a table."""
    return torch.eye(len(model.rho), dtype=model.R.dtype, device=model.R.device)


def fit(critic: Linear, batch: Batch, gamma: float, lr: float) -> None:
    """TD(0), one step for each column of the walks [N, T]."""
    for obs, after, reward in zip(batch.obs.T, batch.info["next_obs"].T, batch.reward.T, strict=True):
        seen = critic.features[obs]
        miss = reward + (gamma * critic.features[after] - seen) @ critic.weights
        critic.weights += lr * seen.T @ miss / len(batch)


def td_error(critic: Linear, batch: Batch, gamma: float) -> Tensor:
    """r + gamma V(s') - V(s) [N, T]: ACIL's."""
    value = critic.values()
    return batch.reward + gamma * value[batch.info["next_obs"]] - value[batch.obs]


def returns(critic: Linear, batch: Batch, gamma: float) -> Tensor:
    """Discounted reward to go, minus its mean over the other walks [N, T]: no critic, the paper's first algorithm on samples."""
    return beyond_others(batch.reward, batch.mask, discount=gamma)


def improper_ac(
    *, lr: float = 0.1, critic_lr: float = 0.2, damping: float | None = None, walks: int | None = 16, horizon: int = 100,
    advantage: Callable[[Linear, Batch, float], Tensor] = td_error, controllers: Callable[[TabularMDP], Tensor] = always,
    features: Callable[[TabularMDP], Tensor] = one_hot,
) -> System:  # fmt: skip
    """Mixing weights of given controllers, on a finite model.

    lr           of the weights' logits; 0: each controller decides equally often for ever
    critic_lr    of the critic
    damping      natural gradient, with this on the diagonal of the Fisher matrix (NACIL); None: the gradient itself (ACIL)
    walks        drawn from the model in a step, at least 2; None: the gradient is that of the model, without samples
    horizon      decisions in a walk
    advantage    of the choices that were made: td_error, or returns
    controllers  given: (model) -> probabilities [M, S, A]; by default each action is one
    features     of the critic: (model) -> [S, d]; by default it is a table
    """
    if lr < 0 or not critic_lr > 0 or not (damping is None or damping > 0):
        raise ValueError(f"lr >= 0, critic_lr > 0 and damping > 0 or None, not {lr}, {critic_lr} and {damping}")
    if (walks is not None and walks < 2) or horizon < 1:
        raise ValueError(f"walks must be at least 2 or None and horizon at least 1, not {walks} and {horizon}")

    def init(problem: Any, rng: Stream) -> State:
        given = controllers(problem.model)
        if given.shape[1:] != problem.model.R.shape:
            raise ValueError(
                f"controllers must be [M, S, A] with [S, A] = {list(problem.model.R.shape)}, not {list(given.shape)}: all of them "
                "decide among the model's actions in the model's states"
            )
        return State(policy=Mixture(given), **({} if walks is None else {"critic": Linear(features(problem.model))}))

    def collect(state: State, problem: Any, rng: Stream) -> TabularMDP | Batch:
        model = choices(exact(state, problem, rng), state.policy.controllers)
        if walks is None:
            return model
        batch = walk(model, state.policy.weights().expand_as(model.R), rng, count=walks, steps=horizon)
        return batch.having(info=batch.info | {"gamma": model.gamma, "direction": model.direction})

    @torch.no_grad()
    def learn(state: State, data: Any, rng: Stream) -> dict[str, float]:
        theta, w = state.policy.logits, state.policy.weights()
        if isinstance(data, TabularMDP):
            slope = data.direction * softmax_gradient(data, theta.expand_as(data.R)).sum(0)
            told = {"objective": float(data.rho @ data.values(w.expand_as(data.R))[0])}
        else:
            gamma, up = data.info["gamma"], data.info["direction"]
            past = gamma ** torch.arange(data.mask.shape[1]).to(data.reward)
            share = up * past * advantage(state.critic, data, gamma) / len(data)
            slope = torch.zeros_like(w).index_add(0, data.action.reshape(-1), share.reshape(-1)) - share.sum() * w  # <- the idea
            fit(state.critic, data, gamma, critic_lr)
            told = {"score": float(data.reward.mean())}
        if damping is not None:
            slope = torch.linalg.solve(torch.diag(w) - w.outer(w) + damping * torch.eye(len(w)).to(w), slope)
        theta += lr * slope
        return {**told, "largest": float(state.policy.weights().max())}

    return System(init, collect, learn)
