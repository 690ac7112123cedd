"""Answers that say something: groups that agree are drawn again."""

from __future__ import annotations

from typing import Any

import torch

from ..core.batch import Batch
from ..core.state import State
from ..core.stream import Stream
from .experience import Collect, positive
from .generate import Gather, generate, joined


def refilled(rounds: int = 10, gather: Gather = generate) -> Gather:
    """Dynamic sampling: ask again, up to `rounds` times, until every prompt of the batch has answers of unequal score. Answers to
    one prompt that all earn the same tell nothing apart. arXiv:2503.14476 sec. 3.2

    The batch is as large as ever: what is still missing after the last round is filled with groups that agree. Reported are the
    `rounds` and, of all answers that were sampled, the share `kept` because they say something.
    """
    positive(rounds=rounds)

    def collector(*, prompts: int, group: int) -> Collect:
        ask = gather(prompts=prompts, group=group)
        wanted = prompts * group

        def collect(state: State, problem: Any, rng: Stream) -> Batch:
            telling, rest = list[Batch](), list[Batch]()
            for tried in range(1, rounds + 1):
                batch = ask(state, problem, rng / tried)
                tells = unequal(batch)
                telling += [batch.rows(tells)] * bool(tells.any())
                rest += [batch.rows(~tells)] * bool((~tells).any())
                found = sum(map(len, telling))
                if found >= wanted:
                    break
            full = joined(*telling, *rest)
            info = {**full.info, "rounds": float(tried), "kept": min(found, wanted) / len(full)}
            return full.rows(slice(0, wanted)).having(info=info)

        return collect

    return collector


def unequal(batch: Batch) -> torch.Tensor:
    """Whether the answers to the same prompt differ in score [N]."""
    _, index = batch.key.unique(return_inverse=True)
    score = batch.score
    high, low = (score.new_zeros(len(score)).scatter_reduce(0, index, score, how, include_self=False) for how in ("amax", "amin"))
    return (high > low)[index]
