"""Prices of constraints, which rise while a constraint is broken and fall while it holds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ..core.batch import Batch
from ..core.state import State
from ..core.stream import Stream
from ..core.system import System
from .epochs import Objective


class Multiplier(nn.Module):
    """One number that is never below `floor`. `value` []"""

    def __init__(self, start: float, *, floor: float = 0.0):
        super().__init__()
        if not start >= floor:
            raise ValueError(f"a multiplier starts at its floor {floor} or above, not at {start}")
        self.floor = floor
        self.value = nn.Parameter(torch.tensor(float(start)))

    @torch.no_grad()
    def write(self, value: float) -> None:
        self.value.fill_(max(self.floor, value))

    @torch.no_grad()
    def rise(self, by: float) -> None:
        """`by` more, or as much less as the floor allows: dual ascent, `by` being a rate times how far a bound is exceeded."""
        self.value.add_(by).clamp_(min=self.floor)

    def descend(self, slope: Tensor | float, optimizer: torch.optim.Optimizer) -> None:
        """One step of the multiplier's own optimizer against `slope`, then back above the floor."""
        self.value.grad = torch.as_tensor(slope, dtype=self.value.dtype, device=self.value.device)
        optimizer.step()
        self.write(float(self.value.detach()))


def learning(system: System, *, start: float, lr: float, name: str = "penalty", floor: float = 0.0) -> System:
    """The same system with a `Multiplier` in its State and an Adam for it, both called `name`."""
    if not lr > 0:
        raise ValueError(f"the learning rate of a multiplier must be positive, not {lr}")
    Multiplier(start, floor=floor)  # refuses before any work

    def init(problem: Any, rng: Stream) -> State:
        state = system.init(problem, rng)
        multiplier = Multiplier(start, floor=floor)
        setattr(state, name, multiplier)
        state.optimizers[name] = torch.optim.Adam(multiplier.parameters(), lr)
        return state

    return replace(system, init=init)


@torch.no_grad()
def moved(state: State, batch: Batch) -> Tensor:
    """KL(old || new) in each state of a batch whose `acted` is known [N, T], nats."""
    return batch.acted.kl(state.policy.distribution(batch.obs))


@dataclass(frozen=True)
class Around(ABC):
    """An objective that does something of its own with each minibatch: `pull` says what."""

    objective: Objective

    def weigh(self, batch: Batch) -> Batch:
        return self.objective.weigh(batch)

    def parts(self, state: State, batch: Batch, size: int) -> Iterable[Batch]:
        return self.objective.parts(state, batch, size)

    def __call__(self, state: State, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        return self.objective(state, batch)

    def value(self, state: State, batch: Batch) -> Tensor:
        return self.objective.value(state, batch)

    def compiled(self, state: State, batch: Batch) -> Any:
        return None  # whole passes know no minibatch

    @abstractmethod
    def pull(self, state: State, batch: Batch, report: bool) -> dict[str, Tensor]: ...


@dataclass(frozen=True)
class Priced(Around):
    """An objective that, for each minibatch, also moves `state.penalty` by how far the policy is: its loss is
    penalty * (bound - scale * statistic(KL(old || new))), so the price rises while that is above the bound.

    statistic  KL [N, T] -> [], e.g. `torch.max`
    """

    bound: float
    scale: float
    statistic: Callable[[Tensor], Tensor]

    def pull(self, state: State, batch: Batch, report: bool) -> dict[str, Tensor]:
        metrics = self.objective.pull(state, batch, report)
        state.penalty.descend(self.bound - self.scale * self.statistic(moved(state, batch)), state.optimizers["penalty"])
        return metrics
