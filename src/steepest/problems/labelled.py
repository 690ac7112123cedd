"""Supervised problems small enough to be solved in seconds: inputs with labels, some of them wrong."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ..core.problem import Problem
from ..core.stream import Stream


@dataclass(frozen=True)
class Examples:
    """M inputs and their labels.

    Raises ValueError where the lengths differ, an input is not finite, or a label is no index of a class.
    """

    x: Tensor  # [M, F]
    y: Tensor  # [M] long, 0 .. classes - 1
    classes: int

    def __post_init__(self) -> None:
        if self.y.dtype != torch.long or self.y.dim() != 1:
            raise ValueError(f"labels are indices of classes [M] long, not {self.y.dtype} of shape {list(self.y.shape)}")
        if len(self.x) != len(self.y) or len(self.x) == 0:
            raise ValueError(f"there are {len(self.x)} inputs and {len(self.y)} labels: give one for each input, at least one")
        if not bool(torch.isfinite(self.x).all()):
            raise ValueError(f"input {int((~torch.isfinite(self.x)).any(1).nonzero()[0])} is not finite: repair or drop it")
        outside = ((self.y < 0) | (self.y >= self.classes)).nonzero()
        if len(outside):
            row, last = int(outside[0]), self.classes - 1
            raise ValueError(f"the label of example {row} is {int(self.y[row])}: with {self.classes} classes it is 0 to {last}")

    def __len__(self) -> int:
        return len(self.y)


class Labelled(Problem):
    """Examples to learn from, in some of which the label is wrong, and others to be judged by.

    A training label is replaced by one of the other classes with probability `wrong`; test labels are true.
    """

    train: int
    test: int
    wrong: float
    seed: int

    def __post_init__(self) -> None:
        if min(self.train, self.test) < 1 or not 0 <= self.wrong < 1:
            sizes = f"{self.train}, {self.test} and {self.wrong}"
            raise ValueError(f"train and test must be at least 1 and wrong in [0, 1), not {sizes}")

    @abstractmethod
    def draw(self, count: int, generator: torch.Generator) -> Examples:
        """`count` examples with true labels."""

    @cached_property
    def data(self) -> Examples:
        generator = Stream(self.seed, "train").torch()
        true = self.draw(self.train, generator)
        other = (true.y + torch.randint(1, true.classes, true.y.shape, generator=generator)) % true.classes
        return Examples(true.x, torch.where(torch.rand(len(true), generator=generator) < self.wrong, other, true.y), true.classes)

    @cached_property
    def held_out(self) -> Examples:
        return self.draw(self.test, Stream(self.seed, "test").torch())

    def evaluate(self, policy: Any, rng: Stream) -> dict[str, float]:
        """`accuracy` of the policy's likeliest labels on the held-out examples."""
        examples = self.held_out
        with torch.no_grad():
            return {"accuracy": float((policy.act(examples.x, rng.torch(), True).cpu() == examples.y).float().mean())}


@dataclass(frozen=True)
class Moons(Labelled):
    """Two half circles that reach into one another.

    train   examples to learn from
    test    examples to be judged by
    spread  standard deviation of a point's distance from its arc, both ways
    wrong   share of the training labels that is wrong
    seed    of the examples
    """

    train: int = 200
    test: int = 2000
    spread: float = 0.2
    wrong: float = 0.2
    seed: int = 0

    def draw(self, count: int, generator: torch.Generator) -> Examples:
        y = torch.randint(2, (count,), generator=generator)
        angle = math.pi * torch.rand(count, generator=generator)
        arc = torch.stack([torch.cos(angle), torch.sin(angle)], 1)
        x = torch.where(y[:, None] == 0, arc, torch.tensor([1.0, 0.5]) - arc)
        return Examples(x + self.spread * torch.randn(count, 2, generator=generator), y, 2)


@dataclass(frozen=True)
class Digits(Labelled):
    """The ten digits of a seven-segment display on 8 x 8 pixels: shifted, of varying strength, with noise.

    train   examples to learn from
    test    examples to be judged by
    spread  standard deviation of a pixel's noise; a lit pixel is about 1
    wrong   share of the training labels that is wrong
    seed    of the examples
    """

    train: int = 600
    test: int = 2000
    spread: float = 0.3
    wrong: float = 0.1
    seed: int = 0

    # which segments are lit, digit by digit: top, upper left, upper right, middle, lower left, lower right, bottom
    segments = ("1110111", "0010010", "1011101", "1011011", "0111010", "1101011", "1101111", "1010010", "1111111", "1111011")
    # rows and columns of each segment in a glyph of 7 x 4
    places = ((0, 0, 1, 4), (0, 0, 4, 1), (0, 3, 4, 4), (3, 0, 4, 4), (3, 0, 7, 1), (3, 3, 7, 4), (6, 0, 7, 4))

    @cached_property
    def glyphs(self) -> Tensor:
        """[10, 7, 4]"""
        found = torch.zeros(10, 7, 4)
        for digit, lit in enumerate(self.segments):
            for on, (top, left, bottom, right) in zip(lit, self.places, strict=True):
                if on == "1":
                    found[digit, top:bottom, left:right] = 1
        return found

    def draw(self, count: int, generator: torch.Generator) -> Examples:
        y = torch.randint(10, (count,), generator=generator)
        down, right = (torch.randint(high, (count,), generator=generator) for high in (2, 5))
        strength = 0.75 + 0.5 * torch.rand(count, 1, 1, generator=generator)
        pixels = torch.zeros(count, 8, 8)
        rows = (down[:, None] + torch.arange(7))[:, :, None]
        columns = (right[:, None] + torch.arange(4))[:, None, :]
        pixels[torch.arange(count)[:, None, None], rows, columns] = strength * self.glyphs[y]
        pixels += self.spread * torch.randn(pixels.shape, generator=generator)
        return Examples(pixels.flatten(1), y, 10)
