"""Gradient subspaces: PPO that measures how much of its gradient lies where its loss is most curved.

Paper.  Schneider, Schumacher, Guist, Chen, Haeufle, Scholkopf and Buchler, Identifying Policy Gradient Subspaces, 2024.
        arXiv 2401.06604.
Claim.  Policy gradients lie mostly in the span of a few eigenvectors of the loss's Hessian, and that span moves slowly.
Idea.   fraction = |V V' g|^2 / |g|^2, V [P, k] the eigenvectors of the largest |eigenvalues|; overlap = |V(before)' V|^2 / k
State.  PPO's; span: V at the last measurement [P, k]
Note.   Measured before an update, on the whole batch and by the policy's parameters: the ratio is 1 there, and the clipped loss
        has two derivatives. Both gradients are PPO's, with the entropy bonus if there is one. The critic is not looked at.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from ...core.batch import Batch
from ...core.state import State
from ...core.stream import Stream
from ...core.system import System, extends, holding
from ...optimize.epochs import Epochs, Objective, Update, apart
from ...optimize.lanczos import lanczos
from ...optimize.natural import Product, flat, hessian_product
from .ppo import ppo

Choose = Callable[[Product, Tensor, int, Stream], Tensor]  # Hessian's product, a vector of its size [P], k -> [P, k]


class Span(nn.Module):
    """k orthonormal directions [P, k]; 0 until the first measurement."""

    basis: Tensor

    def __init__(self, rows: int, count: int):
        super().__init__()
        self.register_buffer("basis", torch.zeros(rows, count, dtype=torch.float64))


def curved(product: Product, like: Tensor, count: int, rng: Stream) -> Tensor:
    """The eigenvectors of the largest |eigenvalues|."""
    return lanczos(product, like, count, rng)[1]  # <- the idea


def at_random(product: Product, like: Tensor, count: int, rng: Stream) -> Tensor:
    """Directions that know nothing: a gradient has k / P of its square in them, on average."""
    return torch.linalg.qr(torch.randn(len(like), count, generator=rng.torch(), dtype=torch.float64))[0]


def fraction(basis: Tensor, g: Tensor) -> float:
    """The share of |g|^2 in the span of orthonormal columns [P, k]; 0 where g is 0."""
    whole = float(g.double() @ g.double())
    return float((basis.T @ g.double()).square().sum()) / whole if whole > 0 else 0.0


def overlap(one: Tensor, two: Tensor) -> float:
    """The mean share of two's columns in the span of one's, both orthonormal [P, k]: 1 where the spans are equal."""
    return float((one.T @ two).square().sum()) / two.shape[1]


@extends(ppo, without=("wrap",))
def pg_subspaces(*, count: int = 10, every: int = 5, rows: int = 64, choose: Choose = curved, **options: Any) -> System:
    """PPO on environments, which reports `fraction` of the batch's gradient, `fraction_small` of small batches' and `overlap`.

    count   k, directions of the subspace (paper: 100 of networks of many thousands of parameters)
    every   training steps between two measurements
    rows    decisions in a small batch; the mean of 8 of them is reported
    choose  the directions: curved, or at_random
    """
    if count < 1 or every < 1 or rows < 1:
        raise ValueError(f"count, every and rows must be at least 1, not {count}, {every} and {rows}")

    def measured(epochs: Epochs) -> Update:
        def update(state: State, objective: Objective, batch: Batch, rng: Stream) -> dict[str, Any]:
            told = measure(state, objective, apart(state, batch), rng / "measure") if state.step % every == 0 else {}
            return {**epochs(state, objective, batch, rng), **told}

        return update

    def measure(state: State, objective: Objective, batch: Batch, rng: Stream) -> dict[str, float]:
        params, before = list(state.policy.parameters()), cast(Span, state.span).basis

        def loss(part: Batch) -> Tensor:
            return objective.value(state, objective.weigh(part))

        def slope(part: Batch) -> Tensor:
            return flat(torch.autograd.grad(loss(part), params, materialize_grads=True))

        whole = slope(batch)
        basis = choose(hessian_product(loss(batch), params), whole, count, rng / "directions")
        order = torch.randperm(len(batch), generator=(rng / "rows").torch())
        small = [fraction(basis, slope(batch.rows(part))) for part in order.split(rows)[:8]]
        told = {"fraction": fraction(basis, whole), "fraction_small": sum(small) / len(small)}
        if before.any():
            told["overlap"] = overlap(before, basis)
        before.copy_(basis)
        return told

    def span(state: State, problem: Any, rng: Stream) -> Span:
        size = sum(p.numel() for p in state.policy.parameters())
        if count > size:
            raise ValueError(f"count = {count} directions cannot be told apart among {size} parameters of the policy")
        return Span(size, count)

    return holding(ppo(**options, wrap=measured), span=span)
