"""Karel as a control problem: an action is a program of a library, a step runs it to its end."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..core.problem import Control, Step, Vector
from ..core.stream import Stream
from .control import greedy
from .programs import Program, World, library

Array = NDArray[Any]
SIDE = 6  # cells
KEPT = ("pose", "markers", "walls", "first", "done", "clock", "episode")  # what a world's future depends on, besides the seed
Start = tuple[tuple[int, int, int], Array, Array]  # row, column, facing; markers and walls [SIDE, SIDE]


class Karel(Control):
    """Programs that follow one another in one world of 6 x 6 cells, each paid for the progress that it makes.

    obs: markers, walls and the robot's place [SIDE * SIDE each], its direction [4], the share of programs that are left.
    The sum of rewards of an episode is 1 where the task is solved. The tasks are those of LEAPS and HPRL, made smaller.

    programs  that may follow one another
    tokens    of the longest program of the library
    size      of the library
    limit     actions and tests of conditions that a program may take
    seed      of the library
    episodes  greedy episodes of an evaluation
    """

    programs: int
    tokens: int
    size: int
    limit: int
    seed: int
    episodes: int

    def __post_init__(self) -> None:
        for name in ("programs", "tokens", "size", "limit", "episodes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")

    @abstractmethod
    def start(self, generator: np.random.Generator) -> Start:
        """A first world."""

    @abstractmethod
    def progress(self, world: World, first: Array) -> tuple[float, bool]:
        """How much of the task is done, in [0, 1], and whether it is over. first: the markers in the beginning."""

    @cached_property
    def library(self) -> tuple[Program, ...]:
        """What an action chooses from; the first program does nothing."""
        return library(self.size, self.tokens, Stream(self.seed, "library").numpy())

    @property
    def observation_space(self) -> Any:  # type: ignore[override]
        from gymnasium.spaces import Box

        return Box(0.0, 1.0, (3 * SIDE * SIDE + 5,))

    @property
    def action_space(self) -> Any:  # type: ignore[override]
        from gymnasium.spaces import Discrete

        return Discrete(self.size)

    def make(self, count: int) -> Worlds:
        return Worlds(self, count)

    def evaluate(self, policy: Any, rng: Stream) -> dict[str, float]:
        """`return` of greedy episodes, mean: the share of the task that is done; `return_std` between them; `length`."""
        return greedy(self, policy, self.episodes, rng)


class Worlds(Vector):
    """`count` worlds between two programs. Reward of a step: the progress made by its program, as it was made.

    The numbers of a reset come from the address (seed, world, its episode).
    """

    def __init__(self, problem: Karel, count: int):
        if count < 1:
            raise ValueError(f"at least one world is needed, not {count}")
        self.problem, self.count, self.seed = problem, count, 0
        self.pose = np.zeros((count, 3), np.int64)
        self.markers, self.walls, self.first = (np.zeros((count, SIDE, SIDE), np.uint8) for _ in range(3))
        self.done = np.zeros(count)
        self.clock, self.episode = np.zeros(count, np.int64), np.zeros(count, np.int64)

    def begin(self, index: int) -> None:
        generator = Stream(self.seed, index, self.episode[index]).numpy()
        self.pose[index], self.markers[index], self.walls[index] = self.problem.start(generator)
        self.first[index] = self.markers[index]
        self.done[index], self.clock[index] = 0.0, 0
        self.episode[index] += 1

    def see(self) -> Tensor:
        rows = np.arange(self.count)
        place, facing = np.zeros((self.count, SIDE, SIDE)), np.zeros((self.count, 4))
        place[rows, self.pose[:, 0], self.pose[:, 1]] = 1
        facing[rows, self.pose[:, 2]] = 1
        left = 1 - self.clock[:, None] / self.problem.programs
        parts = (self.markers, self.walls, place, facing, left)
        return torch.from_numpy(np.concatenate([x.reshape(self.count, -1) for x in parts], 1).astype(np.float32))

    def reset(self, rng: Stream) -> Tensor:
        self.seed = rng.seed
        self.episode[:] = 0
        for index in range(self.count):
            self.begin(index)
        return self.see()

    def run(self, index: int, program: Program) -> tuple[float, bool]:
        """What a program earns in a world, and whether the task is over."""
        first, so_far = self.first[index], float(self.done[index])
        earned = 0.0

        def judge(world: World) -> bool:
            nonlocal so_far, earned
            now, over = self.problem.progress(world, first)
            if not (over and now < 1):  # a task that is spoilt pays nothing for the step that spoilt it
                earned += now - so_far
            so_far = now
            return over

        pose, markers, walls = (x[index].tolist() for x in (self.pose, self.markers, self.walls))
        world = World(pose, markers, walls, self.problem.limit, judge)
        world.run(program)
        self.pose[index] = world.row, world.column, world.facing
        self.markers[index] = world.markers
        self.done[index] = so_far
        return earned, world.over

    def step(self, action: Tensor) -> Step:
        ran = [self.run(index, self.problem.library[choice]) for index, choice in enumerate(action.tolist())]
        self.clock += 1
        reward, over = torch.tensor([r for r, _ in ran]), torch.tensor([o for _, o in ran])
        late = torch.from_numpy(self.clock >= self.problem.programs) & ~over
        next_obs = obs = self.see()
        ended = (over | late).nonzero()[:, 0].tolist()
        if ended:
            for index in ended:
                self.begin(index)
            obs = self.see()
        return Step(obs, next_obs, reward, over, late)

    def get_state(self) -> dict[str, Tensor]:
        parts: dict[str, Array] = {name: getattr(self, name) for name in KEPT}
        return {name: torch.from_numpy(x.copy()) for name, x in {**parts, "seed": np.array([self.seed])}.items()}

    def set_state(self, state: dict[str, Tensor]) -> None:
        for name in KEPT:
            setattr(self, name, state[name].numpy().copy())
        self.seed = int(state["seed"])


def bare() -> Array:
    return np.zeros((SIDE, SIDE), np.uint8)


def picked(world: World, first: Array) -> tuple[float, bool]:
    """The share of the first markers that are gone."""
    total = int(first.sum())
    share = sum(was and not now for a, b in zip(first.tolist(), world.markers, strict=True) for was, now in zip(a, b, strict=True))
    return share / total, share == total


@dataclass(frozen=True)
class FourCorners(Karel):
    """Put a marker into each corner, and nowhere else. The robot starts in the lowest row, looking east."""

    programs: int = 5
    tokens: int = 16
    size: int = 200
    limit: int = 60
    seed: int = 0
    episodes: int = 20

    def start(self, generator: np.random.Generator) -> Start:
        return (SIDE - 1, int(generator.integers(1, SIDE - 1)), 1), bare(), bare()

    def progress(self, world: World, first: Array) -> tuple[float, bool]:
        right = sum(world.markers[row][column] for row in (0, -1) for column in (0, -1))
        wrong = sum(map(sum, world.markers)) - right
        return right / 4, right == 4 or wrong > 0


@dataclass(frozen=True)
class Harvester(Karel):
    """Pick up all markers; there is one in every cell."""

    programs: int = 5
    tokens: int = 16
    size: int = 200
    limit: int = 60
    seed: int = 0
    episodes: int = 20

    def start(self, generator: np.random.Generator) -> Start:
        return (SIDE - 1, 0, 1), 1 - bare(), bare()

    def progress(self, world: World, first: Array) -> tuple[float, bool]:
        return picked(world, first)


@dataclass(frozen=True)
class CleanHouse(Karel):
    """Pick up four markers that lie somewhere along the walls of two rooms with a door between them."""

    programs: int = 5
    tokens: int = 16
    size: int = 200
    limit: int = 60
    seed: int = 0
    episodes: int = 20

    def start(self, generator: np.random.Generator) -> Start:
        walls, markers = bare(), bare()
        walls[[0, 1, 3, 4, 5], 3] = 1
        beside = [(row, column) for row in range(SIDE) for column in (0, 2, 4, 5) if row != 2]
        for choice in generator.permutation(len(beside))[:4]:
            markers[beside[choice]] = 1
        return (SIDE - 1, 1, 0), markers, walls

    def progress(self, world: World, first: Array) -> tuple[float, bool]:
        return picked(world, first)


@dataclass(frozen=True)
class Maze(Karel):
    """Find the one marker among random walls; nothing is earned before."""

    programs: int = 5
    tokens: int = 16
    size: int = 200
    limit: int = 60
    seed: int = 0
    episodes: int = 20

    def start(self, generator: np.random.Generator) -> Start:
        """A corridor is dug from the robot's cell by a walk, so that the marker at its end can be reached."""
        walls, markers = 1 - bare(), bare()
        row, column = first = tuple(generator.integers(SIDE, size=2).tolist())
        walls[row, column] = 0
        while (walls == 0).sum() < SIDE * SIDE // 2:
            step = generator.integers(2) * 2 - 1
            if generator.random() < 0.5:
                row = min(max(row + step, 0), SIDE - 1)
            else:
                column = min(max(column + step, 0), SIDE - 1)
            walls[row, column] = 0
        markers[row, column] = 1
        return (*first, int(generator.integers(4))), markers, walls

    def progress(self, world: World, first: Array) -> tuple[float, bool]:
        found = bool(first[world.row, world.column])
        return float(found), found
