"""The language of Karel the robot: words, grammar, interpreter and random programs. Pattis, 1981; the words are LEAPS's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

ACTIONS = ("move", "turnLeft", "turnRight", "pickMarker", "putMarker")
SENSES = ("frontIsClear", "leftIsClear", "rightIsClear", "markersPresent", "noMarkersPresent")
AHEAD = ((-1, 0), (0, 1), (1, 0), (0, -1))  # north, east, south, west
MOST = 19  # repetitions


class Ended(Exception):
    """Nothing more may happen in a world: its task is over, or its time is."""


class World:
    """One robot among walls and markers, in the middle of a program.

    walls, markers  [H][W] of 0 and 1
    limit           actions and tests of conditions that a program may take; then `late` is set and the program stops
    judge           called after each action; True ends the task, and sets `over`
    """

    def __init__(
        self, pose: Sequence[int], markers: list[list[int]], walls: list[list[int]], limit: int, judge: Callable[[World], bool]
    ):
        self.row, self.column, self.facing = pose
        self.markers, self.walls, self.left, self.judge = markers, walls, limit, judge
        self.late = self.over = False

    def spend(self) -> None:
        if self.left == 0:
            self.late = True
            raise Ended
        self.left -= 1

    def run(self, program: Program) -> None:
        """Until its end, the task's, or the limit."""
        try:
            program.run(self)
        except Ended:
            return

    def act(self, name: str) -> None:
        self.spend()
        getattr(self, name)()
        if self.judge(self):
            self.over = True
            raise Ended

    def test(self, name: str) -> bool:
        self.spend()
        return bool(getattr(self, name)())

    def clear(self, turn: int) -> bool:
        down, right = AHEAD[(self.facing + turn) % 4]
        row, column = self.row + down, self.column + right
        return 0 <= row < len(self.walls) and 0 <= column < len(self.walls[0]) and not self.walls[row][column]

    def move(self) -> None:
        """One cell ahead; where that is blocked, the robot turns round (as in the authors' world)."""
        if self.clear(0):
            down, right = AHEAD[self.facing]
            self.row, self.column = self.row + down, self.column + right
        else:
            self.facing = (self.facing + 2) % 4

    def turnLeft(self) -> None:
        self.facing = (self.facing - 1) % 4

    def turnRight(self) -> None:
        self.facing = (self.facing + 1) % 4

    def pickMarker(self) -> None:
        self.markers[self.row][self.column] = 0

    def putMarker(self) -> None:
        self.markers[self.row][self.column] = 1

    def frontIsClear(self) -> bool:
        return self.clear(0)

    def leftIsClear(self) -> bool:
        return self.clear(-1)

    def rightIsClear(self) -> bool:
        return self.clear(1)

    def markersPresent(self) -> int:
        return self.markers[self.row][self.column]

    def noMarkersPresent(self) -> bool:
        return not self.markersPresent()


# ------------------------------------------------------------------------------------------ statements


@dataclass(frozen=True)
class Action:
    name: str

    def run(self, world: World) -> None:
        world.act(self.name)

    def words(self) -> list[str]:
        return [self.name]


@dataclass(frozen=True)
class Condition:
    name: str
    negated: bool

    def holds(self, world: World) -> bool:
        return world.test(self.name) != self.negated

    def words(self) -> list[str]:
        return ["c(", *(["not", "c(", self.name, "c)"] if self.negated else [self.name]), "c)"]


@dataclass(frozen=True)
class Block:
    """Statements in a row, at least one."""

    statements: tuple[Any, ...]

    def run(self, world: World) -> None:
        for statement in self.statements:
            statement.run(world)

    def words(self) -> list[str]:
        return [word for statement in self.statements for word in statement.words()]


@dataclass(frozen=True)
class Repeat:
    count: int
    body: Block

    def run(self, world: World) -> None:
        for _ in range(self.count):
            self.body.run(world)

    def words(self) -> list[str]:
        return ["REPEAT", f"R={self.count}", "r(", *self.body.words(), "r)"]


@dataclass(frozen=True)
class While:
    condition: Condition
    body: Block

    def run(self, world: World) -> None:
        while self.condition.holds(world):
            self.body.run(world)

    def words(self) -> list[str]:
        return ["WHILE", *self.condition.words(), "w(", *self.body.words(), "w)"]


@dataclass(frozen=True)
class If:
    condition: Condition
    body: Block
    other: Block | None = None

    def run(self, world: World) -> None:
        if self.condition.holds(world):
            self.body.run(world)
        elif self.other is not None:
            self.other.run(world)

    def words(self) -> list[str]:
        head = [*self.condition.words(), "i(", *self.body.words(), "i)"]
        return ["IF", *head] if self.other is None else ["IFELSE", *head, "ELSE", "e(", *self.other.words(), "e)"]


@dataclass(frozen=True)
class Program:
    body: Block

    def run(self, world: World) -> None:
        self.body.run(world)

    def words(self) -> list[str]:
        return ["DEF", "run", "m(", *self.body.words(), "m)"]

    def __str__(self) -> str:
        return " ".join(self.words())


# ------------------------------------------------------------------------------------------ words -> program


class Reader:
    """Recursive descent over the words of a program."""

    def __init__(self, words: Sequence[str]):
        self.words, self.at = list(words), 0

    @property
    def word(self) -> str:
        return self.words[self.at] if self.at < len(self.words) else "the end"

    def fail(self, wanted: str) -> ValueError:
        return ValueError(f"token {self.at} of the program is {self.word!r} where {wanted} is expected: {' '.join(self.words)!r}")

    def take(self, *wanted: str) -> str:
        if self.word not in wanted or self.at == len(self.words):
            raise self.fail(" or ".join(map(repr, wanted)))
        self.at += 1
        return self.words[self.at - 1]

    def program(self) -> Program:
        for word in ("DEF", "run"):
            self.take(word)
        body = self.block("m")
        if self.at < len(self.words):
            raise self.fail("the end")
        return Program(body)

    def block(self, letter: str) -> Block:
        self.take(f"{letter}(")
        found = [self.statement()]
        while self.word != f"{letter})":
            found.append(self.statement())
        self.take(f"{letter})")
        return Block(tuple(found))

    def condition(self) -> Condition:
        self.take("c(")
        negated = self.take("not", *SENSES)
        if negated != "not":
            name = negated
        else:
            self.take("c(")
            name = self.take(*SENSES)
            self.take("c)")
        self.take("c)")
        return Condition(name, negated == "not")

    def count(self) -> int:
        digits = self.word.removeprefix("R=")
        if not (self.word.startswith("R=") and digits.isdecimal() and int(digits) <= MOST):
            raise self.fail(f"R=0 to R={MOST}")
        self.at += 1
        return int(digits)

    def statement(self) -> Any:
        word = self.take(*ACTIONS, "WHILE", "REPEAT", "IF", "IFELSE")
        if word in ACTIONS:
            return Action(word)
        if word == "REPEAT":
            return Repeat(self.count(), self.block("r"))
        condition = self.condition()
        if word == "WHILE":
            return While(condition, self.block("w"))
        body = self.block("i")
        if word == "IF":
            return If(condition, body)
        self.take("ELSE")
        return If(condition, body, self.block("e"))


def parse(text: str) -> Program:
    """The program that a text stands for; raises ValueError with the index of the first token that does not fit."""
    return Reader(text.split()).program()


# ------------------------------------------------------------------------------------------ random programs


def library(count: int, longest: int, rng: np.random.Generator) -> tuple[Program, ...]:
    """`count` different programs of at most `longest` tokens, drawn from the grammar with the odds of LEAPS's data; the first does
    nothing. Raises ValueError where there are not that many."""
    found = [parse("DEF run m( REPEAT R=0 r( move r) m)")]
    seen = {str(found[0])}
    for _ in range(100 * count):
        if len(found) >= count:
            return tuple(found)
        made = Program(Block(tuple(sentence(rng, 0))))
        if len(made.words()) <= longest and str(made) not in seen:
            found.append(made)
            seen.add(str(made))
    raise ValueError(f"only {len(found)} different programs of at most {longest} tokens were found, not {count}: allow longer ones")


def sentence(rng: np.random.Generator, depth: int) -> list[Any]:
    """Statements in a row. Odds: karel_env/dsl/dsl_prob_option_v2.py of NTURobotLearningLab/HPRL."""
    kind = rng.choice(6, p=[0.15, 0.03, 0.4, 0.3, 0.08, 0.04]) if depth < 6 else 3
    if kind == 2:
        return [*sentence(rng, depth + 1), *sentence(rng, depth + 1)]
    if kind == 3:
        return [Action(str(rng.choice(ACTIONS, p=[0.5, 0.15, 0.15, 0.1, 0.1])))]
    if kind == 1:
        return [Repeat(int(rng.integers(MOST + 1)), Block(tuple(sentence(rng, depth + 1))))]
    test = Condition(str(rng.choice(SENSES, p=[0.5, 0.15, 0.15, 0.1, 0.1])), bool(rng.random() < 0.1))
    body = Block(tuple(sentence(rng, depth + 1)))
    if kind == 0:
        return [While(test, body)]
    return [If(test, body, Block(tuple(sentence(rng, depth + 1))) if kind == 5 else None)]
