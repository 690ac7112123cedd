"""Straight-line programs that can be made shorter: the cost of a program is counted, not timed."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..core.problem import Prompts
from ..core.stream import Stream
from .symbolic import END, PAD, ZERO, Symbolic, Taught, chance, made, places, random, upto_end

OPERATIONS = ("+", "-", "d")  # on the accumulator y, which begins as x: y + x, y - x, y + y


@dataclass(frozen=True)
class StraightLine(Symbolic):
    """Make a program for k x cheaper. It has one accumulator, which begins as x, and three operations: add x, take x away, double.

    A prompt is k, a right program for it, and how many operations that one takes; an answer is another program. It is right if it
    gives k x for every x, which is decided exactly, and costs as many operations as it has. The teacher answers with a right
    program that is no more expensive than the one it was shown, and slips in some.

    most     the largest k; the smallest is 3
    room     operations of the longest program
    waste    operations that a program to be made cheaper has too many, at most
    rounds   of an evaluation: each begins with the cheapest right program so far
    tests    prompts of an evaluation
    warm     optimizer steps of the warm-up
    """

    most: int = 24
    room: int = 9
    waste: int = 4
    rounds: int = 4
    tests: int = 256
    warm: int = 600

    alphabet = (*"0123456789", "_", "=", *OPERATIONS)
    slip = 0.15  # chance that the teacher gets one of a program's operations wrong

    def __post_init__(self) -> None:
        if not 3 <= self.most <= 99 or not 1 <= self.room <= 20 or min(self.waste, self.rounds, self.tests) < 1:
            raise ValueError(
                "needs 3 <= most <= 99, 1 <= room <= 20 and waste, rounds and tests of at least 1, not "
                f"{self.most}, {self.room}, {self.waste}, {self.rounds} and {self.tests}"
            )
        dear = [k for k in range(3, self.most + 1) if not self.wasteful[k].any()]
        if dear:
            raise ValueError(f"{dear[0]} x has no program of at most {self.room} operations that can be made cheaper: raise room")

    @property
    def max_new(self) -> int:  # type: ignore[override]
        return self.room + 1

    # -------------------------------------------------------------------------------- how many programs there are

    @functools.cached_property
    def count(self) -> Tensor:
        """Programs of n operations that give v x [room + 1, 2 most + 1]; no step of theirs leaves 1 x to 2 most x."""
        found = torch.zeros(self.room + 1, 2 * self.most + 1, dtype=torch.float64)
        found[0, 1] = 1
        value = torch.arange(1, 2 * self.most + 1)
        for n in range(1, self.room + 1):
            found[n, 1:] = torch.stack(self.before(found[n - 1], value)).sum(0)
        return found

    def before(self, count: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What `count` [2 most + 1] says of the values from which each operation leads to `value`; 0 where there is none."""
        plus, minus = count[value - 1], torch.where(value < 2 * self.most, count[(value + 1).clamp(max=2 * self.most)], 0.0)
        return plus, minus, torch.where(value % 2 == 0, count[value // 2], 0.0)

    @functools.cached_property
    def least(self) -> Tensor:
        """The fewest operations for each k [most + 1]."""
        return (self.count[:, : self.most + 1] > 0).long().argmax(0)

    @functools.cached_property
    def wasteful(self) -> Tensor:
        """For each k, which numbers of operations the program of a prompt may have [most + 1, room + 1]."""
        n, least = torch.arange(self.room + 1), self.least[:, None]
        return (self.count[:, : self.most + 1].T > 0) & (n > least) & (n <= least + self.waste)

    def programs(self, k: Tensor, cost: Tensor, draw: Tensor) -> Tensor:
        """Programs for k [N] of `cost` [N] operations, each as likely as any other: numbers of operations from 1 on, and 0 behind
        them [N, room]. `draw` [N, room] is uniform in [0, 1)."""
        found, value = torch.zeros(len(k), self.room, dtype=torch.long), k.clone()
        for n in range(self.room, 0, -1):
            weight = torch.stack(self.before_each(n - 1, value), 1)
            made = (draw[:, n - 1, None] * weight.sum(1, keepdim=True) >= weight.cumsum(1)).sum(1).clamp(max=2)
            origin = torch.stack([value - 1, value + 1, value // 2], 1).gather(1, made[:, None]).squeeze(1)
            now = n <= cost
            found[:, n - 1] = torch.where(now, made + 1, 0)
            value = torch.where(now, origin, value)
        return found

    def before_each(self, n: int, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.before(self.count[n], value)

    # -------------------------------------------------------------------------------- prompts

    def written(self, k: Tensor, program: Tensor) -> Prompts:
        """The prompt that shows `program` [N, room] for k [N]; its key holds both."""
        cost = (program > 0).sum(1)
        shown = torch.where(program > 0, self.symbol("+") + program - 1, self.symbol("_"))
        ends = torch.full((len(k), 1), self.symbol("="))
        ids = torch.cat([ZERO + places(k, 2), shown, ZERO + places(cost, 2), ends], 1)
        return Prompts(ids, made(ids), k + 100 * (program * 4 ** torch.arange(self.room)).sum(1))

    def read(self, key: Tensor) -> tuple[Tensor, Tensor]:
        """k [N] and the program [N, room] of each prompt."""
        return key % 100, key[:, None] // 100 // 4 ** torch.arange(self.room) % 4

    def prompts(self, count: int, generator: torch.Generator) -> Prompts:
        k = 3 + random(self.most - 2, (count,), generator)
        cost = torch.multinomial(self.wasteful[k].double(), 1, generator=generator).squeeze(1)
        return self.written(k, self.programs(k, cost, self.uniform(count, generator)))

    def uniform(self, count: int, generator: torch.Generator) -> Tensor:
        return torch.rand(count, self.room, generator=generator, dtype=torch.float64)

    # -------------------------------------------------------------------------------- answers

    def spelt(self, program: Tensor) -> Tensor:
        """As an answer: tokens [N, room + 1]."""
        tokens = torch.where(program > 0, self.symbol("+") + program - 1, PAD)
        tokens = torch.cat([tokens, torch.full_like(tokens[:, :1], PAD)], 1)
        return tokens.scatter(1, (program > 0).sum(1, keepdim=True), END)

    def measured(self, prompts: Prompts, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Of each answer whether it is a program, whether that is right, and its cost [N, 1]; and the cost of what was shown [N].
        Costs are exact: one measurement says all."""
        k, shown = self.read(prompts.key)
        said = tokens.masked_fill(mask == 0, PAD)
        step = (said >= self.symbol("+")) & (mask > 0)
        length = step.sum(1)
        ended = (said == END).sum(1) == 1
        form = ended & (length == mask.sum(1) - 1) & (length > 0)
        value = torch.ones_like(k)
        for at in said.unbind(1):
            moved = (value + 1, value - 1, 2 * value)
            for name, new in zip(OPERATIONS, moved, strict=True):
                value = torch.where(at == self.symbol(name), new, value)
        return form.float(), (form & (value == k)).float(), length[:, None].float(), (shown > 0).sum(1).float()

    def right(self, key: Tensor) -> Tensor:
        """A cheapest program of each prompt; one of several, always the same."""
        k = self.read(key)[0]
        return self.spelt(self.programs(k, self.least[k], torch.zeros(len(k), self.room, dtype=torch.float64)))

    def score(self, prompts: Prompts, tokens: Tensor, mask: Tensor) -> Tensor:
        """1 for a right program, whatever it costs."""
        return self.measured(prompts, tokens, mask)[1]

    def demonstrate(self, prompts: Prompts) -> tuple[Tensor, Tensor]:
        """An expert's answers: one of the programs that are cheaper than the one shown by as little as can be, a prompt's own."""
        k, shown = self.read(prompts.key)
        n, cost = torch.arange(self.room + 1), (shown > 0).sum(1, keepdim=True)
        known = (self.count[:, k].T > 0) & (n < cost)
        best = torch.where(known.any(1), (known * n).argmax(1), self.least[k])
        draw = np.stack([Stream("expert", key).numpy().random(self.room) for key in prompts.key.tolist()])
        tokens = self.spelt(self.programs(k, best, torch.as_tensor(draw)))
        return tokens, upto_end(tokens)

    def teach(self, count: int, generator: torch.Generator) -> Taught:
        prompts = self.prompts(count, generator)
        k, shown = self.read(prompts.key)
        usable = (self.count[:, k].T > 0) & (torch.arange(self.room + 1) <= (shown > 0).sum(1, keepdim=True))
        cost = torch.multinomial(usable.double(), 1, generator=generator).squeeze(1)
        program = self.programs(k, cost, self.uniform(count, generator))
        place = (torch.rand(count, generator=generator) * cost).long()[:, None]
        wrong = 1 + (program.gather(1, place) + random(2, (count, 1), generator)) % 3
        slipped = torch.where(chance(self.slip, (count, 1), generator), wrong, program.gather(1, place))
        tokens = self.spelt(program.scatter(1, place, slipped))
        return prompts, tokens, upto_end(tokens)

    # -------------------------------------------------------------------------------- rounds

    def refined(self, policy: Any, prompts: Prompts, rng: Stream, rounds: int) -> Tensor:
        """The cost of the cheapest right program after 0, 1, ... rounds [rounds + 1, N]: each round shows the policy that program
        and keeps its answer where it is right and cheaper."""
        k, best = self.read(prompts.key)
        costs = [(best > 0).sum(1)]
        for n in range(rounds):
            shown = self.written(k, best)
            tokens, mask, _ = self.answered(policy, shown, rng / n)
            _, right, cost, before = self.measured(shown, tokens, mask)
            better = (right > 0) & (cost[:, 0] < before)
            answer = torch.where((tokens >= self.symbol("+")) & (mask > 0), tokens - self.symbol("+") + 1, 0)
            wide = torch.zeros(len(k), self.room + 1, dtype=torch.long)
            wide[:, : answer.shape[1]] = answer
            best = torch.where(better[:, None], wide[:, : self.room], best)
            costs.append((best > 0).sum(1))
        return torch.stack(costs)

    def evaluate(self, policy: Any, rng: Stream) -> dict[str, float]:
        """Of the operations that could be `saved`, the share that is after all rounds, and after each; `right` answers at first."""
        prompts = self.prompts(self.tests, (rng / "prompts").torch())
        costs = self.refined(policy, prompts, rng / "rounds", self.rounds).float()
        spare = (costs[0] - self.least[self.read(prompts.key)[0]]).sum()
        share = [float((costs[0] - now).sum() / spare) for now in costs[1:]]
        named = {f"after {n} round{'s' * (n > 1)}": x for n, x in enumerate(share, 1)}
        return {"saved": share[-1], **named, "right": float(self.answered(policy, prompts, rng / "rounds" / 0)[2].mean())}
