"""Natural gradients: steps whose length is measured by how far the policy's decisions move."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..core.batch import Batch
from ..core.state import State
from ..core.stream import Stream
from .epochs import Objective, Update

Product = Callable[[Tensor], Tensor]


def conjugate_gradient(product: Product, b: Tensor, *, steps: int = 10, tolerance: float = 1e-10) -> Tensor:
    """x with A x = b, for a symmetric positive A known by `product(v) = A v`. Exact after len(b) steps but for rounding.

    Stops when |A x - b|^2 <= `tolerance`. Hestenes and Stiefel, 1952.
    """
    x, rest = torch.zeros_like(b), b.clone()
    direction, size = rest.clone(), rest @ rest
    for _ in range(steps):
        if size <= tolerance:
            break
        image = product(direction)
        length = size / (direction @ image)
        x += length * direction
        rest -= length * image
        before, size = size, rest @ rest
        direction = rest + size / before * direction
    return x


def backtrack(accept: Callable[[float], bool], *, tries: int = 10, shrink: float = 0.5) -> float:
    """The first of 1, shrink, shrink^2, ... that is accepted; 0 if none of `tries` is."""
    share = 1.0
    for _ in range(tries):
        if accept(share):
            return share
        share *= shrink
    return 0.0


def flat(tensors: Sequence[Tensor]) -> Tensor:
    """All entries in one vector."""
    return torch.cat([x.reshape(-1) for x in tensors])


@torch.no_grad()
def write(params: Sequence[Tensor], vector: Tensor) -> None:
    """The inverse of `flat`, in place."""
    for p, x in zip(params, vector.split([p.numel() for p in params]), strict=True):
        p.copy_(x.view_as(p))


def hessian_product(scalar: Tensor, params: Sequence[Tensor], *, damping: float = 0.0) -> Product:
    """v -> (H + damping I) v, where H is the second derivative of `scalar` by `params`. Pearlmutter, 1994."""
    slope = flat(torch.autograd.grad(scalar, params, create_graph=True, materialize_grads=True))

    def product(v: Tensor) -> Tensor:
        image = torch.autograd.grad(slope @ v, params, retain_graph=True, materialize_grads=True)
        return flat(image) + damping * v

    return product


def refuse_without_kl(policy: Any) -> None:
    """Raise TypeError where a policy has no divergence in closed form."""
    if not (hasattr(policy, "kl") and hasattr(policy, "distribution")):
        raise TypeError(
            f"a trust region needs KL(old || new) in closed form, which {type(policy).__name__} has not: give it "
            "`distribution(obs)` and `kl(old, obs)`, or bound the ratio instead (ppo)"
        )


def mean_kl(policy: Any, old: Any, batch: Batch) -> Tensor:
    return (policy.kl(old, batch.obs) * batch.mask).sum() / batch.mask.sum()


@dataclass(frozen=True)
class TrustRegion:
    """One step along the natural gradient of the policy's parameters, as long as a mean divergence allows, then shortened
    until the objective improves and the divergence holds; else none. The critic is left alone. arXiv:1502.05477 app. C

    max_kl   bound of the mean KL(old || new), nats
    damping  added to the diagonal of the Fisher matrix
    steps    of conjugate gradient
    tries    step lengths tried, each `shrink` of the one before
    shrink   see there
    """

    max_kl: float = 0.01
    damping: float = 0.1
    steps: int = 10
    tries: int = 10
    shrink: float = 0.5

    def __post_init__(self) -> None:
        if not self.max_kl > 0:
            raise ValueError(f"max_kl must be positive, not {self.max_kl}")
        if self.damping < 0 or not 0 < self.shrink < 1:
            raise ValueError(f"damping must be at least 0 and shrink in (0, 1), not {self.damping} and {self.shrink}")
        for name in ("steps", "tries"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")

    def __call__(self, state: State, objective: Objective, batch: Batch, rng: Stream) -> dict[str, Any]:
        policy = state.policy
        refuse_without_kl(policy)
        batch = objective.weigh(batch)
        params = [p for p in policy.parameters() if p.requires_grad]
        with torch.no_grad():
            old = policy.distribution(batch.obs)
        loss = objective.value(state, batch)
        slope = flat(torch.autograd.grad(loss, params, materialize_grads=True))
        start, loss = flat([p.detach() for p in params]), loss.detach()
        product = hessian_product(mean_kl(policy, old, batch), params, damping=self.damping)
        direction = conjugate_gradient(product, -slope, steps=self.steps)
        curvature = float(direction @ product(direction))
        share, now = 0.0, loss
        if curvature > 0:
            step = math.sqrt(2 * self.max_kl / curvature) * direction

            @torch.no_grad()
            def accept(share: float) -> bool:
                nonlocal now
                write(params, start + share * step)
                now = objective.value(state, batch)
                return bool(now < loss) and bool(mean_kl(policy, old, batch) <= self.max_kl)

            share = backtrack(accept, tries=self.tries, shrink=self.shrink)
        if share == 0:
            write(params, start)
            now = loss
        return {"grad_norm": float(slope.norm()), "step": share, "gain": float(loss - now)}


def watched(update: Update) -> Update:
    """The same update, which also reports how far it moved the policy: `kl_mean` and `kl_max` over the batch's states, in
    closed form and nats. A policy without closed form reports neither."""

    def measured(state: State, objective: Objective, batch: Batch, rng: Stream) -> dict[str, Any]:
        policy = state.policy
        if not hasattr(policy, "kl"):
            return update(state, objective, batch, rng)
        with torch.no_grad():
            old = policy.distribution(batch.obs)
        metrics = update(state, objective, batch, rng)
        with torch.no_grad():
            moved = policy.kl(old, batch.obs) * batch.mask
        return {**metrics, "kl_mean": float(moved.sum() / batch.mask.sum()), "kl_max": float(moved.max())}

    return measured
