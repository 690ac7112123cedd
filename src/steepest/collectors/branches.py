"""Answers that fork where thinking turns hard: more of the same group, with a common beginning."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ..core.batch import Batch, pick
from ..core.state import State
from ..core.stream import Stream
from .experience import Collect, positive
from .generate import Gather, asked_of, generate, joined
from .prefixes import continued


def branched(forks: int, gather: Gather = generate) -> Gather:
    """`gather`, and to each prompt at most `forks` answers more, which go on from where a hard unit of thought begins, behind an
    easy one or first of all. Each such place forks with the chance 1/2 + the entropy at the unit's end - that at its start, in
    shares of the greatest there can be. arXiv:2510.10207

    The problem has ``units(prompts, tokens, mask)``: where easy units begin and where hard ones do [N, T], and whether each
    answer's units are what they say [N]. These are columns `easy` and `hard` of the batch, and ``info["fits"]``;
    ``info["forked"]`` is the share of answers that are forks. Answers to one prompt are adjacent rows.
    """
    positive(forks=forks)

    def maker(*, prompts: int, group: int) -> Collect:
        plain = gather(prompts=prompts, group=group)

        def collect(state: State, problem: Any, rng: Stream) -> Batch:
            batch = plain(state, problem, rng)
            easy, hard, _ = marks(problem, batch)
            rows, place = drawn(state, batch, easy, hard, (rng / "forks").torch(), forks)
            many, told = len(batch), batch.info
            if len(rows):
                asked = pick(asked_of(batch), rows)
                more = continued(state, problem, asked, batch.action.cpu()[rows], place + 1, rng / "branches")
                batch = joined(batch, more)
                batch = batch.rows(batch.key.argsort(stable=True))
            easy, hard, fits = marks(problem, batch)
            info = {**told, "fits": fits, "forked": 1 - many / len(batch), "easy": float(easy.any(1).float().mean())}
            return batch.having(extra={**batch.extra, "easy": easy, "hard": hard}, info=info)

        return collect

    return maker


def marks(problem: Any, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """What ``problem.units`` says, on the batch's device."""
    found = problem.units(asked_of(batch), batch.action.cpu(), batch.mask.cpu())
    easy, hard, fits = (x.to(batch.mask.device) for x in found)
    return easy * batch.mask, hard * batch.mask, fits


@torch.no_grad()
def drawn(state: State, batch: Batch, easy: Tensor, hard: Tensor, generator: torch.Generator, forks: int) -> tuple[Tensor, Tensor]:
    """Which rows fork [F] and behind which token [F], on the CPU."""
    entropy = state.policy.logp_entropy(batch.obs, batch.action, batch.mask)[1]
    spread = (entropy / math.log(len(state.policy.tokenizer))).tolist()
    chance = torch.rand(hard.shape, generator=generator).tolist()
    rows, places, spent = list[int](), list[int](), dict[int, int]()
    for n, (key, length) in enumerate(zip(batch.key.tolist(), batch.length.long().tolist(), strict=True)):
        units = (easy + hard)[n].nonzero().squeeze(1).tolist()
        for start, end, last in zip(units, [*units[1:], length], [None, *units], strict=False):
            turns = bool(hard[n, start]) and (last is None or not bool(hard[n, last])) and start + 1 < end
            if turns and spent.get(key, 0) < forks and chance[n][start] < 0.5 + spread[n][end - 1] - spread[n][start + 1]:
                rows, places, spent[key] = [*rows, n], [*places, start], spent.get(key, 0) + 1
    return torch.tensor(rows, dtype=torch.long), torch.tensor(places, dtype=torch.long)
