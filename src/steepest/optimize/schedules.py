"""Learning rates that follow the step counter: nothing is remembered, so nothing can be forgotten."""

from __future__ import annotations

from typing import Any

from ..core.batch import Batch
from ..core.state import State
from ..core.stream import Stream
from .epochs import Objective, Update


def annealed(update: Update, *, lr: float, steps: int, optimizer: str = "policy") -> Update:
    """The same update with a learning rate that falls linearly from `lr` to 0 over `steps` steps of training."""
    if steps < 1:
        raise ValueError(f"a learning rate is annealed over at least 1 step, not {steps}")

    def scheduled(state: State, objective: Objective, batch: Batch, rng: Stream) -> dict[str, Any]:
        rate = lr * max(0.0, 1 - state.step / steps)
        for group in state.optimizers[optimizer].param_groups:
            group["lr"] = rate
        return {**update(state, objective, batch, rng), "lr": rate}

    return scheduled
