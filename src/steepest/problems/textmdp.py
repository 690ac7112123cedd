"""Small decision problems that can be told in text and read back: for agents whose only parameter is a prompt."""

from __future__ import annotations

import math
import re
from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ..core.batch import Batch
from ..core.problem import Control, Step, Vector
from ..core.stream import Stream


class TextMDP(Control):
    """States are rows of d small integers (observed as floats), actions have names, every part of a transition is a line of text.

    A line ends with `stop`, which it cannot contain; what is written reads back as what it was, exactly.

    horizon  steps until the clock ends an episode
    gamma    discount of the figures `return` and `regret`
    """

    horizon: int
    gamma: float
    stop = "\n"

    @property
    @abstractmethod
    def actions(self) -> tuple[str, ...]:
        """The names of the A actions."""

    @property
    @abstractmethod
    def sizes(self) -> tuple[int, ...]:
        """How many values each of the d integers of a state can take."""

    @abstractmethod
    def start(self, count: int, generator: torch.Generator) -> Tensor:
        """First states [count, d] long."""

    @abstractmethod
    def move(self, cells: Tensor, action: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """States [n, d] and actions [n] -> next states [n, d], rewards [n], whether the task ended [n] bool."""

    @abstractmethod
    def optimum(self, cells: Tensor) -> Tensor:
        """The highest discounted return from first states [n, d] -> [n]."""

    @abstractmethod
    def remark(self, cells: tuple[int, ...]) -> str:
        """What may be said beside the numbers of a state; "" for nothing."""

    # -------------------------------------------------------------------------------------------- the control problem

    @property
    def observation_space(self) -> Any:
        import gymnasium
        import numpy as np

        high = np.array(self.sizes, dtype=np.float32) - 1
        return gymnasium.spaces.Box(np.zeros_like(high), high)

    @property
    def action_space(self) -> Any:
        import gymnasium

        return gymnasium.spaces.Discrete(len(self.actions))

    @property
    def states(self) -> int:
        return math.prod(self.sizes)

    def index(self, obs: Tensor) -> Tensor:
        """The number of each state, obs [..., d] -> [...] long in [0, states)."""
        number = torch.zeros(obs.shape[:-1], dtype=torch.long, device=obs.device)
        for axis, size in enumerate(self.sizes):
            number = number * size + obs[..., axis].long()
        return number

    def make(self, count: int) -> TextVector:
        return TextVector(self, count)

    def play(self, policy: Any, count: int, rng: Stream, *, greedy: bool) -> Batch:
        """`count` whole episodes in step -> Batch [count, horizon]; only running ones ask the policy."""
        env = self.make(count)
        obs = env.reset(rng / "world")
        first, alive = obs, torch.ones(count, dtype=torch.bool)
        steps: list[tuple[Tensor, ...]] = []
        for t in range(self.horizon):
            action = torch.zeros(count, dtype=torch.long)
            action[alive] = policy.act(obs[alive], (rng / "act" / t).torch(obs.device), greedy=greedy).cpu()
            step = env.step(action)
            steps.append((obs, action, step.reward, alive.float(), step.next_obs, step.terminated, step.truncated))
            obs, alive = step.obs, alive & ~(step.terminated | step.truncated)
            if not alive.any():
                break
        while len(steps) < self.horizon:
            steps.append(tuple(torch.zeros_like(part) for part in steps[-1]))
        obs, action, reward, mask, next_obs, terminated, truncated = (torch.stack(parts, 1) for parts in zip(*steps, strict=True))
        info = {"next_obs": next_obs, "terminated": terminated, "truncated": truncated}
        return Batch(obs, action, None, reward * mask, mask, self.index(first), info=info)

    def figures(self, batch: Batch) -> dict[str, float]:
        """`return` (discounted), `regret` (the optimum minus it) and `length` of the episodes of `play`, means."""
        gained = (batch.reward * self.gamma ** torch.arange(self.horizon)).sum(1)
        best = self.optimum(batch.obs[:, 0].long())
        return {
            "return": float(gained.mean()),
            "regret": float((best - gained).mean()),
            "length": float(batch.length.mean()),
        }

    def evaluate(self, policy: Any, rng: Stream) -> dict[str, float]:
        return self.figures(self.play(policy, 16, rng, greedy=True))

    # -------------------------------------------------------------------------------------------- the codec

    def line(self, text: str) -> str:
        if self.stop in text:
            raise ValueError(
                f"{text!r} contains the stop mark {self.stop!r}: a model would never be seen to finish it. "
                f"Say it on one line in {type(self).__name__}.remark or .actions"
            )
        return text

    def write_state(self, cells: tuple[int, ...]) -> str:
        remark = self.remark(cells)
        return self.line(f"state: {' '.join(map(str, cells))}" + (f", {remark}" if remark else ""))

    def read_state(self, text: str) -> tuple[int, ...] | None:
        """The state, or None where the line is not one that `write_state` writes."""
        found = re.match(r"state: (\d+(?: \d+)*)", text)
        cells = tuple(map(int, found[1].split())) if found else ()
        fits = len(cells) == len(self.sizes) and all(x < size for x, size in zip(cells, self.sizes, strict=True))
        return cells if fits and self.write_state(cells) == text else None

    def write_action(self, action: int) -> str:
        return self.line(f"action: {self.actions[action]}")

    def read_action(self, text: str) -> int | None:
        return next((a for a in range(len(self.actions)) if self.write_action(a) == text), None)

    def write_reward(self, reward: float) -> str:
        return self.line(f"reward: {reward!r}")

    def read_reward(self, text: str) -> float | None:
        found = re.fullmatch(r"reward: (-?\d+(?:\.\d+)?(?:e[+-]?\d+)?)", text)
        return float(found[1]) if found else None

    def write_end(self, ended: bool) -> str:
        return f"ended: {'yes' if ended else 'no'}"

    def read_end(self, text: str) -> bool | None:
        return {self.write_end(False): False, self.write_end(True): True}.get(text)


class TextVector(Vector):
    """TextMDPs in step. What will happen depends on the cells, the clocks and (address of the reset, ticks since)."""

    def __init__(self, problem: TextMDP, count: int):
        if count < 1:
            raise ValueError(f"at least one environment is needed, not {count}")
        self.problem, self.count = problem, count
        self.cells = torch.zeros(count, len(problem.sizes), dtype=torch.long)
        self.clock = torch.zeros(count, dtype=torch.long)
        self.address = torch.zeros(2, dtype=torch.long)  # seed, ticks

    def reset(self, rng: Stream) -> Tensor:
        self.address = torch.tensor([rng.seed, 0])
        self.clock = torch.zeros_like(self.clock)
        self.cells = self.problem.start(self.count, rng.torch())
        return self.cells.float()

    def step(self, action: Tensor) -> Step:
        generator = Stream(*self.address.tolist()).torch()
        cells, reward, terminated = self.problem.move(self.cells, action, generator)
        clock = self.clock + 1
        truncated = (clock >= self.problem.horizon) & ~terminated
        over = terminated | truncated
        self.cells = torch.where(over[:, None], self.problem.start(self.count, generator), cells)
        self.clock = torch.where(over, 0, clock)
        self.address = self.address + torch.tensor([0, 1])
        return Step(self.cells.float(), cells.float(), reward, terminated, truncated)

    def get_state(self) -> dict[str, Tensor]:
        return {"cells": self.cells, "clock": self.clock, "address": self.address}

    def set_state(self, state: dict[str, Tensor]) -> None:
        self.cells, self.clock, self.address = (state[name].clone() for name in ("cells", "clock", "address"))


@dataclass(frozen=True)
class Chain(TextMDP):
    """Walk left or right to the goal and try it there: reward 1 at the goal, 0 elsewhere, and trying ends the episode.

    length       positions
    goal         the one that pays
    distractors  further integers of the state, drawn anew at every step, that mean nothing
    hint         the text says whether the position is the goal
    """

    length: int = 8
    goal: int = 4
    distractors: int = 0
    horizon: int = 8
    gamma: float = 0.8
    hint: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.goal < self.length or self.distractors < 0:
            raise ValueError(f"the goal must be one of {self.length} positions, not {self.goal}, and distractors not negative")
        if self.horizon <= max(self.goal, self.length - 1 - self.goal):
            raise ValueError(f"horizon {self.horizon} is too short to walk to position {self.goal} of {self.length} and try it")

    @property
    def actions(self) -> tuple[str, ...]:
        return ("left", "try", "right")

    @property
    def sizes(self) -> tuple[int, ...]:
        return (self.length,) * (1 + self.distractors)

    def start(self, count: int, generator: torch.Generator) -> Tensor:
        return torch.randint(self.length, (count, len(self.sizes)), generator=generator)

    def move(self, cells: Tensor, action: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        position = (cells[:, :1] + action[:, None] - 1).clamp(0, self.length - 1)
        noise = torch.randint(self.length, (len(cells), self.distractors), generator=generator)
        tried = action == 1
        return torch.cat([position, noise], 1), (tried & (cells[:, 0] == self.goal)).float(), tried

    def optimum(self, cells: Tensor) -> Tensor:
        return self.gamma ** (cells[:, 0] - self.goal).abs().float()

    def remark(self, cells: tuple[int, ...]) -> str:
        return ("at the goal" if cells[0] == self.goal else "not at the goal") if self.hint else ""


@dataclass(frozen=True)
class Maze(TextMDP):
    """Find the goal G of a grid with walls #: reward 1 for entering it, which ends the episode.

    rows     the grid; every free cell but the goal is a first state
    """

    rows: tuple[str, ...] = ("..#.", "G#..", "....")
    horizon: int = 8
    gamma: float = 0.8

    def __post_init__(self) -> None:
        if len({len(row) for row in self.rows}) != 1 or "".join(self.rows).count("G") != 1:
            raise ValueError(f"a maze is rows of equal length with one G, not {self.rows}")
        far = self.distance[self.distance > 0]
        if len(far) == 0 or not bool(torch.isfinite(far).all()) or far.max() > self.horizon:
            raise ValueError(
                f"every free cell of {self.rows} must reach G in {self.horizon} steps; the distances are {self.distance}"
            )

    @property
    def actions(self) -> tuple[str, ...]:
        return ("up", "down", "left", "right")

    @property
    def sizes(self) -> tuple[int, ...]:
        return (len(self.rows), len(self.rows[0]))

    @cached_property
    def distance(self) -> Tensor:
        """Steps to the goal [rows, columns]; -1 in walls, inf where there is no way."""
        wall = torch.tensor([[c == "#" for c in row] for row in self.rows])
        away = torch.tensor([[0.0 if c == "G" else torch.inf for c in row] for row in self.rows])
        for _ in range(wall.numel()):
            wide = torch.nn.functional.pad(away, (1, 1, 1, 1), value=torch.inf)
            near = torch.stack([wide[:-2, 1:-1], wide[2:, 1:-1], wide[1:-1, :-2], wide[1:-1, 2:]]).amin(0)
            away = torch.minimum(away, near + 1).masked_fill(wall, torch.inf)
        return away.masked_fill(wall, -1)

    def start(self, count: int, generator: torch.Generator) -> Tensor:
        free = (self.distance > 0).nonzero()
        return free[torch.randint(len(free), (count,), generator=generator)]

    def move(self, cells: Tensor, action: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        ahead = cells + torch.tensor([[-1, 0], [1, 0], [0, -1], [0, 1]])[action]
        ahead = torch.minimum(ahead.clamp(min=0), torch.tensor(self.sizes) - 1)
        blocked = self.distance[ahead[:, 0], ahead[:, 1]] < 0
        after = torch.where(blocked[:, None], cells, ahead)
        home = self.distance[after[:, 0], after[:, 1]] == 0
        return after, home.float(), home

    def optimum(self, cells: Tensor) -> Tensor:
        return self.gamma ** (self.distance[cells[:, 0], cells[:, 1]] - 1)

    def remark(self, cells: tuple[int, ...]) -> str:
        return ""
