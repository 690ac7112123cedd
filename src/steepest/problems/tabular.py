"""Finite Markov decision processes, known completely. float64."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from ..core.exact import Model
from ..core.stream import Stream
from .exact import Made

SUM = 1e-9  # how far a distribution's sum may be from 1


@dataclass(frozen=True, eq=False)
class TabularMDP(Model):
    """S states, A actions, and how far nature may deviate from what is written here.

    P       transition probabilities [S, A, S']
    R       expected reward or cost of an action [S, A]
    rho     distribution of the first state [S]
    gamma   discount, in [0, 1)
    sign    whether R is a reward, to be maximised, or a cost, to be minimised
    radius  nature chooses every P[s, a] anew, the worst within this L1 distance; 0: P is what happens

    Raises ValueError where shapes disagree or a row is no distribution; the message names it.
    """

    P: Tensor
    R: Tensor
    rho: Tensor
    gamma: float
    sign: Literal["reward", "cost"] = "reward"
    radius: float = 0.0

    def __post_init__(self) -> None:
        states, actions = self.R.shape
        if self.P.shape != (states, actions, states) or self.rho.shape != (states,):
            raise ValueError(
                f"R is [S, A] = {[states, actions]}, so P must be {[states, actions, states]} and rho {[states]}, "
                f"not {list(self.P.shape)} and {list(self.rho.shape)}"
            )
        if any(x.dtype != torch.float64 for x in (self.P, self.R, self.rho)):
            raise ValueError(
                f"P, R and rho must be float64, not {self.P.dtype}, {self.R.dtype} and {self.rho.dtype}: call .double()"
            )
        for name, x in (("P", self.P), ("rho", self.rho)):
            bad = ((x.sum(-1) - 1).abs() > SUM) | (x < 0).any(-1) | ~torch.isfinite(x).all(-1)
            if bad.any():
                row = bad.nonzero()[0].tolist()
                index = "".join(f"[{i}]" for i in row)
                total, least = float(x[tuple(row)].sum()), float(x[tuple(row)].min())
                raise ValueError(f"{name}{index} is no distribution: it sums to {total:.12g}, its least entry is {least:.3g}")
        if not torch.isfinite(self.R).all():
            s, a = (~torch.isfinite(self.R)).nonzero()[0].tolist()
            raise ValueError(f"R[{s}][{a}] is {float(self.R[s, a])}")
        if not 0 <= self.gamma < 1:
            raise ValueError(f"gamma must lie in [0, 1), not {self.gamma}: without discount values may be infinite")
        if self.sign not in ("reward", "cost"):
            raise ValueError(f"sign must be 'reward' or 'cost', not {self.sign!r}")
        if not 0 <= self.radius <= 2:
            raise ValueError(f"radius must lie in [0, 2], not {self.radius}: two distributions are never further apart in L1")

    @property
    def direction(self) -> float:
        """1 where R is maximised, -1 where it is minimised."""
        return 1.0 if self.sign == "reward" else -1.0

    def values(self, pi: Tensor) -> tuple[Tensor, Tensor]:
        """V [S] and Q [S, A] of a policy [S, A] under P, exactly."""
        move = torch.einsum("sa,sat->st", pi, self.P)
        eye = torch.eye(len(move), dtype=move.dtype, device=move.device)
        v = torch.linalg.solve(eye - self.gamma * move, (pi * self.R).sum(-1))
        return v, self.R + self.gamma * self.P @ v

    def worst(self, v: Tensor) -> Tensor:
        """What nature chooses when state s' is worth v[s']: transition probabilities [S, A, S']."""
        return worst_l1(-self.direction * v, self.P, self.radius)

    def worst_case(self, pi: Tensor) -> TabularMDP:
        """The model that nature chooses against a policy: with exact values, by policy iteration on nature's choices."""
        model = replace(self, radius=0.0)
        while True:
            chosen = self.worst(model.values(pi)[0])
            if torch.allclose(chosen, model.P, rtol=0, atol=1e-14):
                return model
            better = replace(model, P=chosen)
            gain = -self.direction * (better.values(pi)[0] - model.values(pi)[0])
            if float(gain.max()) <= 1e-12 * (1 + float(self.R.abs().max()) / (1 - self.gamma)):
                return model
            model = better

    def evaluate(self, policy: Any, rng: Stream) -> dict[str, float]:
        """`return` from rho under the worst model that nature may choose (costs count negative), `nominal` under P."""
        pi = policy.probs().detach().to(self.P)
        worst, nominal = (float(self.direction * (self.rho @ model.values(pi)[0])) for model in (self.worst_case(pi), self))
        return {"return": worst, "nominal": nominal}


def worst_l1(v: Tensor, p: Tensor, radius: float) -> Tensor:
    """The distribution within L1 distance `radius` of p [..., S] with the largest expectation of v [S], in O(S log S).

    Half the radius of mass moves to the best state, taken from the lowest states first. Iyengar, 2005; Strehl and Littman, 2008.
    """
    order = v.argsort(stable=True)
    sorted_p = p[..., order]
    low = sorted_p[..., :-1]
    before = low.cumsum(-1) - low
    taken = (radius / 2 - before).clamp(min=0).minimum(low)
    moved = torch.cat([low - taken, sorted_p[..., -1:] + taken.sum(-1, keepdim=True)], -1)
    return torch.empty_like(p).index_copy(-1, order, moved)


def simplex_noise(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Uniformly random distributions over the last axis."""
    x = -torch.rand(shape, generator=generator, dtype=torch.float64).clamp(min=1e-300).log()
    return x / x.sum(-1, keepdim=True)


@dataclass(frozen=True)
class Garnet(Made):
    """A random process: from each state and action `branch` random states can follow. Archibald et al., 1995.

    states   S
    actions  A
    branch   states that can follow an action
    scale    rewards or costs are uniform in [0, scale]
    gamma    discount
    sign     whether they are rewards or costs
    radius   L1 distance within which nature chooses each row of P
    seed     which random instance
    """

    states: int = 6
    actions: int = 3
    branch: int = 3
    scale: float = 5.0
    gamma: float = 0.9
    sign: Literal["reward", "cost"] = "cost"
    radius: float = 0.4
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.branch <= self.states or self.actions < 1:
            raise ValueError(f"branch must lie in 1..{self.states} and actions be at least 1, not {self.branch} and {self.actions}")

    def build(self) -> TabularMDP:
        g, shape = self.generator(), (self.states, self.actions)
        after = torch.rand(*shape, self.states, generator=g).argsort(-1)[..., : self.branch]
        P = torch.zeros(*shape, self.states, dtype=torch.float64).scatter(-1, after, simplex_noise((*shape, self.branch), g))
        R = self.scale * torch.rand(shape, generator=g, dtype=torch.float64)
        rho = torch.full((self.states,), 1 / self.states, dtype=torch.float64)
        return TabularMDP(P, R, rho, self.gamma, self.sign, self.radius)


@dataclass(frozen=True)
class ChainWalk(Made):
    """Left or right along a line; only the right end pays, 1 for every step there. Walking fails with probability `slip`.

    states  positions; the first is the start
    slip    probability of moving the other way
    gamma   discount
    seed    none is needed: there is one instance
    """

    states: int = 6
    slip: float = 0.1
    gamma: float = 0.9
    seed: int = 0

    def __post_init__(self) -> None:
        if self.states < 2 or not 0 <= self.slip <= 1:
            raise ValueError(f"a chain has at least two states and slip lies in [0, 1], not {self.states} and {self.slip}")

    def build(self) -> TabularMDP:
        n = torch.arange(self.states)
        left, right = ((n + step).clamp(0, self.states - 1) for step in (-1, 1))
        move = torch.eye(self.states, dtype=torch.float64)[torch.stack([left, right], 1)]
        P = (1 - self.slip) * move + self.slip * move.flip(1)
        R = torch.zeros(self.states, 2, dtype=torch.float64)
        R[-1] = 1.0
        return TabularMDP(P, R, torch.eye(self.states, dtype=torch.float64)[0], self.gamma)
