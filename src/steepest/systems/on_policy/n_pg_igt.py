"""N-PG-IGT: average gradients that were taken a little ahead, and the average is one of the place where the policy is.

Paper.  Fatkhullin, Barakat, Kireeva and He, Stochastic Policy Gradient Methods: Improved Sample Complexity for
        Fisher-non-degenerate Policies, 2023. arXiv 2302.01734.
Claim.  With two trajectories a step it ends nearer to the optimum than the same normalised steps along plain momentum.
Idea.   d <- (1 - eta) d + eta g(theta + (1 - eta) / eta (theta - before)); theta <- theta + lr / (t + 2) d / |d|
State.  policy: theta; previous: theta one step ago; probe: where the next trajectories are drawn; direction: d
Note.   `HessianAided` is the paper's other method, N-HARPG: momentum corrected by a Hessian-vector product at a random point
        between the last two policies. On a finite model gradients and Hessians are exact. Of the schedules of eta and of the
        step the paper's form is kept; their constants depend on the problem, and lr is in the parameters' own units.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from ...collectors.episodes import episodes
from ...collectors.exact import exact
from ...core.batch import Batch
from ...core.problem import Control
from ...core.state import State
from ...core.stream import Stream
from ...core.system import System
from ...credit import beyond_others
from ...models.build import policy_for
from ...models.tabular import TabularSoftmax
from ...optimize.momentum import HessianAided, Momentum, Plain, Transport, policy_hessian_product
from ...optimize.natural import flat, write
from ...optimize.planning import worth
from ...problems.tabular import TabularMDP

__all__ = ["HessianAided", "Plain", "Transport", "n_pg_igt"]


def parts(policy: Any, data: Any) -> tuple[Tensor, Tensor | None]:
    """What each trajectory adds to a scalar with the gradient of the return, and its log-probability, both [N]; of a finite
    model the return itself [1], and None."""
    if isinstance(data, TabularMDP):
        return worth(data, policy.probs())[None], None
    logp = data.mask * policy.logp(data.obs, data.action, data.mask)
    return (beyond_others(data.reward, data.mask) * logp).sum(1), logp.sum(1)


class Vector(nn.Module):
    """A direction in parameter space, 0 at first."""

    x: Tensor

    def __init__(self, like: Tensor):
        super().__init__()
        self.register_buffer("x", torch.zeros_like(like))


def n_pg_igt(
    *, lr: float = 1.0, power: float = 0.8, eta: float | None = None, momentum: Momentum | None = None, count: int = 2,
    width: int = 64, depth: int = 0,
) -> System:  # fmt: skip
    """Normalised policy gradient along a variance-reduced direction, for environments and finite models.

    lr        steps have length 2 lr / (t + 2) at t = 0, 1, ..., in the parameters' own units
    power     the share of a new gradient in the direction is (2 / (t + 2))^power (paper: 4/5)
    eta       or this constant share, in (0, 1]; 1: no memory
    momentum  of optimize.momentum: Transport() (IGT, and where it is None), HessianAided() (HARPG) or Plain()
    count     episodes a step, at least 2 (environments)
    width     units of a hidden layer (environments)
    depth     hidden layers (environments); 0: linear
    """
    if not lr > 0 or not 0 < power <= 1 or not (eta is None or 0 < eta <= 1) or count < 2:
        raise ValueError(f"lr > 0, power and eta in (0, 1] and count >= 2, not {lr}, {power}, {eta} and {count}")

    rule: Momentum = Transport() if momentum is None else momentum

    def share(step: int) -> float:
        return (2 / (step + 2)) ** power if eta is None else eta

    def init(problem: Any, rng: Stream) -> State:
        if isinstance(problem, Control):
            policy: nn.Module = policy_for(problem, rng / "policy", width=width, depth=depth)
        else:
            policy = TabularSoftmax(torch.zeros_like(problem.model.R))
        more = {name: copy.deepcopy(policy) for name in ("previous", "probe")}
        return State(policy=policy, direction=Vector(flat([p.detach() for p in policy.parameters()])), **more)

    def collect(state: State, problem: Any, rng: Stream) -> dict[str, Any]:
        if not isinstance(problem, Control):
            return dict.fromkeys(rule.seen, exact(state, problem, rng))
        return {name: episodes(getattr(state, name), problem, rng / name, count=count) for name in rule.seen}

    def learn(state: State, data: dict[str, Any], rng: Stream) -> dict[str, float]:
        t, direction = state.step, state.get_buffer("direction.x")
        now, before = (flat([p.detach() for p in getattr(state, n).parameters()]) for n in ("policy", "previous"))

        def slope(name: str) -> Tensor:
            params = list(getattr(state, name).parameters())
            return flat(torch.autograd.grad(parts(getattr(state, name), data[name])[0].mean(), params, materialize_grads=True))

        def bend(name: str, u: Tensor) -> Tensor:
            return policy_hessian_product(*parts(getattr(state, name), data[name]), list(getattr(state, name).parameters()), u)

        direction.copy_(rule.turn(direction, share(t), now - before, slope, bend))
        size = float(direction.norm())
        after = now + (2 * lr / (t + 2) / size * direction if size > 0 else 0.0)  # a direction of 0 is no step, not NaN
        probe = rule.look(after, now, share(t + 1), rng / "look")  # <- the idea
        for name, x in (("policy", after), ("previous", now), ("probe", probe)):
            write(list(getattr(state, name).parameters()), x)
        seen = data[rule.seen[0]]
        score = seen.score.mean() if isinstance(seen, Batch) else parts(state.policy, seen)[0].detach()
        return {"score": float(score), "direction": size, "ahead": float((probe - after).norm())}

    return System(init, collect, learn)
