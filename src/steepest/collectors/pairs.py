"""Preference pairs for any problem that can compare two answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import singledispatch
from typing import Any

import torch

from ..core.pairs import Pairs, Preferences
from ..core.problem import Language
from ..core.state import State
from ..core.stream import Stream
from .generate import repeat, scored

Collector = Callable[[State, Any, Stream], Pairs]


def pairs(*, count: int = 64) -> Collector:
    """`count` pairs, from what the problem has compared already or, on a Language problem, from `state.reference`:
    two answers to each of `count` prompts, ranked by score; ties are dropped."""
    if count < 1:
        raise ValueError(f"count must be at least 1, not {count}")
    return lambda state, problem, rng: compare(problem, state, rng, count)


def irrelevant(*, count: int = 64) -> Collector:
    """As `pairs`, but what is rejected is what was chosen for another prompt: fluent, and unlikely here."""
    collect = pairs(count=count)

    def elsewhere(state: State, problem: Any, rng: Stream) -> Pairs:
        found = collect(state, problem, rng)
        return replace(found, rejected=found.chosen.roll(1, 0), rejected_mask=found.chosen_mask.roll(1, 0))

    return elsewhere


@singledispatch
def compare(problem: Any, state: State, rng: Stream, count: int) -> Pairs:
    raise TypeError(f"{type(problem).__name__} has no pairs: it is neither a Preferences nor a Language problem")


@compare.register
def _(problem: Preferences, state: State, rng: Stream, count: int) -> Pairs:
    return moved(problem.pairs(count, rng.torch()), state.device)


@compare.register
@torch.no_grad()
def _(problem: Language, state: State, rng: Stream, count: int) -> Pairs:
    device = state.device
    asked = repeat(problem.prompts(count, (rng / "prompts").torch()), 2)
    obs = {"ids": asked.ids.to(device), "mask": asked.mask.to(device)}
    tokens, mask, _ = state.reference.sample(obs, (rng / "tokens").torch(device))
    score = scored(problem, asked, tokens.cpu(), mask.cpu())[0].to(device)
    first, second = score[0::2], score[1::2]
    decided = (first != second).nonzero().squeeze(1)
    won = 2 * decided + (second > first)[decided].long()
    lost = 4 * decided + 1 - won  # the other row of the same prompt
    weight = torch.full((len(decided),), 1 / max(1, len(decided)), device=device)
    return Pairs({k: x[won] for k, x in obs.items()}, tokens[won], mask[won], tokens[lost], mask[lost], weight)


def moved(pairs: Pairs, device: torch.device) -> Pairs:
    """The same pairs of a finite problem on another device."""
    columns = (pairs.obs, pairs.chosen, pairs.chosen_mask, pairs.rejected, pairs.rejected_mask, pairs.weight)
    return pairs if pairs.weight.device == device else Pairs(*(x.to(device) for x in columns))
