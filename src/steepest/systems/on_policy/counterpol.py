"""COUNTERPOL: the policy nearest to a given one that earns a chosen return, and what of it had to change.

Paper.  Deshmukh, Srivatsan, Vijay, Subramanian and Agarwal, Counterfactual Explanation Policies in RL, 2023. arXiv 2307.13192.
Claim.  It reaches the chosen return with a policy nearer to the given one than policy gradient stopped at that return.
Idea.   theta <- theta + lr (c grad J - weight grad KL(pivot || pi)), c = clip((R - J) / scale, -1, 1); now and then pivot <- pi
State.  policy; original and pivot, frozen; told: running mean of the return and how often in a row it was near enough
Note.   The paper's (J - R)^2 / 2 has the gradient (J - R) grad J; here the factor is clipped and J in it the running mean. KL is
        averaged over the discounted visits of the pivot. Finite models only; without `walks` return and gradient are exact.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor

from ...collectors.exact import exact
from ...collectors.walks import walk
from ...core.batch import Batch
from ...core.state import State
from ...core.stream import Stream
from ...core.system import System
from ...credit import beyond_others
from ...memory.table import Table
from ...models.tabular import TabularSoftmax
from ...optimize.planning import policy_iteration, visited_kl, worth
from ...problems.tabular import TabularMDP

NEAR = 3  # times in a row that the return must be near enough


@dataclass(frozen=True)
class Explanation:
    """KL(old || new) of each state [S], nats; where another action is the likeliest now [S]; the states, most changed first [S]."""

    kl: Tensor
    flipped: Tensor
    states: Tensor


def explain(old: Tensor, new: Tensor) -> Explanation:
    """What changed from one policy [S, A] to another, both probabilities and those of `new` positive."""
    kl = (torch.special.xlogy(old, old) - old * new.log()).sum(-1)
    return Explanation(kl, old.argmax(-1) != new.argmax(-1), kl.argsort(descending=True, stable=True))


def goal(model: TabularMDP, original: Tensor, target: float) -> float:
    """R: `target` of the way from the given policy's return to the best there is, or, where it is negative, to the worst."""
    sign = model.sign if target >= 0 else ("cost" if model.sign == "reward" else "reward")
    end, start = worth(model, policy_iteration(replace(model, sign=sign))[1]), worth(model, original)
    return float(start + abs(target) * (end - start))


def counterpol(
    *, target: float = 0.5, weight: float = 1.0, every: int = 10, lr: float = 0.5, scale: float = 1.0, tolerance: float = 0.01,
    temperature: float = 1.0, walks: int | None = None, horizon: int = 100, memory: float = 0.1,
) -> System:  # fmt: skip
    """A counterfactual of softmax(Q* / temperature) on a finite model, which stops changing once it earns what was chosen.

    target       the return: 1 the best there is, 0 the given policy's, -1 the worst
    weight       of the divergence from the pivot; 0: policy gradient alone
    every        steps from one pivot to the next
    lr           step size
    scale        distance from the return, in its units, below which the gradient is scaled down
    tolerance    of the return, in its units: within it three times in a row, nothing changes any more
    temperature  of the given policy, in the reward's units
    walks        episodes drawn in a step, at least 2; None: return and gradient are exact
    horizon      decisions of an episode
    memory       share of a step's return in the running mean, where there are walks
    """
    if not -1 <= target <= 1:
        raise ValueError(f"target must lie in [-1, 1], not {target}: no policy earns more than the best or less than the worst")
    if weight < 0 or min(every, horizon) < 1 or min(lr, scale, tolerance, temperature) <= 0 or not 0 < memory <= 1:
        raise ValueError("weight >= 0; every, horizon >= 1; lr, scale, tolerance, temperature > 0; memory in (0, 1]")
    if walks is not None and walks < 2:
        raise ValueError(f"walks must be at least 2 or None, not {walks}: a walk's baseline is the mean of the others")

    def init(problem: Any, rng: Stream) -> State:
        model = problem.model
        q = model.direction * model.values(policy_iteration(model)[1])[1]
        policy, *frozen = (TabularSoftmax(q / temperature) for _ in range(3))
        original, pivot = (part.requires_grad_(False) for part in frozen)
        told = Table(1, mean=float(worth(model, original.probs())), near=0).double()
        return State(policy=policy, original=original, pivot=pivot, told=told)

    def collect(state: State, problem: Any, rng: Stream) -> tuple[TabularMDP, Batch | None]:
        model = exact(state, problem, rng)
        return model, None if walks is None else walk(model, state.policy.probs(), rng, count=walks, steps=horizon)

    def learn(state: State, data: tuple[TabularMDP, Batch | None], rng: Stream) -> dict[str, float]:
        (model, batch), parts, theta = data, cast(Any, state), state.policy.logits
        mean, near, pivot, original = parts.told.mean, parts.told.near, parts.pivot, parts.original.probs()
        pi, wanted = state.policy.probs(), goal(model, original, target)
        if batch is None:
            gain = worth(model, pi)
            mean.fill_(float(gain.detach()))
        else:
            past = model.gamma ** torch.arange(horizon).to(batch.reward)
            logp = state.policy.logp(batch.obs, batch.action, batch.mask)
            gain = model.direction * (past * beyond_others(batch.reward, batch.mask, discount=model.gamma) * logp).sum(1).mean()
            mean.lerp_(model.direction * (past * batch.reward).sum(1).mean().to(mean), memory)
        missed = wanted - float(mean)
        if float(near) < NEAR:
            near.copy_(near + 1 if abs(missed) < tolerance else 0 * near)
        if float(near) < NEAR:
            c = max(-1.0, min(1.0, missed / scale))
            slope = torch.autograd.grad(c * gain - weight * visited_kl(model, pivot.probs(), pi), theta)[0]  # <- the idea
            theta.data += lr * slope
            if (state.step + 1) % every == 0:
                pivot.load_state_dict(state.policy.state_dict())
        now = state.policy.probs().detach()
        flipped = explain(original, now).flipped.double().mean()
        told = {"return": worth(model, now), "kl": visited_kl(model, original, now), "flipped": flipped}
        return {name: float(x) for name, x in told.items()} | {"missed": missed, "stopped": float(near >= NEAR)}

    return System(init, collect, learn)
