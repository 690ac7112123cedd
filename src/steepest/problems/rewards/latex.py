r"""Answers in mathematics, compared by `math-verify` (extra ``math``): fractions, roots, sets, intervals, matrices, equations.

Its own time limits are alarms, which work in the main thread only and take the alarm of `guarded` away; they are off here, and
the time limit of the reward ends what takes too long, loops in C too.
"""

from __future__ import annotations

import functools
import logging
from typing import Any

from .numeric import final_answer


class Mathematical:
    r"""1 if the final answer of a completion equals the answer of the data as mathematics, else 0.

    The final answer is what `final_answer` finds, and without a mark of one, what math-verify finds in the text last. The answer
    of the data may be LaTeX, with or without dollars, or plain. Making one imports the library, so that processes that are forked
    for calls have it; raises ValueError where it is not installed. A call raises ValueError where the answer of the data cannot
    be read.
    """

    def __init__(self) -> None:
        library()

    def __call__(self, prompt: str, completion: str, answer: str) -> float:
        gold = read(answer)
        if not gold:
            raise ValueError(f"the answer {answer[:80]!r} cannot be read as mathematics: it should be an expression")
        said = read(final_answer(completion)) or read(completion, whole=True)
        return float(bool(said) and library()[1](gold, said, timeout_seconds=None))


def read(text: str, *, whole: bool = False) -> list[Any]:
    """What math-verify makes of an expression, or finds in a `whole` text; empty where it finds none."""
    parse, _ = library()
    if not text.strip():
        return []
    stripped = text.strip().strip("$").strip()
    return parse(text if whole else f"${stripped}$", parsing_timeout=None)


@functools.cache
def library() -> tuple[Any, Any]:
    """Its `parse` and `verify`. Raises ValueError where it is not installed."""
    try:
        from math_verify import parse, verify
    except ImportError as error:
        raise ValueError("answers in LaTeX are compared by math-verify: pip install 'steepest[math]'") from error
    for part in ("parser", "grader"):  # each warns that its alarm is off, as it should be
        logging.getLogger(f"math_verify.{part}").setLevel(logging.ERROR)
    return parse, verify
