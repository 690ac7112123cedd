"""Answers, and what a construction is worth to each prompt: scores with it forced against scores with it forbidden."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..core.batch import Batch
from ..core.problem import Language, Prompts
from ..core.state import State
from ..core.stream import Stream
from .experience import Collect
from .generate import Gather, asked_of, generate, repeat
from .prefixes import continued


def beside_contrast(count: int = 4, gather: Gather = generate) -> Gather:
    """The same answers, and ``info["used"]`` [N], 1 for an answer with the construction, ``info["gain"]`` [N], the mean score of
    `count` answers to its prompt that begin with the construction, less that of as many that begin without.

    The problem has `openings` (the tokens with which answers with and without begin) and ``constructed(tokens, mask) -> [N]``.
    """
    if count < 2:
        raise ValueError(f"each side of a contrast needs at least 2 answers to a prompt, not {count}")

    def kept(*, prompts: int, group: int) -> Collect:
        collect = gather(prompts=prompts, group=group)

        def both(state: State, problem: Any, rng: Stream) -> Batch:
            batch = collect(state, problem, rng)
            used = problem.constructed(batch.action.cpu(), batch.mask.cpu()).to(batch.mask)
            key, of = batch.key.cpu().unique(return_inverse=True)
            first = torch.stack([(of == n).nonzero()[0, 0] for n in range(len(key))])
            asked = repeat(asked_of(batch.rows(first.to(batch.key.device))), count)
            sides = [
                opened(state, problem, asked, opening, rng / name).view(-1, count).mean(1)
                for name, opening in zip(("with", "without"), problem.openings, strict=True)
            ]
            gain = (sides[0] - sides[1])[of].to(batch.mask)
            info = {"used": used, "gain": gain, "use": float(used.mean())}
            return batch.having(info=batch.info | info)

        return both

    return kept


def opened(state: State, problem: Language, asked: Prompts, opening: tuple[int, ...], rng: Stream) -> Tensor:
    """Scores [N] of one answer to each prompt that begins with the tokens `opening`."""
    head = torch.tensor(opening).expand(len(asked.ids), -1)
    return continued(state, problem, asked, head, torch.full((len(head),), len(opening)), rng).score.cpu()
