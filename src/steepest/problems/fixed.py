"""A set of prompts that stays the same, drawn once from a problem that never runs out of them."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..core.problem import Language, Pool, Prompts, Warmup
from ..core.stream import Stream
from .language import AddCliff


@dataclass(frozen=True)
class Fixed(Pool):
    """`count` training prompts of a problem, numbered; evaluations ask what the problem itself would.

    problem  any Language problem, said in Python; on the command line that of the system's claim
    count    prompts
    seed     of the draw
    """

    problem: Language = AddCliff()  # noqa: RUF009  frozen
    count: int = 128
    seed: int = 0

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"count must be at least 1, not {self.count}: there would be nothing to ask")

    @functools.cached_property
    def drawn(self) -> Prompts:
        return self.problem.prompts(self.count, Stream(self.seed, "fixed prompts").torch())

    @property
    def size(self) -> int:
        return self.count

    def pick(self, index: Tensor) -> Prompts:
        return Prompts(self.drawn.ids[index], self.drawn.mask[index], index)

    def original(self, prompts: Prompts) -> Prompts:
        """The same prompts with the keys that the problem gave them."""
        return Prompts(prompts.ids, prompts.mask, self.drawn.key[prompts.key])

    def grade(self, prompts: Prompts, tokens: Tensor, mask: Tensor) -> tuple[Tensor, dict[str, float]]:
        return self.problem.grade(self.original(prompts), tokens, mask)

    def score(self, prompts: Prompts, tokens: Tensor, mask: Tensor) -> Tensor:
        return self.grade(prompts, tokens, mask)[0]

    def kinds(self, prompts: Prompts, tokens: Tensor, mask: Tensor) -> Tensor:
        return self.problem.kinds(self.original(prompts), tokens, mask)

    def hint(self, prompts: Prompts, level: float | Tensor) -> Prompts:
        """As the problem's own `hint`, where it has one."""
        problem: Any = self.problem
        told = problem.hint(self.original(prompts), level)
        return Prompts(told.ids, told.mask, prompts.key)

    @property
    def category_of(self) -> Tensor:
        """As the problem's own `category` of each prompt [size], where it has one."""
        problem: Any = self.problem
        return problem.category(self.drawn.key)

    def demonstrate(self, prompts: Prompts) -> tuple[Tensor, Tensor]:
        """As the problem's own `demonstrate`, where it has one."""
        problem: Any = self.problem
        return problem.demonstrate(self.original(prompts))

    def evaluate(self, policy: Any, rng: Stream) -> dict[str, float]:
        return self.problem.evaluate(policy, rng)

    def examples(self, policy: Any, rng: Stream, count: int) -> list[dict[str, Any]]:
        problem: Any = self.problem
        return problem.examples(policy, rng, count)

    def check_room(self, room: int) -> None:
        self.problem.check_room(room)

    def config(self) -> Any:
        return self.problem.config()

    @property
    def tokenizer(self) -> Any:  # type: ignore[override]
        return self.problem.tokenizer

    @property
    def max_new(self) -> int:  # type: ignore[override]
        return self.problem.max_new

    @property
    def warmup(self) -> Warmup | None:
        return self.problem.warmup

    @property
    def lesson(self) -> str:
        return self.problem.lesson
