"""GSM8K: grade-school word problems whose answer is a number, from the real files.

Cobbe et al., Training Verifiers to Solve Math Word Problems, 2021. arXiv 2110.14168. 7,473 problems to train on and 1,319
to be tested on, each a question and a worked answer that ends with ``#### NUMBER``.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path

from .rewards import final_answer, number, numeric
from .single_turn import Row, SingleTurn, positive


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
    found = []
    for line, text in enumerate(path.read_bytes().splitlines(), 1):
        if not text.strip():
            continue
        try:
            row = json.loads(text)
        except ValueError as error:
            raise ValueError(f"{path}:{line}: no JSON ({error}): each line is one object, whole") from error
        for name in ("question", "answer"):
            if not isinstance(row, dict) or not isinstance(row.get(name), str) or not row[name].strip():
                raise ValueError(f"{path}:{line}: no text named {name!r}: each line is {{\"question\": ..., \"answer\": ...}}")
        answer = number(final_answer(row["answer"]))
        if answer is None:
            raise ValueError(f"{path}:{line}: the answer does not end with #### and a number, but with {row['answer'][-40:]!r}")
        found.append((row["question"].strip(), answer))
    if not found:
        raise ValueError(f"{path} is empty: it should hold one problem a line")
    return tuple(found)
