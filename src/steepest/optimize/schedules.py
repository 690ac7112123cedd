"""Learning rates that follow the step counter: nothing is remembered, so nothing can be forgotten. And one for a second run."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

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


def refine_schedule(norms: Tensor, *, power: float = 2.0, width: float = 0.1) -> Tensor:
    """The step sizes [T] that a finished run's gradient norms [T] ask of the next run of T steps, the largest being 1.

    G = the norms' running median over `width` of the run, its ends repeated; w = G^-power; eta_t = w_t sum_{p > t} w_p. Constant
    norms give linear decay, T - 1 - t for t = 0 .. T - 1. arXiv:2310.07831, algorithm 1

    norms  of step 0 .. T - 1, at least 10; one that is 0 or not finite counts as the smallest positive one
    power  2 for SGD, with Euclidean norms; 1 for Adam, with sums of absolute values
    width  of the median, as a share of the run; 0: none
    """
    if norms.ndim != 1 or len(norms) < 10:
        raise ValueError(f"a schedule is refined from the norms of at least 10 steps [T], not {list(norms.shape)}")
    if not 0 <= width <= 1 or not power > 0:
        raise ValueError(f"width must lie in [0, 1] and power be positive, not {width} and {power}")
    sound = torch.isfinite(norms) & (norms > 0)
    if not sound.any():
        raise ValueError("no norm is positive and finite: the run that was recorded did not learn or diverged at once")
    smooth = torch.where(sound, norms, norms[sound].min()).double()
    half = int(width * len(norms)) // 2
    padded = torch.cat([smooth[:1].repeat(half), smooth, smooth[-1:].repeat(half)])
    weight = padded.unfold(0, 2 * half + 1, 1).median(-1).values.pow(-power)
    eta = weight * (weight.sum() - weight.cumsum(0)).clamp(min=0)
    eta[-1] = 0.0
    return eta / eta.max()
