"""Rewards of a text's form, and several rewards as one. Each part of a mix is timed, capped and reported by its name."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .calls import Reward, graded


def exact(prompt: str, completion: str, answer: str) -> float:
    """1 if a completion is the answer, letter by letter; blanks at its ends do not matter."""
    return float(completion.strip() == answer.strip())


@dataclass(frozen=True)
class Matches:
    """1 if a whole completion matches a regular expression (Python's `re`, a dot matches line ends too), else 0.

    >>> Matches(r".*####\\s*[0-9]+")("q", "1 + 1 = 2\\n#### 2", "2")
    1.0
    """

    pattern: str

    def __post_init__(self) -> None:
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise ValueError(f"{self.pattern!r} is no regular expression: {error}") from error

    def __call__(self, prompt: str, completion: str, answer: str) -> float:
        return float(re.fullmatch(self.pattern, completion, re.DOTALL) is not None)


class Tagged:
    """1 if a completion is these tags, each once, in this order, with something in each and nothing but blanks between; else 0.

    >>> Tagged("think", "answer")("q", "<think>1 + 1</think> <answer>2</answer>", "2")
    1.0
    """

    def __init__(self, *names: str):
        if not names or not all(re.fullmatch(r"[A-Za-z][\w-]*", name) for name in names):
            raise ValueError(f"tags are one or more names, as in Tagged('think', 'answer'), not {names}")
        self.names = names

    def __call__(self, prompt: str, completion: str, answer: str) -> float:
        return float(self.parts(completion) is not None)

    def parts(self, completion: str) -> dict[str, str] | None:
        """What stands in each tag; None where the form is not kept."""
        found, rest = {}, completion
        for name in self.names:
            begin, end = f"<{name}>", f"</{name}>"
            if completion.count(begin) != 1 or completion.count(end) != 1:
                return None
            before, _, rest = rest.partition(begin)
            inside, closed, rest = rest.partition(end)
            if before.strip() or not closed or not inside.strip():
                return None
            found[name] = inside.strip()
        return None if rest.strip() else found


@dataclass(frozen=True)
class Inside:
    """A reward of what stands in one tag alone; a completion without that tag, closed, is judged as an empty text."""

    tag: str
    reward: Reward

    def __call__(self, prompt: str, completion: str, answer: str) -> float:
        found = re.findall(rf"<{re.escape(self.tag)}>(.*?)</{re.escape(self.tag)}>", completion, re.DOTALL)
        return self.reward(prompt, found[-1].strip() if found else "", answer)


@dataclass(frozen=True)
class Part:
    """One reward of several.

    reward     any callable, see `graded`
    weight     what it is multiplied by, after the bounds
    low, high  its value is clipped to these
    seconds    time limit of a call; None: that of the problem
    """

    reward: Reward
    weight: float = 1.0
    low: float = -math.inf
    high: float = math.inf
    seconds: float | None = None

    def __post_init__(self) -> None:
        if not callable(self.reward):
            raise ValueError(f"a part's reward must be callable, not {self.reward!r}")
        if not math.isfinite(self.weight):
            raise ValueError(f"weight must be a finite number, not {self.weight}")
        if not self.low < self.high:
            raise ValueError(f"low must be below high, not {self.low} and {self.high}")


@dataclass(frozen=True)
class Several:
    """Rewards by name, joined. Made by `mixed` and `max_of`."""

    parts: tuple[tuple[str, Part], ...]
    join: Callable[[Tensor], Tensor]  # [K, N] -> [N]

    def __call__(self, prompt: str, completion: str, answer: str) -> float:
        return float(self.grade([(prompt, completion, answer)], seconds=None)[0])

    def grade(
        self, calls: Sequence[tuple[Any, ...]], *, seconds: float | None = 10.0, failing: float = 0.0
    ) -> tuple[Tensor, dict[str, float]]:
        """The joined reward of each call [N]; each part's mean before its weight, its failures, and its seconds by the clock."""
        rows, told = [], {}
        for name, part in self.parts:
            began = time.monotonic()
            limit = seconds if part.seconds is None else part.seconds
            score, numbers = graded(part.reward, calls, seconds=limit, failing=failing)
            score = score.clamp(part.low, part.high)
            rows.append(part.weight * score)
            told[f"reward_{name}"] = float(score.mean()) if len(calls) else 0.0
            told |= {f"{name}_{key}": x for key, x in numbers.items()}
            told[f"reward_{name}_seconds"] = time.monotonic() - began
        return self.join(torch.stack(rows)), told


def total(rows: Tensor) -> Tensor:
    return rows.sum(0)


def largest(rows: Tensor) -> Tensor:
    return rows.amax(0)


def mixed(**parts: Part | Reward) -> Several:
    """The weighted sum of rewards, each under its name; one without a `Part` around it has weight 1 and no bounds."""
    return Several(named_parts(parts), total)


def max_of(**parts: Part | Reward) -> Several:
    """The largest of weighted rewards: an answer is as good as the best that any of them finds in it."""
    return Several(named_parts(parts), largest)


def named_parts(parts: dict[str, Part | Reward]) -> tuple[tuple[str, Part], ...]:
    if not parts:
        raise ValueError("no reward is given: write mixed(right=numeric, form=Part(Tagged('think', 'answer'), weight=0.2))")
    return tuple((name, part if isinstance(part, Part) else Part(part)) for name, part in parts.items())
