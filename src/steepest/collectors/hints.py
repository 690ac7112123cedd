"""Help for prompts that nobody can answer: a share of the solution in the prompt, and only where a whole group failed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..core.batch import Batch
from ..core.state import State
from ..core.stream import Stream
from .experience import Collect
from .generate import Gather, answers, asked_of, generate, joined

Mend = Callable[[State, Any, Batch, Stream], Batch]  # the rows of groups that failed -> what stands in their place


def helped(mend: Mend, *, start: int = 0, right: float = 1.0, plain: Gather = generate) -> Gather:
    """`plain`, and from step `start` on groups in which no answer is right are handed to `mend`.

    A column `hint` of the batch says which share of the solution an answer's prompt told. ``info["failed"]`` is the share of
    answers whose group failed without help, ``info["hint"]`` the mean share told.

    right  an answer with at least this score is right
    """

    def gather(*, prompts: int, group: int) -> Collect:
        first = plain(prompts=prompts, group=group)

        def collect(state: State, problem: Any, rng: Stream) -> Batch:
            batch = told(first(state, problem, rng), 0.0)
            lost = hopeless(batch, right)
            if state.step >= start and bool(lost.any()):
                batch = joined(batch.rows(~lost), mend(state, problem, batch.rows(lost), rng / "hints"))
                batch = batch.rows(batch.key.argsort(stable=True))
            shares = {"failed": float(lost.float().mean()), "hint": float(batch.extra["hint"][:, 0].mean())}
            return batch.having(info=batch.info | shares)

        return collect

    return gather


def hopeless(batch: Batch, right: float) -> Tensor:
    """Of each answer, whether nobody in its group is right [N] bool."""
    key, index = batch.key.unique(return_inverse=True)
    best = torch.full((len(key),), -torch.inf, device=index.device).scatter_reduce(0, index, batch.score, "amax")
    return best[index] < right


def hinted(state: State, problem: Any, batch: Batch, level: float, rng: Stream) -> Batch:
    """New answers to the same prompts, with the share `level` of each solution told: the problem has ``hint(prompts, level)``."""
    return told(answers(state, problem, problem.hint(asked_of(batch), level), rng), level)


def told(batch: Batch, level: float) -> Batch:
    return batch.having(extra=batch.extra | {"hint": torch.full_like(batch.mask, level)})


def refuse_levels(levels: Sequence[float]) -> None:
    """Raises ValueError unless they grow inside (0, 1)."""
    if not levels or list(levels) != sorted(set(levels)) or not (levels[0] > 0 and levels[-1] < 1):
        raise ValueError(
            f"the shares of a solution that hints tell must grow from above 0 to below 1, not {tuple(levels)}: "
            "at 1 the whole answer would stand in the prompt"
        )
