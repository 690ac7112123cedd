"""One reward of several for each question, and rules for what stands on a picture: letters of options, boxes."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .calls import Reward, graded
from .combine import Part, named_parts
from .numeric import final_answer, number

Kind = Callable[[str, str], str]  # (prompt, answer) -> the name of a part
BOX = re.compile(r"[\[(]" + r",".join([r"\s*(-?\d+(?:\.\d+)?)\s*"] * 4) + r"[\])]")


@dataclass(frozen=True)
class Routed:
    """A reward for each kind of question. Made by `one_of`."""

    kind: Kind
    parts: tuple[tuple[str, Part], ...]

    def __call__(self, prompt: str, completion: str, answer: str) -> float:
        return float(self.grade([(prompt, completion, answer)], seconds=None)[0])

    def grade(
        self, calls: Sequence[tuple[Any, ...]], *, seconds: float | None = 10.0, failing: float = 0.0
    ) -> tuple[Tensor, dict[str, float]]:
        """The reward of each call [N]; for each kind that occurs its share of the calls, and its mean before the weight."""
        kinds = [self.kind(prompt, answer) for prompt, _, answer in calls]
        known = dict(self.parts)
        for index, name in enumerate(kinds):
            if name not in known:
                raise ValueError(
                    f"call {index} is of kind {name!r}, for which there is no reward; there are rewards for "
                    f"{', '.join(known)}: add one of that name, or drop such questions"
                )
        score, told = torch.zeros(len(calls)), dict[str, float]()
        for name, part in self.parts:
            rows = [index for index, own in enumerate(kinds) if own == name]
            if not rows:
                continue
            limit = seconds if part.seconds is None else part.seconds
            found, numbers = graded(part.reward, [calls[index] for index in rows], seconds=limit, failing=failing)
            found = found.clamp(part.low, part.high)
            score[rows] = part.weight * found
            told |= {f"reward_{name}": float(found.mean()), f"share_{name}": len(rows) / len(calls)}
            told |= {f"{name}_{key}": x for key, x in numbers.items()}
        return score, told


def one_of(kind: Kind, **parts: Part | Reward) -> Routed:
    """Each question is scored by the one reward that bears the name of its kind; without a `Part` around it, in [0, 1].

    kind  (prompt, answer) -> a name, e.g. `by_answer`

    What is one hard rule to a number, another to a box and a judge's opinion to free text is the mixed reward of VLAA-Thinker,
    arXiv:2504.11468; with `Inside` or `Tagged` around a rule, what breaks the form gets nothing.
    """
    bounded: dict[str, Part | Reward] = {
        name: part if isinstance(part, Part) else Part(part, low=0.0, high=1.0) for name, part in parts.items()
    }
    found = named_parts(bounded)
    weights = [part.weight for _, part in found]
    if min(weights) < 0 or not sum(weights) > 0:
        raise ValueError(f"weights must not be negative and have a positive sum, not {weights}: nothing could be earned")
    return Routed(kind, found)


def by_answer(prompt: str, answer: str) -> str:
    """What an answer is: a `box` of four numbers, a `letter`, a `number`, or `open` text."""
    if box(answer) is not None:
        return "box"
    if re.fullmatch(r"\(?[A-Z]\)?\.?", answer.strip()):
        return "letter"
    return "open" if number(answer) is None else "number"


def letter(prompt: str, completion: str, answer: str) -> float:
    """1 if the final answer of a completion is the letter of the option `answer`, with or without parentheses; else 0."""
    said, wanted = (re.fullmatch(r"\(?([A-Z])\)?\.?", text.strip()) for text in (final_answer(completion), answer))
    return float(said is not None and wanted is not None and said[1] == wanted[1])


def overlap(prompt: str, completion: str, answer: str) -> float:
    """Intersection over union of two boxes [x1, y1, x2, y2]: the last one in a completion, and the answer; 0 without a box."""
    said, wanted = box(completion), box(answer)
    if wanted is None:
        raise ValueError(f"the answer {answer!r} is no box: it is four numbers in brackets, [x1, y1, x2, y2], x1 < x2 and y1 < y2")
    if said is None:
        return 0.0
    width, height = (max(0.0, min(said[i + 2], wanted[i + 2]) - max(said[i], wanted[i])) for i in (0, 1))
    both = width * height
    return both / (area(said) + area(wanted) - both)


def box(text: str) -> tuple[float, ...] | None:
    """The last four numbers in brackets that are a box; None where there is none."""
    found = BOX.findall(text)
    numbers = tuple(map(float, found[-1])) if found else None
    return numbers if numbers is not None and numbers[0] < numbers[2] and numbers[1] < numbers[3] else None


def area(box: tuple[float, ...]) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])
