"""A first task, taught: an actor that imitates, and the critic that says what its decisions are worth."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from ..core.stream import Stream
from .deterministic import DeterministicActor
from .twin_q import mlp


def fit(net: nn.Module, loss: Callable[[Tensor], Tensor], rows: int, *, updates: int, generator: torch.Generator) -> None:
    """`updates` steps of Adam at 1e-3 on loss(indices [256]) of `rows` rows."""
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    for _ in range(updates):
        optimizer.zero_grad(set_to_none=True)
        loss(torch.randint(rows, (256,), generator=generator)).backward()
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def imitate(actor: nn.Module, obs: Tensor, wanted: Tensor, *, updates: int, generator: torch.Generator) -> None:
    """Least squares of the actor's decisions on obs [M, S] and the wanted ones [M, A]."""
    fit(actor, lambda i: mse_loss(actor(obs[i]), wanted[i]), len(obs), updates=updates, generator=generator)


def value_of(critic: nn.Module, obs: Tensor, action: Tensor) -> Tensor:
    """Q [B] of obs [B, S] and action [B, A]."""
    return critic(torch.cat([obs, action], 1))[:, 0]


def appraise(
    critic: nn.Module, now: tuple[Tensor, Tensor], reward: Tensor, later: tuple[Tensor, Tensor], going: Tensor, *, discount: float,
    rounds: int, updates: int, generator: torch.Generator,
) -> None:  # fmt: skip
    """Fitted evaluation: in each round Q(now) is fitted to (1 - discount) reward + discount Q(later), Q as the last round left it.

    now, later  obs [M, S] and action [M, A]: logged, and what followed with what the judged policy does there
    going       [M] 0 where nothing followed
    """
    obs, action = now
    goal = torch.zeros_like(reward)
    for _ in range(rounds):
        with torch.no_grad():
            goal.copy_((1 - discount) * reward + discount * going * value_of(critic, *later))
        fit(
            critic, lambda i: mse_loss(value_of(critic, obs[i], action[i]), goal[i]), len(obs), updates=updates, generator=generator
        )  # fmt: skip


def taught(
    problem: Any, rng: Stream, *, hidden: int, noise: float, discount: float, updates: int
) -> tuple[DeterministicActor, nn.Sequential]:
    """The actor that imitates a problem's `teacher` on its `lessons`, and the critic of what this actor earns, whose values are
    (1 - discount) times the discounted sum. Raises TypeError where the problem teaches nothing.

    updates  of the actor, and as many of its critic
    """
    if not hasattr(problem, "lessons"):
        raise TypeError(f"a task is added to one that was taught, and {type(problem).__name__} teaches none: take CartTasks")
    data, generator = problem.lessons(rng / "lessons"), (rng / "rows").torch()
    (mean, std), actions = data.stats(), data.act.shape[1]
    with (rng / "nets").fork():
        policy, critic = DeterministicActor(mean, std, actions, hidden, noise), mlp(len(mean) + actions, 1, hidden)
    imitate(policy, data.obs, problem.teacher(data.obs), updates=updates, generator=generator)
    with torch.no_grad():
        later = data.next_obs, policy(data.next_obs)
    known, going = (data.obs, data.act), 1 - data.terminated.float()
    appraise(critic, known, data.rew, later, going, discount=discount, rounds=20, updates=updates // 20, generator=generator)
    return policy, critic
