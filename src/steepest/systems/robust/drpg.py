"""DRPG: descend on the policy, against a nature whose worst model is found ever more exactly.

Paper.  Wang, Ho and Petrik, Policy Gradient in Robust MDPs with Global Convergence Guarantee, 2022. arXiv 2212.10439.
Claim.  It reaches the robust optimum, so its worst-case cost is below that of the same policy gradient without nature.
Idea.   pi <- proj(pi - lr grad J(pi, P_t)) on the simplex, where J(pi, P_t) >= max_P J(pi, P) - e_t and e_{t+1} = gamma e_t
State.  policy [S, A]; adversary: nature's value or parameters, where the next inner loop starts
Note.   Nature's inner loop is warm: it goes on from its last answer, the authors' code restarts it in every outer step.
        By default nature moves inside the L1 balls of the problem; `Parametric` is the authors' other kind of set, with
        f and g one-hot and the exponential that their code lacks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ...collectors.exact import exact
from ...core.state import State
from ...core.stream import Stream
from ...core.system import System
from ...models.tabular import TabularDirect
from ...optimize.planning import direct_gradient
from ...optimize.projection import l1_ball, simplex
from ...problems.tabular import TabularMDP

EXACT = 1e-9  # tolerances below it are not told apart from rounding


class Nominal(nn.Module):
    """No adversary: P is what happens. DRPG becomes projected policy gradient."""

    def __init__(self, model: TabularMDP):
        super().__init__()

    def respond(self, model: TabularMDP, pi: Tensor, tolerance: float) -> tuple[Tensor, int]:
        return model.P, 0


class Rectangular(nn.Module):
    """Nature chooses each P[s, a] in the problem's L1 ball: sweeps of robust policy evaluation."""

    value: Tensor

    def __init__(self, model: TabularMDP):
        super().__init__()
        self.register_buffer("value", torch.zeros_like(model.rho))

    def respond(self, model: TabularMDP, pi: Tensor, tolerance: float) -> tuple[Tensor, int]:
        """Nature's answer [S, A, S'] to a policy, whose values are within `tolerance` of the worst, and the sweeps it took."""
        sweeps, error, kernel = 0, float("inf"), model.P
        while error > tolerance:
            kernel = model.worst(self.value)
            new = (pi * (model.R + model.gamma * kernel @ self.value)).sum(-1)
            error = 2 * model.gamma / (1 - model.gamma) * float((new - self.value).abs().max())  # between `kernel` and the worst
            self.value.copy_(new)
            sweeps += 1
        return kernel, sweeps


class Parametric(nn.Module):
    """Nature chooses P ~ P0 exp(theta[s'] / lam[s, a]), |theta|_1 <= 1, |lam - 1|_1 <= 1, lam >= 1e-5: projected ascent.

    lr     of nature (authors' code: 0.01)
    steps  at most, in an outer step
    """

    theta: Tensor
    lam: Tensor

    def __init__(self, model: TabularMDP, lr: float = 0.01, steps: int = 1000):
        super().__init__()
        self.lr, self.steps = lr, steps
        self.register_buffer("theta", torch.zeros_like(model.rho))
        self.register_buffer("lam", torch.ones_like(model.R))

    def kernel(self, model: TabularMDP, theta: Tensor, lam: Tensor) -> Tensor:
        return (model.P.log() + theta / lam[..., None]).softmax(-1)

    def respond(self, model: TabularMDP, pi: Tensor, tolerance: float) -> tuple[Tensor, int]:
        harm, change, steps = float("inf"), float("inf"), 0
        while change > tolerance and steps < self.steps:
            theta, lam = (x.clone().requires_grad_() for x in (self.theta, self.lam))
            now = -model.direction * (model.rho @ replace(model, P=self.kernel(model, theta, lam)).values(pi)[0])
            by_theta, by_lam = torch.autograd.grad(now, (theta, lam))
            self.theta.copy_(l1_ball(self.theta + self.lr * by_theta, torch.zeros_like(theta), 1.0))
            self.lam.copy_(l1_ball(self.lam + self.lr * by_lam, torch.ones_like(lam), 1.0).clamp(min=1e-5))
            change, harm, steps = abs(float(now.detach()) - harm), float(now.detach()), steps + 1
        return self.kernel(model, self.theta, self.lam), steps


def drpg(*, lr: float = 0.1, tolerance: float = 1.0, adversary: Callable[[TabularMDP], Any] = Rectangular) -> System:
    """Double-loop robust policy gradient on a finite model that is known.

    lr         step of the projected gradient (paper: 0.1)
    tolerance  error of nature's first answer, in units of the objective; it shrinks by the discount in every step
    adversary  what nature can do: Rectangular, Parametric or Nominal, built from the model
    """
    if not lr > 0 or not tolerance > 0:
        raise ValueError(f"lr and tolerance must be positive, not {lr} and {tolerance}")

    def init(problem: Any, rng: Stream) -> State:
        model = problem.model
        policy = TabularDirect(torch.full_like(model.R, 1 / model.R.shape[1]))
        return State(policy=policy, adversary=adversary(model))

    def learn(state: State, model: TabularMDP, rng: Stream) -> dict[str, float]:
        nature: Any = state.adversary
        pi, asked = state.policy.probs(), max(tolerance * model.gamma**state.step, EXACT)
        kernel, inner = nature.respond(model, pi, asked)
        worst = replace(model, P=kernel)
        up = model.direction * direct_gradient(worst, pi)
        state.policy.table.copy_(simplex(pi + lr * up))  # <- the idea
        gap = float((up.amax(-1) - (pi * up).sum(-1)).sum())  # 0 where no policy is better against this kernel
        return {"objective": float(model.rho @ worst.values(pi)[0]), "gap": gap, "inner": inner, "tolerance": asked}

    return System(init, exact, learn)
