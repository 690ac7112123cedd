"""Exact solutions of finite Markov decision processes. Pure; a policy is probabilities [S, A] in float64."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def greedy(mdp: Any, q: Tensor) -> Tensor:
    """The deterministic policy that is best for q [S, A]; the first of ties."""
    best = (mdp.direction * q).argmax(-1)
    return torch.nn.functional.one_hot(best, q.shape[1]).to(q)


def value_iteration(mdp: Any, *, tolerance: float = 1e-10) -> tuple[Tensor, Tensor]:
    """The optimal V [S] within `tolerance`, and a policy that is greedy for it. Nature follows P."""
    return fixed_point(mdp, lambda v: mdp.P, tolerance)


def fixed_point(mdp: Any, kernel: Any, tolerance: float) -> tuple[Tensor, Tensor]:
    """V = best over actions of R + gamma kernel(V) V, by iteration until V is within `tolerance`; and the greedy policy."""
    v = torch.zeros_like(mdp.rho)
    while True:
        q = mdp.R + mdp.gamma * kernel(v) @ v
        new = mdp.direction * (mdp.direction * q).amax(-1)
        change, v = float((new - v).abs().max()), new
        if change * mdp.gamma <= tolerance * (1 - mdp.gamma):
            return v, greedy(mdp, q)


def policy_iteration(mdp: Any) -> tuple[Tensor, Tensor]:
    """The optimal V [S] and a deterministic policy: evaluate, be greedy, until nothing gets better."""
    pi = torch.full_like(mdp.R, 1 / mdp.R.shape[1])
    best = None
    while True:
        v, q = mdp.values(pi)
        if best is not None and float((mdp.direction * (v - best)).max()) <= 1e-12 * (1 + float(v.abs().max())):
            return v, pi
        best, pi = v, greedy(mdp, q)


def occupancy(mdp: Any, pi: Tensor) -> Tensor:
    """Expected discounted visits d [S, A] from rho; they sum to 1 / (1 - gamma)."""
    move = torch.einsum("sa,sat->st", pi, mdp.P)
    eye = torch.eye(len(move), dtype=move.dtype, device=move.device)
    visits = torch.linalg.solve(eye - mdp.gamma * move.T, mdp.rho)
    return visits[:, None] * pi


def worth(mdp: Any, pi: Tensor) -> Tensor:
    """The return of a policy from rho, a scalar; costs count negative."""
    return mdp.direction * (mdp.rho @ mdp.values(pi)[0])


def visited_kl(mdp: Any, old: Tensor, new: Tensor) -> Tensor:
    """The mean of KL(old || new) over the discounted visits of old, a scalar in nats; the probabilities of new are positive."""
    kl = (torch.special.xlogy(old, old) - old * new.log()).sum(-1)
    return (1 - mdp.gamma) * occupancy(mdp, old).sum(-1) @ kl


def direct_gradient(mdp: Any, pi: Tensor) -> Tensor:
    """The gradient of rho . V with respect to the probabilities pi [S, A]: d(s) Q(s, a). Sutton et al., 2000."""
    return occupancy(mdp, pi).sum(-1, keepdim=True) * mdp.values(pi)[1]


def softmax_gradient(mdp: Any, logits: Tensor) -> Tensor:
    """The gradient of rho . V with respect to softmax logits [S, A]: d(s) pi(a|s) (Q(s, a) - V(s))."""
    pi = logits.softmax(-1)
    v, q = mdp.values(pi)
    return occupancy(mdp, pi) * (q - v[:, None])
