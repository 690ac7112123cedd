"""The ordinary update: shuffle, slice, step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from ..core import native
from ..core.batch import Batch
from ..core.recurrent import Seen
from ..core.state import State
from ..core.stream import Stream


class Objective(Protocol):
    """What an engine gives an update: weights for a whole minibatch, then the loss of any part of it."""

    def weigh(self, batch: Batch) -> Batch: ...

    def parts(self, state: State, batch: Batch, size: int) -> Iterable[Batch]:
        """A weighed minibatch in pieces of at most `size` rows whose losses add up to its own."""

    def __call__(self, state: State, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The scalar loss, with gradient, and metrics as scalars that add up over the parts of a minibatch."""

    def value(self, state: State, batch: Batch) -> Tensor:
        """The loss alone, where nobody would read the metrics."""

    def pull(self, state: State, batch: Batch, report: bool) -> dict[str, Tensor]:
        """Add the gradient of the loss to the parameters'; -> the metrics, if they are to `report`."""

    def compiled(self, state: State, batch: Batch) -> Any:
        """What does whole passes natively (`engines.compiled.Compiled`), or None."""


Update = Callable[[State, Objective, Batch, Stream], dict[str, Any]]


@dataclass(frozen=True)
class Epochs:
    """Pass `count` times over the batch in shuffled `minibatches`, one optimizer step for each.

    count        passes over the batch
    minibatches  optimizer steps a pass; where networks remember, one for each environment at most
    micro        rows whose gradient is computed at once; None: the whole minibatch. The gradient is the same
    max_norm     the gradient is scaled down to this Euclidean norm; inf: never
    max_kl       stop at the end of a pass in which the mean estimated KL(old || new) exceeds this; None: never
    optimizer    which of the State's optimizers steps
    """

    count: int = 1
    minibatches: int = 1
    micro: int | None = None
    max_norm: float = 1.0
    max_kl: float | None = None
    optimizer: str = "policy"

    def __post_init__(self) -> None:
        for name in ("count", "minibatches", "micro"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")
        if not self.max_norm > 0:
            raise ValueError(f"max_norm must be positive, not {self.max_norm}; use inf to leave gradients alone")

    @property
    def single(self) -> bool:
        """One optimizer step a batch: the policy that acted is the one being trained."""
        return self.count == 1 and self.minibatches == 1

    def __call__(self, state: State, objective: Objective, batch: Batch, rng: Stream) -> dict[str, Any]:
        batch = apart(state, batch)
        rows = len(batch)
        # whole sequences are not cut: at most one minibatch for each environment
        minibatches = min(self.minibatches, rows) if isinstance(batch.obs, Seen) else self.minibatches
        if rows < minibatches:
            raise ValueError(f"a batch of {rows} rows cannot be cut into {self.minibatches} minibatches: collect more or cut fewer")
        optimizer = state.optimizers[self.optimizer]
        params = [p for group in optimizer.param_groups for p in group["params"]]
        size = -(-rows // minibatches)
        metrics: dict[str, Any] = {}
        for p in params:
            p.grad = None  # what `zero_grad` does, without its profiling
        compiled, moves = objective.compiled(state, batch) if self.micro is None else None, None
        if compiled is not None:
            for p in compiled.moved:
                p.grad = torch.zeros_like(p)
            moves = rule(optimizer, compiled.moved)
        for epoch in range(self.count):
            last = epoch == self.count - 1
            report = last or self.max_kl is not None
            order = None if self.single else torch.randperm(rows, generator=(rng / epoch).torch())
            if compiled is not None and moves is not None:
                sums, steps = compiled.learn(torch.arange(rows) if order is None else order, size, moves, self.max_norm)
            else:
                sums, steps = {}, 0
                shuffled = batch if order is None else batch.rows(order.to(batch.mask.device))
                for minibatch in shuffled.split(size):
                    minibatch = objective.weigh(minibatch)
                    for p in params:
                        p.grad = None  # what `zero_grad` does, without its profiling
                    for part in (minibatch,) if self.micro is None else objective.parts(state, minibatch, self.micro):
                        for name, number in objective.pull(state, part, report).items():
                            sums[name] = sums[name] + number if name in sums else number
                    norm = scale_down(params, self.max_norm)
                    if report:
                        sums["grad_norm"] = sums["grad_norm"] + norm if "grad_norm" in sums else norm
                    advance(optimizer)
                    steps += 1
            if report:
                metrics = {name: total / steps for name, total in sums.items()}
            if self.max_kl is not None and metrics["kl"] > self.max_kl:
                break
        return {name: float(number) for name, number in metrics.items()}


def apart(state: State, batch: Batch) -> Batch:
    """The batch as rows of which minibatches are drawn: single decisions where these stand alone, else whole trajectories."""
    return batch.decisions() if getattr(state.policy, "markov", False) else batch


def advance(optimizer: torch.optim.Optimizer) -> None:
    """``optimizer.step()``. That of a plain fused Adam takes ten times as long as its arithmetic on a small network, for hooks and
    checks that find nothing: it is done here without them."""
    if not plain(optimizer):
        optimizer.step()
        return
    with torch.no_grad():
        for group in optimizer.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            mine = [optimizer.state[p] for p in params]
            first, second, steps = ([s[name] for s in mine] for name in ("exp_avg", "exp_avg_sq", "step"))
            torch._foreach_add_(steps, 1)
            torch._fused_adam_(
                params, [p.grad for p in params], first, second, [], steps, lr=group["lr"], beta1=group["betas"][0],
                beta2=group["betas"][1], weight_decay=group["weight_decay"], eps=group["eps"], amsgrad=False, maximize=False,
                grad_scale=None, found_inf=None,
            )  # fmt: skip


def plain(optimizer: torch.optim.Optimizer) -> bool:
    """Whether it is a fused Adam without variants and hooks, whose moments exist: it has stepped before."""
    return without_variants(optimizer) and all(p in optimizer.state for group in optimizer.param_groups for p in group["params"])


def without_variants(optimizer: torch.optim.Optimizer) -> bool:
    """Whether it is a fused Adam and nothing else."""
    if type(optimizer) is not torch.optim.Adam or optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks:
        return False
    variants = ("amsgrad", "maximize", "differentiable", "decoupled_weight_decay")
    return all(
        group["fused"] and isinstance(group["lr"], float) and not any(group[name] for name in variants)
        for group in optimizer.param_groups
    )  # fmt: skip


def rule(optimizer: torch.optim.Optimizer, params: Sequence[Tensor]) -> tuple[tuple[float, ...], ...] | None:
    """What Adam does to `params`, which have gradients, for the kernels: addresses of each, its gradient, its moments and its step
    (they stay where the optimizer has them), its size and the constants. None where the optimizer is no plain fused Adam, does not
    hold them, or they are not what the kernels work on."""
    found: dict[Tensor, tuple[float, ...]] = {}
    for group in optimizer.param_groups if without_variants(optimizer) else ():
        found |= dict.fromkeys(group["params"], (group["lr"], *group["betas"], group["eps"], group["weight_decay"]))
    if not params or not all(p in found and p.grad is not None and native.fits(p, p.grad) for p in params):
        return None
    moves = []
    for p in params:
        mine = optimizer.state[p]
        if not mine:  # as it would be begun there
            mine |= {"step": torch.zeros(()), "exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p)}
        held = p, p.grad, mine["exp_avg"], mine["exp_avg_sq"], mine["step"]
        moves.append((*(0 if x is None else x.data_ptr() for x in held), p.numel(), *found[p]))
    return tuple(moves)


def scale_down(params: list[Tensor], max_norm: float) -> Tensor:
    """Scale the gradients so that their Euclidean norm is at most `max_norm`; -> the norm before.

    What `torch.nn.utils.clip_grad_norm_` does, without its sorting by device and type: a third of the time on small nets.
    """
    grads = [p.grad for p in params if p.grad is not None]
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads)))
    if max_norm < math.inf:
        torch._foreach_mul_(grads, (max_norm / (norm + 1e-6)).clamp_(max=1.0))
    return norm


def descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """One step of the optimizer down the gradient of `loss`."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()


def epochs(
    count: int = 1, *, minibatches: int = 1, micro: int | None = None, max_norm: float = 1.0, max_kl: float | None = None
) -> Epochs:
    """Shuffle, slice, step: see `Epochs`."""
    return Epochs(count, minibatches, micro, max_norm, max_kl)
