"""The policy gradient theorem, executable: ascent along an expectation in which nothing of the dynamics is differentiated.

Paper.  Lehmann, The Definitive Guide to Policy Gradients in Deep Reinforcement Learning: Theory, Algorithms and
        Implementations, 2024. arXiv 2401.13662. The theorem: Sutton, McAllester, Singh and Mansour, 2000.
Claim.  Of the algorithms that follow this gradient those that keep each policy near the last, PPO among them, beat REINFORCE.
Idea.   grad J = sum_s d(s) E_{a ~ pi}[grad log pi(a|s) Q(s, a)], d the discounted visits
State.  policy, and its optimizer, which keeps nothing
Note.   On a finite model every expectation of the theorem is a sum and is computed, so that sampled estimates can be held
        against it; nature's part of a robust problem (`radius`) is left out. The guide's benchmark, all on-policy systems of the
        library under one budget, is the page `guide` of the documentation; the claim here is its sentence about PPO.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...collectors.exact import exact
from ...core.state import State
from ...core.stream import Stream
from ...core.system import System
from ...models.tabular import TabularSoftmax
from ...optimize.planning import occupancy
from ...problems.tabular import TabularMDP


def expectation(model: TabularMDP, policy: Any) -> Tensor:
    """E[log pi(a|s) Q(s, a)] over the discounted visits of `policy`, with visits and Q held: its gradient is that of the return."""
    pi = policy.probs().detach()
    return (occupancy(model, pi) * model.values(pi)[1] * policy.log_probs()).sum()  # <- the idea


def policy_gradient_guide(*, lr: float = 0.1) -> System:
    """Exact policy gradient on a finite model that is known, from the uniform policy.

    lr  step length along the gradient of the discounted return (the paper names none for exact gradients; at
        (1 - discount)^3 / 8 over the largest reward no step can lose: Agarwal et al., 2021. arXiv 1908.00261)
    """
    if not lr > 0:
        raise ValueError(f"lr must be positive, not {lr}")

    def init(problem: Any, rng: Stream) -> State:
        state = State(policy=TabularSoftmax(torch.zeros_like(problem.model.R)))
        state.optimizers["policy"] = torch.optim.SGD(state.policy.parameters(), lr)
        return state

    def learn(state: State, model: TabularMDP, rng: Stream) -> dict[str, float]:
        optimizer = state.optimizers["policy"]
        optimizer.zero_grad()
        (-model.direction * expectation(model, state.policy)).backward()
        gradient = torch.cat([p.grad.reshape(-1) for p in state.policy.parameters()])
        earned = model.direction * float(model.rho @ model.values(state.policy.probs().detach())[0])
        optimizer.step()
        return {"return": earned, "gradient_norm": float(gradient.norm())}

    return System(init, exact, learn)
