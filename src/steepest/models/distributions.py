"""Distributions over actions, in closed form. Leading axes are free; the last is the action's."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import nll_loss

HALF_LOG_TAU = 0.5 * math.log(2 * math.pi)


@dataclass(frozen=True)
class Categorical:
    """Over A choices. `logits` [..., A] are log-probabilities."""

    logits: Tensor

    @classmethod
    def of(cls, scores: Tensor) -> Categorical:
        """From scores that need not be normalised."""
        return cls(scores.log_softmax(-1))

    def logp(self, action: Tensor) -> Tensor:
        """action [...] long -> [...]"""
        flat = self.logits.reshape(-1, self.logits.shape[-1])
        return -nll_loss(flat, action.reshape(-1), reduction="none").view(action.shape)  # a gather with a cheaper gradient

    def entropy(self) -> Tensor:
        return -(self.logits.exp() * self.logits).sum(-1)

    def kl(self, other: Categorical) -> Tensor:
        """KL(self || other) [...]"""
        return (self.logits.exp() * (self.logits - other.logits)).sum(-1)

    def mode(self) -> Tensor:
        return self.logits.argmax(-1)

    def sample(self, generator: torch.Generator) -> Tensor:
        p = self.logits.exp().cumsum(-1)
        u = torch.rand((*p.shape[:-1], 1), generator=generator, device=p.device)
        return (p[..., :-1] <= u * p[..., -1:]).sum(-1)

    def detach(self) -> Categorical:
        return Categorical(self.logits.detach())


@dataclass(frozen=True)
class Gaussian:
    """Independent normals: `mean` [..., A] and `log_std` [A] or [..., A]. Densities are summed over A."""

    mean: Tensor
    log_std: Tensor

    def logp(self, action: Tensor) -> Tensor:
        """action [..., A] -> [...]"""
        z = (action - self.mean) * (-self.log_std).exp()
        constant = self.log_std.sum(-1) + HALF_LOG_TAU * self.mean.shape[-1]
        return -0.5 * (z * z).sum(-1) - constant

    def entropy(self) -> Tensor:
        return ((0.5 + HALF_LOG_TAU) * self.mean.shape[-1] + self.log_std.sum(-1)).expand(self.mean.shape[:-1])

    def kl(self, other: Gaussian) -> Tensor:
        """KL(self || other) [...]"""
        gap = self.log_std - other.log_std
        z = (self.mean - other.mean) * (-other.log_std).exp()
        return (0.5 * ((2 * gap).exp() + z * z - 1) - gap).sum(-1)

    def mode(self) -> Tensor:
        return self.mean

    def sample(self, generator: torch.Generator) -> Tensor:
        noise = torch.randn(self.mean.shape, generator=generator, device=self.mean.device, dtype=self.mean.dtype)
        return self.mean + self.log_std.exp() * noise

    def detach(self) -> Gaussian:
        """Without gradient, and `log_std` as large as `mean`, so that rows can be taken."""
        return Gaussian(self.mean.detach(), self.log_std.detach().expand_as(self.mean))
