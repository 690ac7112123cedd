"""Averages of gradients that stay gradients of the place where one is. Pure: gradients are functions that are given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from ..core.stream import Stream
from .natural import flat, hessian_product


class Momentum(Protocol):
    """Where to look for the next gradient, and what the direction becomes.

    seen  the places whose data are needed: "policy", where one is, and "probe", where one looked
    """

    seen: ClassVar[tuple[str, ...]]

    def look(self, now: Tensor, before: Tensor, eta: float, rng: Stream) -> Tensor:
        """The probe [P], from where one is and where one was [P]; eta is the share of the new gradient."""

    def turn(
        self, old: Tensor, eta: float, moved: Tensor, slope: Callable[[str], Tensor], bend: Callable[[str, Tensor], Tensor]
    ) -> Tensor:
        """The new direction [P], given the gradient at a place and the Hessian there times a vector."""


class Plain:
    """The average of gradients where one was: they are old by the time they count."""

    seen: ClassVar[tuple[str, ...]] = ("probe",)

    def look(self, now: Tensor, before: Tensor, eta: float, rng: Stream) -> Tensor:
        return now

    def turn(
        self, old: Tensor, eta: float, moved: Tensor, slope: Callable[[str], Tensor], bend: Callable[[str, Tensor], Tensor]
    ) -> Tensor:
        return (1 - eta) * old + eta * slope("probe")


class Transport(Plain):
    """Implicit gradient transport: the same average of gradients ahead of the step, which for a quadratic is the gradient where
    one is. Arnold et al., 2019, arXiv:1906.03532"""

    def look(self, now: Tensor, before: Tensor, eta: float, rng: Stream) -> Tensor:
        return now + (1 - eta) / eta * (now - before)


class HessianAided:
    """The average carried along by the Hessian at a uniformly random point of the last step, whose mean is the change of the
    gradient."""

    seen: ClassVar[tuple[str, ...]] = ("policy", "probe")

    def look(self, now: Tensor, before: Tensor, eta: float, rng: Stream) -> Tensor:
        return torch.lerp(before, now, torch.rand(1, generator=rng.torch()).item())

    def turn(
        self, old: Tensor, eta: float, moved: Tensor, slope: Callable[[str], Tensor], bend: Callable[[str, Tensor], Tensor]
    ) -> Tensor:
        return (1 - eta) * (old + bend("probe", moved)) + eta * slope("policy")


def policy_hessian_product(each: Tensor, score: Tensor | None, params: Sequence[Tensor], u: Tensor) -> Tensor:
    """The Hessian of the return times u [P]: mean of Phi' (score . u) + Phi'' u; no matrix is formed.

    each   Phi of each trajectory [N], the scalar whose gradient is the estimate; or the return itself [1]
    score  log-probability of each trajectory [N]; None where `each` is the return itself
    """
    found = hessian_product(each.mean(), params)(u)
    if score is None:
        return found
    dummy = torch.ones_like(score, requires_grad=True)
    along = flat(torch.autograd.grad((dummy * score).sum(), params, create_graph=True, materialize_grads=True)) @ u
    share = torch.autograd.grad(along, dummy, retain_graph=True)[0]
    return found + flat(torch.autograd.grad((each * share).mean(), params, materialize_grads=True))
