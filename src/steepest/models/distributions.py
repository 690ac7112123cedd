"""Distributions over actions, in closed form. Leading axes are free; the last is the action's."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, nll_loss

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
class Categoricals:
    """K independent choices, the k-th among A_k: `parts` are their distributions. Everything is summed over K."""

    parts: tuple[Categorical, ...]

    @classmethod
    def of(cls, scores: Tensor, sizes: tuple[int, ...]) -> Categoricals:
        """From scores [..., A_1 + ... + A_K]."""
        return cls(tuple(map(Categorical.of, scores.split(sizes, -1))))

    def logp(self, action: Tensor) -> Tensor:
        """action [..., K] long -> [...]"""
        told = zip(self.parts, action.unbind(-1), strict=True)
        return torch.stack([part.logp(chosen) for part, chosen in told]).sum(0)

    def entropy(self) -> Tensor:
        return torch.stack([part.entropy() for part in self.parts]).sum(0)

    def kl(self, other: Categoricals) -> Tensor:
        """KL(self || other) [...]"""
        return torch.stack([a.kl(b) for a, b in zip(self.parts, other.parts, strict=True)]).sum(0)

    def mode(self) -> Tensor:
        return torch.stack([part.mode() for part in self.parts], -1)

    def sample(self, generator: torch.Generator) -> Tensor:
        return torch.stack([part.sample(generator) for part in self.parts], -1)

    def detach(self) -> Categoricals:
        return Categoricals(tuple(part.detach() for part in self.parts))


@dataclass(frozen=True)
class Bernoullis:
    """K independent choices of 0 or 1; `logits` [..., K] are log(p / (1 - p)) of 1. Everything is summed over K."""

    logits: Tensor

    def logp(self, action: Tensor) -> Tensor:
        """action [..., K] of 0 and 1 -> [...]"""
        return logsigmoid(torch.where(action > 0, self.logits, -self.logits)).sum(-1)

    def entropy(self) -> Tensor:
        p = self.logits.sigmoid()
        return -(p * logsigmoid(self.logits) + (1 - p) * logsigmoid(-self.logits)).sum(-1)

    def kl(self, other: Bernoullis) -> Tensor:
        """KL(self || other) [...]"""
        p = self.logits.sigmoid()
        yes, no = (logsigmoid(sign * self.logits) - logsigmoid(sign * other.logits) for sign in (1, -1))
        return (p * yes + (1 - p) * no).sum(-1)

    def mode(self) -> Tensor:
        return (self.logits > 0).long()

    def sample(self, generator: torch.Generator) -> Tensor:
        u = torch.rand(self.logits.shape, generator=generator, device=self.logits.device)
        return (u < self.logits.sigmoid()).long()

    def detach(self) -> Bernoullis:
        return Bernoullis(self.logits.detach())


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
