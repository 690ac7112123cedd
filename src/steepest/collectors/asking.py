"""Which prompts of a known set are asked next: by epochs, by weight, by category, by stages of their length.

Each is an `Ask` of `generate`: (state, problem, count, rng) -> prompts. What they weigh by is a function (state, problem) ->
a weight of each prompt [size], not negative; weights multiply.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..core.problem import Pool, Prompts
from ..core.state import State
from ..core.stream import Stream
from .generate import Ask

Weigh = Callable[[State, Any], Tensor]
Size = Callable[[Any], Tensor]  # a number of each prompt: its length, its difficulty


def pool(problem: Any) -> Pool:
    """The problem; raises TypeError where its prompts are not known beforehand."""
    if not isinstance(problem, Pool):
        raise TypeError(
            f"prompts are chosen from a known set, and {type(problem).__name__} draws new ones without end: take a set of them, "
            "problems.fixed.Fixed(problem, count), or a data set"
        )
    return problem


def epochs() -> Ask:
    """Every prompt once in an order drawn anew, then again: no prompt is asked twice before all were asked once.

    The place in the order follows from the step, so that nothing is remembered: it is for collectors that ask once a step and
    for the same count every time.
    """

    def ask(state: State, problem: Pool, count: int, rng: Stream) -> Prompts:
        size, first = pool(problem).size, state.step * count
        place = torch.arange(first, first + count)
        orders = {
            epoch: torch.randperm(size, generator=Stream(rng.path[0], "epoch", epoch).torch())  # the seed's, whatever the step
            for epoch in (place // size).unique().tolist()
        }
        return problem.pick(torch.stack([orders[n // size][n % size] for n in place.tolist()]))

    return ask


def by_weight(*weigh: Weigh, repeated: bool = False) -> Ask:
    """Prompts in proportion to the product of weights.

    repeated  a prompt may be asked several times a step; else each at most once, and where fewer than asked for have a weight,
              all of these are asked and the others fill up, evenly
    """

    def ask(state: State, problem: Pool, count: int, rng: Stream) -> Prompts:
        whole = torch.ones(pool(problem).size)
        for one in weigh:
            whole = whole * checked(one(state, problem), problem)
        return problem.pick(choose(whole, count, rng, repeated=repeated))

    return ask


def checked(weight: Tensor, problem: Pool) -> Tensor:
    weight = weight.detach().float().cpu()
    if weight.shape != (problem.size,) or not bool((torch.isfinite(weight) & (weight >= 0)).all()):
        raise ValueError(
            f"weights of prompts are {problem.size} finite numbers, none negative, not {list(weight.shape)} in "
            f"[{float(weight.min()):g}, {float(weight.max()):g}]"
        )
    return weight


def choose(weight: Tensor, count: int, rng: Stream, *, repeated: bool = False) -> Tensor:
    """`count` rows, each with a probability in proportion to its weight [size]; see `by_weight`."""
    some = int((weight > 0).sum())
    if repeated:
        if not some:
            raise ValueError("no prompt has a weight: a filter leaves none over; widen it")
        return torch.multinomial(weight, count, replacement=True, generator=rng.torch())
    if count > len(weight):
        raise ValueError(f"{count} different prompts are asked of a set of {len(weight)}: lower prompts, or take a larger set")
    found = torch.multinomial(weight, min(count, some), generator=rng.torch()) if some else torch.zeros(0, dtype=torch.long)
    if len(found) == count:
        return found
    left = torch.ones(len(weight)).index_fill_(0, found, 0.0)
    return torch.cat([found, torch.multinomial(left, count - len(found), generator=(rng / "others").torch())])


# ------------------------------------------------------------------------------------ weights


def failures(tracker: str = "tracker", *, floor: float = 0.0) -> Weigh:
    """1 - success rate + floor, of a `memory.Tracker` of that name in State: what fails often is asked often (Kimi k1.5,
    arXiv:2501.12599, section 2.3.3)."""
    return lambda state, problem: 1 - getattr(state, tracker).read() + floor


def uncertain(tracker: str = "tracker", *, floor: float = 0.05) -> Weigh:
    """The deviation of a single reward, sqrt(v (1 - v)), + floor (SPO)."""

    def weigh(state: State, problem: Pool) -> Tensor:
        rate = getattr(state, tracker).read()
        return (rate * (1 - rate)).clamp(min=0).sqrt() + floor

    return weigh


def solved(low: float, high: float, tracker: str = "tracker", *, seen: int = 1) -> Weigh:
    """1 where the success rate lies in [low, high] or rests on fewer than `seen` answers, else 0: neither what is always right
    nor what is never right teaches a group anything."""
    if not 0 <= low <= high <= 1:
        raise ValueError(f"success rates are kept from low to high, 0 <= low <= high <= 1, not {low} and {high}")

    def weigh(state: State, problem: Pool) -> Tensor:
        memory = getattr(state, tracker)
        rate = memory.read()
        return (((rate >= low) & (rate <= high)) | (memory.seen < seen)).float()

    return weigh


def hard(tracker: str = "tracker", *, cap: float = 10.0) -> Weigh:
    """1 / success rate, at most `cap`: what was hard before (QwenLong-L1's retrospective sampling, arXiv:2505.17667)."""
    if not cap >= 1:
        raise ValueError(f"cap is the weight of a prompt that was never answered rightly, at least 1, not {cap}")
    return lambda state, problem: 1 / getattr(state, tracker).read().clamp(min=1 / cap)


def softmax_of(bandit: str = "bandit", *, tau: float = 1.0) -> Weigh:
    """A category with probability softmax(Q / tau), then one of its prompts, evenly: of a `memory.Bandit` of that name in State
    (SEC)."""
    if not tau > 0:
        raise ValueError(f"tau must be positive, not {tau}")

    def weigh(state: State, problem: Pool) -> Tensor:
        memory = getattr(state, bandit)
        share = (memory.read() / tau).softmax(0) / torch.bincount(memory.of, minlength=len(memory.value))
        return share[memory.of]

    return weigh


def between(low: float, high: float, size: Size | None = None) -> Weigh:
    """1 where low < size <= high, else 0. size: of each prompt; None: its tokens, see `lengths`."""

    def weigh(state: State, problem: Pool) -> Tensor:
        found = (size or lengths)(problem)
        return ((found > low) & (found <= high)).float()

    return weigh


def lengths(problem: Pool, rows: int = 1024) -> Tensor:
    """Tokens of each prompt [size]; a problem may know them (`lengths`)."""
    if hasattr(problem, "lengths"):
        return problem.lengths
    parts = torch.arange(problem.size).split(rows)
    return torch.cat([problem.pick(part).mask.sum(1) for part in parts])


# ------------------------------------------------------------------------------------ stages


def staged(
    bounds: Sequence[float], ends: Sequence[int], *, size: Size | None = None, share: float = 0.0, again: Weigh | None = None
) -> Ask:
    """Prompts of growing size: stage k takes those with bounds[k - 1] < size <= bounds[k], and in part hard ones of before.

    bounds  the largest size of each stage, growing
    ends    the step before which each stage but the last ends, growing
    size    of each prompt; None: its tokens
    share   of the prompts of a step that come from earlier stages
    again   what these are weighed by; None: evenly. QwenLong-L1: `hard`
    """
    if list(bounds) != sorted(set(bounds)) or not bounds:
        raise ValueError(f"bounds must grow, not {tuple(bounds)}: each stage takes what lies between the one before and its own")
    if list(ends) != sorted(set(ends)) or len(ends) != len(bounds) - 1 or any(end < 1 for end in ends):
        raise ValueError(f"{len(bounds)} stages end before {len(bounds) - 1} steps that grow from 1 on, not {tuple(ends)}")
    if not 0 <= share < 1:
        raise ValueError(f"share must lie in [0, 1), not {share}")

    def ask(state: State, problem: Pool, count: int, rng: Stream) -> Prompts:
        stage = sum(state.step >= end for end in ends)
        low, high = bounds[stage - 1] if stage else -math.inf, bounds[stage]
        found = (size or lengths)(pool(problem))
        now = (found > low) & (found <= high)
        if not bool(now.any()):
            raise ValueError(f"no prompt of stage {stage} has a size above {low:g} and up to {high:g}: move the bounds")
        before = (found <= low).float() * (checked(again(state, problem), problem) if again else 1)
        old = min(round(share * count), int((before > 0).sum())) if stage else 0
        taken = choose(before, old, rng / "again") if old else torch.zeros(0, dtype=torch.long)
        rest = choose(now.float(), count - old, rng / "now", repeated=count - old > int(now.sum()))
        return problem.pick(torch.cat([taken, rest]))

    return ask
