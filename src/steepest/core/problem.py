"""The kinds of problem, as the rest of the house sees them."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .stream import Stream


class Problem(ABC):
    """What can be solved. Made from plain options, frozen: it changes nothing and owns no generator."""

    @abstractmethod
    def evaluate(self, policy: Any, rng: Stream) -> dict[str, float]:
        """How good `policy` is: numbers by name, the first being the figure that matters (higher is better)."""


class Unavailable(ConnectionError):
    """What a verdict needs is not there: an endpoint, a sandbox. It says nothing of the answers, so the run stops, saved."""


@dataclass(frozen=True)
class Prompts:
    """P prompts as tokens. `ids` [P, L] long, left-padded; `mask` [P, L] 1 on real tokens; `key` [P] long."""

    ids: Tensor
    mask: Tensor
    key: Tensor


Teacher = Callable[[int, torch.Generator], tuple[Prompts, Tensor, Tensor]]


@dataclass(frozen=True)
class Warmup:
    """Maximum likelihood of a teacher's answers.

    teacher  (count, generator) -> prompts, tokens [count, T] and mask [count, T]
    steps    optimizer steps
    batch    answers a step
    lr       peak learning rate of AdamW, reached after `warm` steps, then falling linearly to `floor` of it
    betas    of AdamW
    """

    teacher: Teacher
    steps: int
    batch: int = 128
    lr: float = 3e-3
    warm: int = 50
    betas: tuple[float, float] = (0.9, 0.98)
    floor: float = 0.1

    def __post_init__(self) -> None:
        for name in ("steps", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if not self.lr > 0:
            raise ValueError(f"lr must be positive, not {self.lr}")

    def rate(self, step: int) -> float:
        """Learning rate of step 0, 1, ..."""
        if step < self.warm:
            return self.lr * (step + 1) / self.warm
        left = (self.steps - step - 1) / max(1, self.steps - self.warm)
        return self.lr * (self.floor + (1 - self.floor) * left)


class Language(Problem):
    """Prompts to answer and a way to verify the answers.

    tokenizer  a Transformers tokenizer with an end token and a pad token
    max_new    the longest answer, in tokens
    """

    tokenizer: Any
    max_new: int

    @abstractmethod
    def prompts(self, count: int, generator: torch.Generator) -> Prompts:
        """`count` training prompts. `key` says which prompt it is: equal keys, equal prompts."""

    @abstractmethod
    def score(self, prompts: Prompts, tokens: Tensor, mask: Tensor) -> Tensor:
        """Reward of each answer [N] float, for N prompts, tokens [N, T] long and mask [N, T]."""

    def grade(self, prompts: Prompts, tokens: Tensor, mask: Tensor) -> tuple[Tensor, dict[str, float]]:
        """What `score` says, and numbers that the step reports: how many calls of a reward function failed, for one."""
        return self.score(prompts, tokens, mask), {}

    def kinds(self, prompts: Prompts, tokens: Tensor, mask: Tensor) -> Tensor:
        """Which answer each one gives [N] long: to one prompt, equal numbers are equal answers. Here every token counts; a problem
        that can read its answers looks at what they say alone."""
        return tokens.masked_fill(mask == 0, -1).unique(dim=0, return_inverse=True)[1]

    def check_room(self, room: int) -> None:
        """Raise ValueError if a prompt that is known beforehand and `max_new` exceed a context of `room` tokens."""

    @abstractmethod
    def config(self) -> Any:
        """The Transformers configuration of the small model that the problem was sized for."""

    @property
    def warmup(self) -> Warmup | None:
        """How to pretrain that model before RL begins, or None."""
        return None

    @property
    def lesson(self) -> str:
        """What is taught there, in words: weights that were pretrained once serve every problem that says the same."""
        return repr(self)


class Pool(Language):
    """A Language problem whose prompts are known beforehand, numbered from 0: rows of a data set, for one. What is remembered of
    a prompt (how often it was answered rightly, say) is a row of a `Table` of `size` rows."""

    @property
    @abstractmethod
    def size(self) -> int:
        """How many training prompts there are."""

    @abstractmethod
    def pick(self, index: Tensor) -> Prompts:
        """The training prompts of these numbers [P] long, which are their keys."""

    @property
    def category_of(self) -> Tensor:
        """The category of each prompt, numbered from 0 [size] long; a problem that knows none has one."""
        return torch.zeros(self.size, dtype=torch.long)

    def prompts(self, count: int, generator: torch.Generator) -> Prompts:
        return self.pick(torch.randint(self.size, (count,), generator=generator))


def finite(score: Any, count: int, name: str) -> Tensor:
    """`score` as a tensor [count] of float32; raises ValueError with the `name` of what gave it where it is not that many
    finite numbers."""
    score = torch.as_tensor(score, dtype=torch.float32)
    if score.shape != (count,):
        raise ValueError(f"{name} must give one number for each of {count} answers, not a tensor of shape {list(score.shape)}")
    bad = (~torch.isfinite(score)).nonzero()
    if len(bad):
        index = int(bad[0])
        raise ValueError(f"{name} gave {float(score[index])} for answer {index} ({len(bad)} of {count} are not finite)")
    return score


class Control(Problem):
    """Environments stepped as a batch. Spaces are Gymnasium's.

    What is collected is one flat row per environment, whatever the space: `flat_size` numbers in the order of
    `gymnasium.spaces.flatten` (parts of Dict and Tuple one after the other, Discrete and each part of MultiDiscrete one-hot, boxes
    row by row), as uint8 where the space is a single Box of uint8 and as float32 everywhere else.

    observation_space  the true space, so that a network finds the image or the parts of a Dict in the row again
    action_space       of actions as a policy gives them: a flat Box [A] (rows of an action of any shape), Discrete (from 0),
                       MultiDiscrete [K] (from 0) or MultiBinary [K]
    """

    observation_space: Any
    action_space: Any

    @abstractmethod
    def make(self, count: int) -> Vector:
        """`count` environments side by side."""


def flat_size(space: Any) -> int:
    """How many numbers `gymnasium.spaces.flatten` makes of an observation; raises TypeError where their count is not fixed."""
    if hasattr(space, "spaces"):  # Dict, Tuple
        inner = space.spaces.values() if hasattr(space.spaces, "values") else space.spaces
        return sum(map(flat_size, inner))
    if hasattr(space, "nvec"):  # MultiDiscrete
        return int(space.nvec.sum())
    if hasattr(space, "low") or (hasattr(space, "n") and space.shape):  # Box, MultiBinary
        return math.prod(space.shape)
    if hasattr(space, "n"):  # Discrete
        return int(space.n)
    raise TypeError(
        f"observations in {space} have no fixed number of numbers: Box, Discrete, MultiDiscrete, MultiBinary, Dict and Tuple of "
        "them are supported. Wrap the environment, register it and name the wrapped id"
    )


def is_bytes(space: Any) -> bool:
    """Whether rows of `space` stay uint8: it is a single Box of uint8, an image as a rule."""
    return hasattr(space, "low") and str(space.dtype) == "uint8"


class Vector(ABC):
    """`count` environments in step. Its state can be taken and given back bitwise, unless `resumes` is False.

    ``step`` resets finished environments by itself, in the same call; what it returns as `next_obs`
    is always the true successor (the final observation of a finished episode), never the first one
    of the next episode, which ``obs`` holds.
    """

    count: int
    resumes: bool = True

    @abstractmethod
    def reset(self, rng: Stream) -> Tensor:
        """Start every environment anew. -> obs [count, ...]"""

    @abstractmethod
    def step(self, action: Tensor) -> Step:
        """One step of all."""

    def roll(self, policy: Any, obs: Tensor, generator: torch.Generator, horizon: int) -> Rolled | None:
        """`horizon` steps in which `policy` acts, in one native call; None where there is none for the two."""
        return None

    @abstractmethod
    def get_state(self) -> dict[str, Tensor]:
        """Everything that decides the future, as tensors by name (fixed names and shapes)."""

    @abstractmethod
    def set_state(self, state: dict[str, Tensor]) -> None: ...

    def metrics(self) -> dict[str, float]:
        """What the engine has to report of its own since it was last asked, by name: workers that had to be started again."""
        return {}


@dataclass(frozen=True)
class Step:
    """What `count` environments answered. `obs` is where to act next; `next_obs` the true successor."""

    obs: Tensor  # [count, ...]
    next_obs: Tensor  # [count, ...]
    reward: Tensor  # [count]
    terminated: Tensor  # [count] bool: the task ended, nothing follows
    truncated: Tensor  # [count] bool: the clock ended, the value of next_obs still counts


class Rolled(NamedTuple):
    """Steps of `count` environments: where to act next, and obs, action, logp, reward, next_obs, terminated and truncated
    [count, horizon, ...]."""

    obs: Tensor
    columns: tuple[Tensor, ...]
