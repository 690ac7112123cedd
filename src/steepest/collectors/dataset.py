"""Rows of logged data, drawn uniformly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ..core.state import State
from ..core.stream import Stream


def dataset(*, batch: int) -> Callable[[State, Any, Stream], Any]:
    """`batch` rows of ``problem.data``, with replacement, on the State's device."""
    if batch < 1:
        raise ValueError(f"batch must be at least 1, not {batch}")

    def collect(state: State, problem: Any, rng: Stream) -> Any:
        data = problem.data
        return data.rows(torch.randint(len(data), (batch,), generator=rng.torch())).to(state.device)

    return collect
