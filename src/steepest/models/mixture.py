"""A mixture of given controllers: only the weights are learned."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from .tabular import Tabular


class Mixture(Tabular):
    """pi(a|s) = sum_m w_m K_m(a|s): in every step one of M controllers [M, S, A] is drawn and decides. Equal weights at first.

    Raises ValueError where there are fewer than two or a row is no distribution.
    """

    controllers: Tensor

    def __init__(self, controllers: Tensor):
        super().__init__()
        if controllers.ndim != 3 or len(controllers) < 2:
            raise ValueError(f"controllers must be [M, S, A] with M of at least 2, not {list(controllers.shape)}")
        bad = ((controllers.sum(-1) - 1).abs() > 1e-9) | (controllers < 0).any(-1)
        if bad.any():
            m, s = bad.nonzero()[0].tolist()
            raise ValueError(f"controller {m} has no distribution over actions in state {s}: {controllers[m, s].tolist()}")
        self.logits = nn.Parameter(torch.zeros_like(controllers[:, 0, 0]))
        self.register_buffer("controllers", controllers)

    def weights(self) -> Tensor:
        """[M]"""
        return self.logits.softmax(0)

    def probs(self) -> Tensor:
        return torch.einsum("m,msa->sa", self.weights(), self.controllers)

    def log_probs(self) -> Tensor:
        return self.probs().log()


def choices(model: Any, controllers: Tensor) -> Any:
    """A finite process in which an action is the choice of a controller for one step: P [S, M, S'], R [S, M]."""
    P, R = torch.einsum("msa,sat->smt", controllers, model.P), torch.einsum("msa,sa->sm", controllers, model.R)
    return replace(model, P=P, R=R)
