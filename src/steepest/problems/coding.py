"""Questions whose answer is a program, which is run against tests in a sandbox."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..core.problem import Prompts, Warmup
from . import reading
from .reading import Row
from .rewards import CodeReward, code_reward
from .rewards.cases import cases_of
from .sandbox import Limits
from .single_turn import SingleTurn, positive
from .symbolic import chance, random

# what a function of two numbers and a constant is to give: in words, and in Python
RULES = (
    ("the sum of a, b and {n}", "a + b + {n}"), ("a plus {n} times b", "a + {n} * b"), ("{n} times a minus b", "{n} * a - b"),
    ("the larger of a and b, plus {n}", "max(a, b) + {n}"), ("the smaller of a and b, plus {n}", "min(a, b) + {n}"),
    ("the product of a and b, plus {n}", "a * b + {n}"), ("the remainder of a plus b when it is divided by {n}", "(a + b) % {n}"),
    ("whether a plus b is greater than {n}", "a + b > {n}"),
)  # fmt: skip
CONSTANTS = range(2, 18)
CASES = ((1, 2), (7, 3), (0, 11), (20, 5))
HELD_OUT = 4  # every fourth constant is tested on and not trained on


@dataclass(frozen=True)
class Coding(SingleTurn):
    """Write a Python function: 1 if it passes all tests in a sandbox, else 0.

    Without `data`, 128 small tasks of arithmetic, of which 96 are trained on, and a warm-up on answers that are right in half of
    the cases; with it, rows of one's own.

    data            file of lines {"question": ..., "tests": [...]}; a test is "assert f(2) == 4" or {"stdin": ..., "stdout": ...}
    test_data       such a file for evaluations; none: that of `data`
    share           the reward is the share of tests that pass
    max_new         the longest answer, in tokens
    tests           questions of an evaluation
    seconds         of the clock, until a program is ended
    cpu             of the processor, until a program is ended
    memory          megabytes of a program
    workers         programs side by side; None: as many as there are processors
    weak            where nothing holds programs, run them with limits of resources alone
    warm            steps of the warm-up on the tasks that are built in; with `data` there is none
    tokenizer_name  folder or hub id of the model's tokenizer; default: that of `--model`, or one token a byte
    """

    data: Path | None = None
    test_data: Path | None = None
    share: bool = False
    max_new: int = 64
    tests: int = 64
    seconds: float = 10.0
    cpu: int = 5
    memory: int = 512
    workers: int | None = None
    weak: bool = False
    warm: int = 200
    tokenizer_name: str | None = None

    figure = "passed"
    instruction = "\nAnswer with Python between ```python and ```."

    def __post_init__(self) -> None:
        positive(self)
        if self.test_data is not None and self.data is None:
            raise ValueError("test_data without data: give the file of training questions too")
        self.reward.box  # noqa: B018 - refuses before any work where nothing holds a program

    @functools.cached_property
    def reward(self) -> CodeReward:  # type: ignore[override]
        limits = Limits(seconds=self.seconds, cpu=self.cpu, memory=self.memory * 2**20)
        return code_reward(limits=limits, share=self.share, workers=self.workers, weak=self.weak)

    @property
    def holds(self) -> str:
        """What holds programs, and what it does not prevent: said before a run."""
        box = self.reward.box
        return f"{box.name}. It does not prevent {'; '.join(box.cannot)}"

    @functools.cached_property
    def train(self) -> tuple[Row, ...]:  # type: ignore[override]
        return built_in(held_out=False) if self.data is None else rows(Path(self.data))

    @functools.cached_property
    def test(self) -> tuple[Row, ...]:  # type: ignore[override]
        if self.test_data is not None:
            return rows(Path(self.test_data))
        return built_in(held_out=True) if self.data is None else ()

    def plain(self, said: str) -> str:
        return f"{said.removesuffix(self.instruction)}\n"

    @property
    def warmup(self) -> Warmup | None:
        return Warmup(self.teach, self.warm, batch=32) if self.data is None and self.warm else None

    def teach(self, count: int, generator: torch.Generator) -> tuple[Prompts, Tensor, Tensor]:
        """Right programs, and as many whose rule is another."""
        prompts = self.prompts(count, generator)
        slip = chance(0.5, (count,), generator) * random(len(RULES), (count,), generator)
        texts = [solution(*divmod(int(key), trained()), int(other)) for key, other in zip(prompts.key, slip, strict=True)]
        made = [[*self.tokenizer(text)["input_ids"], self.tokenizer.eos_token_id][: self.max_new] for text in texts]
        tokens = torch.full((count, max(map(len, made))), self.tokenizer.pad_token_id)
        mask = torch.zeros(tokens.shape)
        for n, row in enumerate(made):
            tokens[n, : len(row)] = torch.tensor(row)
            mask[n, : len(row)] = 1
        return prompts, tokens, mask


def constants(held_out: bool) -> list[int]:
    return [n for n in CONSTANTS if (n % HELD_OUT == 0) is held_out]


def trained() -> int:
    return len(constants(False))


def built_in(*, held_out: bool) -> tuple[Row, ...]:
    """The tasks of arithmetic: for each rule, each constant. What they give is computed here, by the rule itself."""
    found = []
    for words, rule in RULES:
        for n in constants(held_out):
            give = eval(f"lambda a, b: {rule.format(n=n)}", {"max": max, "min": min})
            tests = [f"assert f({a}, {b}) == {give(a, b)}" for a, b in CASES]
            found.append(Row(f"Write f(a, b) that gives {words.format(n=n)}.", json.dumps(tests)))
    return tuple(found)


def solution(rule: int, constant: int, slip: int) -> str:
    """A program for the task at that place among those trained on; with a `slip`, of another rule."""
    body = RULES[(rule + slip) % len(RULES)][1].format(n=constants(False)[constant])
    return f"```python\nf = lambda a, b: {body}\n```"


def rows(path: Path) -> tuple[Row, ...]:
    """Questions and their tests; raises ValueError with the line of what is wrong."""
    if not path.is_file():
        raise ValueError(f"there is no file {path.absolute()}: `data` is a file of lines {{\"question\": ..., \"tests\": [...]}}")
    return tuple(map(tested, reading.rows(path)))


def tested(placed: reading.Placed) -> Row:
    row = reading.row_of(placed, "question", "tests", ())
    told = row.answer if isinstance(row.answer, str) else json.dumps(row.answer)
    try:
        cases_of(told)
    except ValueError as error:
        raise ValueError(f"{placed[0]}: {error}; each line is {{\"question\": ..., \"tests\": [...]}}") from error
    return Row(row.question, told)
