"""Programs as answers: run in a sandbox against tests that they are not told."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ...core.problem import Unavailable
from ..sandbox import Limits, Outcome, Sandbox, SandboxError, sandbox
from .cases import Claim, Told, beside, cases_of, judge, received

FENCED = re.compile(r"^[ \t]*```[ \t]*([\w+-]*)[^\n]*\n(.*?)^[ \t]*```", re.MULTILINE | re.DOTALL)
SENT = 2**18  # bytes of values that cross over


def last_program(completion: str) -> str | None:
    """The last block fenced by ```python, ```py or ```python3, or else by ``` alone; None where there is none.

    >>> last_program("Thus:\\n```python\\nprint(1)\\n```\\nDone.")
    'print(1)\\n'
    """
    blocks = FENCED.findall(completion)
    named = [text for language, text in blocks if language.lower() in ("python", "py", "python3")]
    plain = [text for language, text in blocks if not language]
    return (named or plain or [None])[-1]


@dataclass(frozen=True)
class CodeReward:
    """Whether the last program in a completion passes the tests in the answer; see `code_reward`."""

    limits: Limits = field(default_factory=Limits)
    share: bool = False
    workers: int | None = None
    weak: bool = False

    @property
    def box(self) -> Sandbox:
        try:
            return sandbox(weak=self.weak)
        except SandboxError as error:
            raise Unavailable(str(error)) from error

    def __call__(self, prompt: str, completion: str, answer: str) -> float:
        return float(self.grade([(prompt, completion, answer)])[0])

    def grade(
        self, calls: Sequence[tuple[Any, ...]], *, seconds: float | None = None, failing: float = 0.0
    ) -> tuple[Tensor, dict[str, float]]:
        """Reward of each call [N]; the share of completions without a program, and of programs that a limit ended.

        The sandbox's limits hold for each run; `seconds` and `failing` are not needed. Raises ValueError where an answer holds no
        tests, Unavailable where nothing holds a program.
        """
        programs = [last_program(completion) for _, completion, _ in calls]
        tests = [self.read(answer, index) for index, (_, _, answer) in enumerate(calls)]
        jobs: list[tuple[str, str]] = []
        owner: list[int] = []
        for index, (program, rows) in enumerate(zip(programs, tests, strict=True)):
            if program is None:
                continue
            asked = [x for row in rows if isinstance(row, Claim) for x in row.asked]
            own = [(beside(program, asked), "")] if asked else []
            own += [(program, row.stdin) for row in rows if isinstance(row, Told)]
            jobs += own
            owner += [index] * len(own)
        try:
            box = self.box
            ran = box.run_all(jobs, replace(self.limits, output=max(self.limits.output, SENT)), workers=self.workers)
            passed = self.passed(box, tests, ran, owner)
        except SandboxError as error:
            raise Unavailable(str(error)) from error
        stopped = {index for index, outcome in zip(owner, ran, strict=True) if outcome.status not in ("ok", "failed")}
        score = [sum(row) / len(row) if self.share else float(all(row)) for row in passed]
        count = max(1, len(calls))
        return torch.tensor(score), {"no_program": programs.count(None) / count, "over_limit": len(stopped) / count}

    def read(self, answer: str, index: int) -> list[Told | Claim]:
        try:
            return cases_of(answer)
        except ValueError as error:
            raise ValueError(f"the answer of row {index}: {error}") from error

    def passed(self, box: Sandbox, tests: list[list[Told | Claim]], ran: list[Outcome], owner: list[int]) -> list[list[bool]]:
        """Which tests of each row hold, by what its programs sent."""
        by_row: dict[int, list[Outcome]] = {}
        for index, outcome in zip(owner, ran, strict=True):
            by_row.setdefault(index, []).append(outcome)
        verdicts, doubtful = [], []
        for index, rows in enumerate(tests):
            verdict, outcomes = [False] * len(rows), iter(by_row.get(index, ()))
            verdicts.append(verdict)
            if index not in by_row:
                continue
            count = sum(len(row.asked) for row in rows if isinstance(row, Claim))
            values = iter(received(sent(next(outcomes)), count) if count else ())
            for n, row in enumerate(rows):
                if isinstance(row, Told):
                    outcome = next(outcomes)
                    verdict[n] = outcome.status == "ok" and same_text(outcome.stdout, row.stdout)
                    continue
                found = [next(values) for _ in row.asked]
                if any(x is None for x in found):
                    continue
                given = [x[0] for x in found if x is not None]
                if row.plain:
                    verdict[n] = bool(given[0] == row.wanted)
                else:
                    doubtful.append((index, n, row.rest, given))
        self.judged(box, doubtful, verdicts)
        return verdicts

    def judged(self, box: Sandbox, doubtful: list[tuple[int, int, str, list[Any]]], verdicts: list[list[bool]]) -> None:
        """Fill in what holds of values where it takes more than a comparison: in a second process, which has no program."""
        rows = sorted({index for index, *_ in doubtful})
        groups = [[entry for entry in doubtful if entry[0] == index] for index in rows]
        judges = [judge([(rest, given) for _, _, rest, given in group]) for group in groups]
        ran = box.run_all([(text, "") for text in judges], self.limits, workers=self.workers)
        for group, outcome in zip(groups, ran, strict=True):
            said = json.loads(outcome.stdout) if outcome.status == "ok" else [False] * len(group)
            for (index, n, _, _), holds in zip(group, said, strict=True):
                verdicts[index][n] = holds


def sent(outcome: Outcome) -> str:
    return outcome.stdout if outcome.status == "ok" and len(outcome.stdout) <= SENT else ""


def same_text(one: str, other: str) -> bool:
    """Line by line, whatever blanks stand at the ends of lines and of the whole."""
    return lines(one) == lines(other)


def lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.strip().splitlines()]


def code_reward(
    *, limits: Limits = Limits(), share: bool = False, workers: int | None = None, weak: bool = False
) -> CodeReward:
    """A reward for programs: 1 if the last one in a completion passes all tests in the answer, else 0.

    limits   of each run: time, memory, output, files
    share    the share of tests that hold instead
    workers  programs that run side by side; None: as many as there are processors
    weak     run programs where nothing holds them but limits of resources; see `sandbox`

    The answer holds tests as `cases.cases_of` reads them. Raises Unavailable where nothing on this machine holds a program.
    """
    made = CodeReward(limits, share, workers, weak)
    made.box  # noqa: B018 - refuses here, before any work, where there is no sandbox
    return made
