"""Problems that are known completely: the model itself is what a system learns from."""

from __future__ import annotations

import dataclasses
from typing import Any, Self

import torch
from torch import Tensor

from .problem import Problem


class Model(Problem):
    """A frozen record of tensors that says everything about a problem, and is one itself."""

    @property
    def model(self) -> Self:
        return self

    def to(self, device: torch.device | str) -> Self:
        """The same on another device."""
        tensors: dict[str, Any] = {}
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if isinstance(value, Tensor) and value.device != torch.device(device):
                tensors[field.name] = value.to(device)
        return dataclasses.replace(self, **tensors) if tensors else self  # type: ignore[type-var]
