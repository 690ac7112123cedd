"""Natural gradients: steps whose length is measured by how far the policy's decisions move."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

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


class Found(NamedTuple):
    """The full natural step [P] (0 where the divergence has no curvature), what it starts from, and how it was found."""

    step: Tensor
    params: list[nn.Parameter]
    start: Tensor  # [P]
    slope: Tensor  # of the loss [P]
    loss: Tensor  # []
    old: Any  # what the policy's distribution was
    batch: Batch  # weighed


def natural_step(state: State, objective: Objective, batch: Batch, *, max_kl: float, damping: float, steps: int) -> Found:
    """Along F^-1 times the gradient, so long that the mean KL(old || new) would be `max_kl` if it were quadratic. Kakade, 2001;
    the length as in arXiv:1502.05477 app. C. Options: see `TrustRegion`."""
    policy = state.policy
    refuse_without_kl(policy)
    batch = objective.weigh(batch)
    params = [p for p in policy.parameters() if p.requires_grad]
    with torch.no_grad():
        old = policy.distribution(batch.obs)
    loss = objective.value(state, batch)
    slope = flat(torch.autograd.grad(loss, params, materialize_grads=True))
    product = hessian_product(mean_kl(policy, old, batch), params, damping=damping)
    direction = conjugate_gradient(product, -slope, steps=steps)
    curvature = float(direction @ product(direction))
    length = math.sqrt(2 * max_kl / curvature) if curvature > 0 else 0.0
    return Found(length * direction, params, flat([p.detach() for p in params]), slope, loss.detach(), old, batch)


def refuse_sizes(max_kl: float, damping: float, **counts: int) -> None:
    if not max_kl > 0:
        raise ValueError(f"max_kl must be positive, not {max_kl}")
    if damping < 0:
        raise ValueError(f"damping must be at least 0, not {damping}")
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name} must be at least 1, not {count}")


@dataclass(frozen=True)
class NaturalStep:
    """The full natural step, taken as it is: its length aims at a mean divergence and nothing checks what came of it.

    max_kl   the mean KL(old || new) aimed at, nats
    damping  added to the diagonal of the Fisher matrix
    steps    of conjugate gradient
    """

    max_kl: float = 0.01
    damping: float = 0.1
    steps: int = 10

    def __post_init__(self) -> None:
        refuse_sizes(self.max_kl, self.damping, steps=self.steps)

    def __call__(self, state: State, objective: Objective, batch: Batch, rng: Stream) -> dict[str, Any]:
        found = natural_step(state, objective, batch, max_kl=self.max_kl, damping=self.damping, steps=self.steps)
        write(found.params, found.start + found.step)
        with torch.no_grad():
            gain = found.loss - objective.value(state, found.batch)
        return {"grad_norm": float(found.slope.norm()), "gain": float(gain)}


@dataclass(frozen=True)
class TrustRegion:
    """The natural step, shortened until the objective improves and the divergence holds; else none. The critic is left alone.
    arXiv:1502.05477 app. C

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
        refuse_sizes(self.max_kl, self.damping, steps=self.steps, tries=self.tries)
        if not 0 < self.shrink < 1:
            raise ValueError(f"shrink must lie in (0, 1), not {self.shrink}")

    def __call__(self, state: State, objective: Objective, batch: Batch, rng: Stream) -> dict[str, Any]:
        found = natural_step(state, objective, batch, max_kl=self.max_kl, damping=self.damping, steps=self.steps)
        share, now = 0.0, found.loss
        if bool(found.step.any()):

            @torch.no_grad()
            def accept(share: float) -> bool:
                nonlocal now
                write(found.params, found.start + share * found.step)
                now = objective.value(state, found.batch)
                return bool(now < found.loss) and bool(mean_kl(state.policy, found.old, found.batch) <= self.max_kl)

            share = backtrack(accept, tries=self.tries, shrink=self.shrink)
        if share == 0:
            write(found.params, found.start)
            now = found.loss
        return {"grad_norm": float(found.slope.norm()), "step": share, "gain": float(found.loss - now)}


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
