"""Supervised problems, known completely: where a claim is about steps and not about what they are taken on. float64."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..core.exact import Model
from ..core.stream import Stream
from .exact import Made


@dataclass(frozen=True, eq=False)
class LogisticModel(Model):
    """N examples x [N, d] and their labels y [N], 1 or -1."""

    x: Tensor
    y: Tensor

    def loss(self, weights: Tensor) -> Tensor:
        """Mean of log(1 + exp(-y x . weights)), for weights [d]."""
        return torch.nn.functional.softplus(-self.y * (self.x @ weights)).mean()

    def evaluate(self, policy: Any, rng: Stream) -> dict[str, float]:
        """`fit`: minus the loss over all examples; `accuracy` on them."""
        weights = policy.weights.detach()
        return {"fit": -float(self.loss(weights)), "accuracy": float((self.y * (self.x @ weights) > 0).double().mean())}


@dataclass(frozen=True)
class Logistic(Made):
    """Logistic regression on heavy-tailed features: Student's t, each at its own scale, so that gradients come in bursts.

    examples  N
    features  d
    freedom   degrees of Student's distribution; small: heavy tails
    noise     standard deviation of what is added to the labels' score, relative to it
    seed      which random instance
    """

    examples: int = 500
    features: int = 20
    freedom: float = 2.5
    noise: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.examples < 1 or self.features < 1 or not self.freedom > 0 or self.noise < 0:
            raise ValueError(
                f"examples and features >= 1, freedom > 0 and noise >= 0, not {self.examples}, {self.features}, {self.freedom} and "
                f"{self.noise}"
            )

    def build(self) -> LogisticModel:
        g = Stream(self.seed, "Logistic").numpy()
        x = g.standard_t(self.freedom, (self.examples, self.features)) * 10 ** g.uniform(-1, 0, self.features)
        score = x @ g.standard_normal(self.features)
        y = score + self.noise * score.std() * g.standard_normal(self.examples)
        return LogisticModel(torch.from_numpy(x), torch.from_numpy(y).sign())
