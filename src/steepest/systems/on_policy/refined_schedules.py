"""Refined schedules: run once, look at the gradients' norms, and run again with the learning rates that they ask for.

Paper.  Defazio, Cutkosky, Mehta and Mishchenko, When, Why and How Much? Adaptive Learning Rate Scheduling by Refinement, 2023.
        arXiv 2310.07831.
Claim.  The last iterate of the refined run is better than that of a linearly decaying one, at the same base rate and length.
Idea.   eta_t = w_t sum_{p > t} w_p, w_t = |g_t|^-2 of the first run, smoothed; constant norms: linear decay
State.  policy: the weights [d]; runs: the norms of the first run and the schedule of the second [length]
Note.   Supervised learning, as in the paper. The first run decays linearly, the refined run begins anew at step `length`. PPO has
        linear decay as its `anneal`; `optimize.schedules.refine_schedule` takes the norms of any run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from ...collectors.exact import exact
from ...core.state import State
from ...core.stream import Stream
from ...core.system import System
from ...optimize.schedules import refine_schedule
from ...problems.regression import LogisticModel

Schedule = Callable[[int, int], float]  # step, length -> share of the base rate


class Weights(nn.Module):
    """A linear score x . weights [d], which are 0 at first."""

    weights: Tensor

    def __init__(self, features: int):
        super().__init__()
        self.register_buffer("weights", torch.zeros(features, dtype=torch.float64))


class Runs(nn.Module):
    """Of the first run the gradient norms [T], for the second the shares of the base rate [T]."""

    norms: Tensor
    shares: Tensor

    def __init__(self, length: int):
        super().__init__()
        for name in ("norms", "shares"):
            self.register_buffer(name, torch.zeros(length, dtype=torch.float64))


def linear(step: int, length: int) -> float:
    """1 at first, 0 at `length`."""
    return 1 - step / length


def constant(step: int, length: int) -> float:
    """1."""
    return 1.0


def refined_schedules(
    *, lr: float = 1.0, length: int = 1000, batch: int = 1, first: Schedule = linear, width: float = 0.1
) -> System:
    """SGD in two runs of `length` steps each, the second with a schedule made from the first one's gradients.

    lr      the largest rate of either run
    length  steps of a run, at least 10; train for twice as many. Half of them: the first run alone
    batch   examples of a step, drawn with replacement
    first   schedule of the first run: (step, length) -> share of `lr`; linear or constant
    width   of the running median, as a share of the run (paper: 0.1)
    """
    if not lr > 0 or length < 10 or batch < 1:
        raise ValueError(f"lr > 0, length >= 10 and batch >= 1, not {lr}, {length} and {batch}")

    def init(problem: Any, rng: Stream) -> State:
        return State(policy=Weights(problem.model.x.shape[1]), runs=Runs(length))

    def collect(state: State, problem: Any, rng: Stream) -> LogisticModel:
        model = exact(state, problem, rng)
        chosen = torch.randint(len(model.y), (batch,), generator=rng.torch())
        return replace(model, x=model.x[chosen], y=model.y[chosen])

    def learn(state: State, data: LogisticModel, rng: Stream) -> dict[str, float]:
        weights, runs, step = state.policy.weights, cast(Runs, state.runs), state.step % length
        if state.step == length:
            weights.zero_()
            runs.shares.copy_(refine_schedule(runs.norms, power=2.0, width=width))  # <- the idea
        leaf = weights.clone().requires_grad_()
        loss = data.loss(leaf)
        slope = torch.autograd.grad(loss, leaf)[0]
        if state.step < length:
            runs.norms[step] = slope.norm()
        share = first(step, length) if state.step < length else float(runs.shares[step])
        weights -= lr * share * slope
        return {"loss": float(loss.detach()), "lr": lr * share, "grad_norm": float(slope.norm())}

    return System(init, collect, learn)
