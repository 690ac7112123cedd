"""Polyak steps: a policy-gradient step as long as the distance to the best return asks, estimated by a twin.

Paper.  Li, Yuan, Fan, Schmidt, Horvath, Gower and Takac, Enhancing Policy Gradient with the Polyak Step-Size Adaption, 2024.
        arXiv 2404.07525.
Claim.  It needs no learning rate: where rewards have another size, it learns as before and a tuned fixed step does not.
Idea.   theta <- theta + min((V* - V(theta)) / (c |g|^2), bound) g, g = grad V; V* of the worse of two twins: V of the better
State.  policy: the better twin as its last estimate says; twin: the other; last: the last positive step [1]
Note.   What the better twin does without a V* is told in the paper's summaries alone: it takes the last positive step. Twins
        exchange their parameters where they change places. On a finite model V and g are exact; in environments they are
        GPOMDP's estimates from whole episodes (Baxter and Bartlett, 2001), with the other episodes' mean as baseline.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ...collectors.episodes import episodes
from ...collectors.exact import exact
from ...core.problem import Control
from ...core.state import State
from ...core.stream import Stream
from ...core.system import System
from ...credit import beyond_others
from ...memory.table import Table
from ...models.build import policy_for
from ...models.tabular import TabularSoftmax
from ...optimize.natural import flat, write
from ...optimize.planning import policy_iteration, worth
from ...optimize.polyak import polyak_step
from ...problems.tabular import TabularMDP

TWINS = ("policy", "twin")


def optimum(model: TabularMDP) -> float:
    """V* of a finite model; costs count negative."""
    return float(worth(model, policy_iteration(model)[1]))


def never(model: TabularMDP) -> float:
    """A V* that no policy reaches: every step is the bound, plain gradient ascent with a fixed step."""
    return math.inf


def merit(policy: Any, data: Any, discount: float) -> tuple[float, Tensor, Tensor]:
    """V, a scalar whose gradient is V's, and the entropy of the policy, the last two with gradient."""
    if isinstance(data, TabularMDP):
        log_pi = policy.log_probs()
        pi = log_pi.exp()
        exact_value = worth(data, pi)
        return float(exact_value.detach()), exact_value, -(pi * log_pi).sum(-1).mean()  # not entr, whose slope at 0 is inf
    logp, entropy = policy.logp_entropy(data.obs, data.action, data.mask)
    past = discount ** torch.arange(data.mask.shape[1]).to(logp)
    objective = past * beyond_others(data.reward, data.mask, discount=discount) * data.mask * logp
    value = float((past * data.reward).sum(1).mean())
    return value, objective.sum() / len(data), (data.mask * entropy).sum() / data.mask.sum()


def polyak_pg(
    *, c: float = 1.0, bound: float = 0.01, best: Callable[[Any], float] | None = None, entropy_weight: float = 0.0,
    discount: float = 0.99, count: int = 16, width: int = 64, depth: int = 2,
) -> System:  # fmt: skip
    """Policy gradient without a learning rate, for finite models and for environments.

    c               steps are this many times shorter
    bound           of a step; inf: none. Estimated gradients need one
    best            V* where it is known: `optimum` of a finite model; None: the twin's estimate
    entropy_weight  of the policy's entropy, added to V in the gradient: it keeps policies off the edge where gradients vanish
    discount        of rewards, per step (environments; a finite model has its own)
    count           episodes of each twin in a step, at least 2 (environments)
    width           units of a hidden layer (environments)
    depth           hidden layers (environments)
    """
    if not (c > 0 and bound > 0) or entropy_weight < 0 or not 0 <= discount <= 1:
        raise ValueError(
            f"c and bound > 0, entropy_weight >= 0, discount in [0, 1], not {c}, {bound}, {entropy_weight} and {discount}"
        )
    if count < 2:
        raise ValueError(f"count must be at least 2, not {count}: an episode's baseline is the mean of the others")

    def init(problem: Any, rng: Stream) -> State:
        def make(rng: Stream) -> nn.Module:
            if isinstance(problem, Control):
                return policy_for(problem, rng, width=width, depth=depth)
            return TabularSoftmax(0.1 * torch.randn(problem.model.R.shape, generator=rng.torch(), dtype=torch.float64))

        return State(policy=make(rng / "policy"), twin=make(rng / "twin"), last=Table(1, step=0.0))

    def collect(state: State, problem: Any, rng: Stream) -> Any:
        if not isinstance(problem, Control):
            return exact(state, problem, rng)
        return {name: episodes(getattr(state, name), problem, rng / name, count=count) for name in TWINS}

    def learn(state: State, data: Any, rng: Stream) -> dict[str, float]:
        found = []
        for name in TWINS:
            policy = getattr(state, name)
            params = list(policy.parameters())
            value, objective, entropy = merit(policy, data[name] if isinstance(data, dict) else data, discount)
            slope = torch.autograd.grad(objective + entropy_weight * entropy, params, materialize_grads=True)
            found.append((value, flat(slope), flat([p.detach() for p in params])))
        better, worse = sorted(found, key=lambda one: -one[0])
        goal, last = better[0] if best is None else best(data), state.get_buffer("last.step")
        short = polyak_step(goal, worse[0], worse[1], c=c, bound=bound)  # <- the idea
        if short > 0:
            last.fill_(short)
        step = float(last) if best is None else polyak_step(goal, better[0], better[1], c=c, bound=bound)
        write(list(state.policy.parameters()), better[2] + step * better[1])
        write(list(state.get_submodule("twin").parameters()), worse[2] + short * worse[1])
        told = {"score": better[0], "twin": worse[0], "grad_norm": float(better[1].norm())}
        return {**told, "step": step, "twin_step": short}

    return System(init, collect, learn)
