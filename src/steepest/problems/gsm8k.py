"""GSM8K: grade-school word problems whose answer is a number, from the real files.

Cobbe et al., Training Verifiers to Solve Math Word Problems, 2021. arXiv 2110.14168. 7,473 problems to train on and 1,319
to be tested on, each a question and a worked answer that ends with ``#### NUMBER``.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

from . import reading
from .reading import Row
from .rewards import final_answer, number, numeric
from .single_turn import SingleTurn, positive


@dataclass(frozen=True)
class GSM8K(SingleTurn):
    r"""Word problems: 1 for the right number behind ``####`` or in ``\boxed{}``, else 0.

    An evaluation's `accuracy` is that of the likeliest answers.

    data            folder with train.jsonl and test.jsonl: lines {"question": ..., "answer": "... #### 18"}
    max_new         the longest answer, in tokens
    tests           questions of an evaluation, drawn from the 1,319 of the test split
    tokenizer_name  folder or hub id of the model's tokenizer; default: that of `--model`, or one token a byte
    """

    data: Path
    max_new: int = 256
    tests: int = 64
    tokenizer_name: str | None = None

    reward = staticmethod(numeric)
    figure = "accuracy"
    instruction = "\nReason step by step, and end with #### and the answer as a number."

    def __post_init__(self) -> None:
        positive(self)

    @functools.cached_property
    def train(self) -> tuple[Row, ...]:  # type: ignore[override]
        return rows(Path(self.data) / "train.jsonl")

    @functools.cached_property
    def test(self) -> tuple[Row, ...]:  # type: ignore[override]
        return rows(Path(self.data) / "test.jsonl")

    def plain(self, said: str) -> str:
        return f"Question: {said}\nAnswer:"


def rows(path: Path) -> tuple[Row, ...]:
    """Questions and their numbers; raises ValueError with the line of what is wrong."""
    if not path.is_file():
        raise ValueError(f"there is no file {path.absolute()}: `data` is the folder with GSM8K's train.jsonl and test.jsonl")
    return tuple(map(worked, reading.rows(path)))


def worked(placed: reading.Placed) -> Row:
    """A question and the number that its worked answer ends with."""
    row = reading.row_of(placed, "question", "answer", ())
    if not isinstance(row.question, str) or not isinstance(row.answer, str):
        raise ValueError(f"{placed[0]}: question and answer are texts, not {row.question!r} and {row.answer!r}")
    answer = number(final_answer(row.answer))
    if answer is None:
        raise ValueError(f"{placed[0]}: the answer does not end with #### and a number, but with {row.answer[-40:]!r}")
    return Row(row.question.strip(), answer)
