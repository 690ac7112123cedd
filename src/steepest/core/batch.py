"""What was collected: N trajectories of T decisions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor


def pick(tree: Any, index: Tensor | slice) -> Any:
    """Rows `index` of every tensor in a tree (see `each`)."""
    return each(tree, lambda x: x[index])


def each(tree: Any, fn: Callable[[Tensor], Tensor]) -> Any:
    """`fn` of every tensor in a tree of dicts, tuples and frozen records; anything else stays as it is."""
    if isinstance(tree, Tensor):
        return fn(tree)
    if isinstance(tree, dict):
        return {name: each(part, fn) for name, part in tree.items()}
    if isinstance(tree, tuple):
        return tuple(each(part, fn) for part in tree)
    if is_dataclass(tree) and not isinstance(tree, type):
        return replace(tree, **{f.name: each(getattr(tree, f.name), fn) for f in fields(tree)})
    return tree


def at_end(value: Tensor, mask: Tensor) -> Tensor:
    """One number for each trajectory [N], on its last decision; 0 on the others [N, T]."""
    last = mask.sum(1, keepdim=True).long() - 1
    return torch.zeros_like(mask).scatter_(1, last, value[:, None].to(mask))


class Absent(LookupError):
    """A column of a batch that nobody wrote."""


class Columns(dict[str, Any]):
    """Columns by name. Asked for one that is not there, it says which are."""

    def __missing__(self, name: str) -> Any:
        raise Absent(
            f"the batch has no column {name!r} (it has {', '.join(map(repr, sorted(self))) or 'none'}). A collector, `select` or "
            "`credit` that runs before has to write it, and what runs in between has to keep it"
        )


@dataclass(frozen=True)
class Batch:
    """N trajectories (responses, episodes, denoising chains) of T decisions (tokens, steps).

    Frozen: a part never edits a batch, it returns ``batch.having(advantage=...)``.

    obs        what the policy saw: a tensor [N, T, ...], or a tree of tensors [N, ...] (a prompt)
    action     what it decided [N, T, ...]
    logp       log-probability under the policy that acted [N, T]; None where that policy is the one
               being trained, so that the first update needs no extra forward pass (the ratio is 1)
    reward     [N, T]
    mask       [N, T] float, 1 where a decision was made
    key        [N] long: which prompt, start state or environment
    advantage  [N, T] how much better than expected           (written by `credit`)
    value      [N, T] the critic's estimate when it acted     (written by `credit`)
    target     [N, T] what the critic should have said        (written by `credit`)
    weight     [N, T] the share of each decision in the loss  (written by `reduce`)
    acted      the distribution that acted, its tensors [N, T, ...]; where a loss needs a divergence from it in closed form
               (written by the engine)
    extra      more columns [N, T] by name, for the system's own loss (written by `select` or `credit`)
    info       more tensors [N, ...] by name, e.g. `next_obs`, `terminated`, `truncated`; and floats, which
               the engine reports as metrics of the step
    """

    obs: Any
    action: Any
    logp: Tensor | None
    reward: Tensor
    mask: Tensor
    key: Tensor
    # None until the slot that writes them has run
    advantage: Tensor = None  # type: ignore[assignment]
    value: Tensor = None  # type: ignore[assignment]
    target: Tensor = None  # type: ignore[assignment]
    weight: Tensor = None  # type: ignore[assignment]
    acted: Any = None
    extra: dict[str, Tensor] = field(default_factory=dict)
    info: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("extra", "info"):
            object.__setattr__(self, name, Columns(getattr(self, name)))

    @property
    def score(self) -> Tensor:
        """Undiscounted return of each trajectory [N]."""
        return (self.reward * self.mask).sum(1)

    @property
    def length(self) -> Tensor:
        """Decisions made in each trajectory [N]."""
        return self.mask.sum(1)

    def __len__(self) -> int:
        return len(self.mask)

    def having(self, **new: Any) -> Batch:
        return replace(self, **new)

    def rows(self, index: Tensor | slice) -> Batch:
        return Batch(*(pick(getattr(self, f.name), index) for f in FIELDS))

    def split(self, size: int) -> Iterator[Batch]:
        """Consecutive pieces of at most `size` trajectories."""
        for start in range(0, len(self), size):
            yield self.rows(slice(start, start + size))

    def decisions(self) -> Batch:
        """The same decisions as N*T trajectories of one: for policies that see one `obs` at a time."""
        n, t = self.mask.shape

        def flat(x: Tensor) -> Tensor:
            return x.reshape(n * t, 1, *x.shape[2:])

        own = {f.name: each(getattr(self, f.name), flat) for f in FIELDS if f.name not in ("key", "info")}
        return Batch(**own, key=self.key.repeat_interleave(t), info={})

    def check(self) -> Batch:
        """The batch itself, once it is known to be sound.

        Raises ValueError where shapes disagree, a trajectory has no decision, or a reward or
        log-probability is not finite; the message names the first offending index.
        """
        shape = self.mask.shape
        if len(shape) != 2 or len(self.mask) == 0:
            raise ValueError(f"batch.mask must be [N, T] with N > 0, not {list(shape)}: the collector made no trajectory")
        for name in ("logp", "reward"):
            x = getattr(self, name)
            if x is None:
                continue
            if x.shape != shape:
                raise ValueError(
                    f"batch.{name} has shape {list(x.shape)}, but mask has {list(shape)}: "
                    f"give one number for each of {shape[0]} trajectories x {shape[1]} decisions"
                )
            bad = ~torch.isfinite(x) & (self.mask > 0)
            if bad.any():
                n, t = (int(i) for i in bad.nonzero()[0])
                raise ValueError(
                    f"batch.{name}[{n}, {t}] is {float(x[n, t])}: {int(bad.sum())} of {int(self.mask.sum())} decisions "
                    "are not finite. Look at the reward function or environment (reward) or at the last update (logp)"
                )
        for name, x in self.extra.items():
            if x.shape != shape:
                raise ValueError(
                    f"column {name!r} of the batch has shape {list(x.shape)}, but mask has {list(shape)}: a column has one number "
                    "for each trajectory and decision; what is one number a trajectory belongs into `info`, or is expanded"
                )
        if self.key.shape != shape[:1]:
            raise ValueError(f"batch.key has shape {list(self.key.shape)}: give one key for each of {shape[0]} trajectories")
        empty = (self.mask.sum(1) == 0).nonzero()
        if len(empty):
            raise ValueError(f"trajectory {int(empty[0])} of the batch has no decision: its mask row is all zero")
        return self


FIELDS = fields(Batch)
