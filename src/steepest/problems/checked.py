"""Sums, and answers to sums that are to be judged: one policy solves and checks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..core.problem import Prompts
from ..core.stream import Stream
from .language import DIGITS, AddCliff
from .symbolic import END, ZERO, Taught, chance, made, random, same, upto_end

SCORES = (1.0, -0.5, -1.0)  # right, wrong, not in the form of an answer
VERDICTS = ("right", "wrong", "unread")  # what is to be said of an answer with that score


@dataclass(frozen=True)
class CheckedSum(AddCliff):
    """Sums as in AddCliff, and after `?` an answer to one, of which the policy is to say what score it has.

    Right is worth 1, wrong but in the form of an answer -.5, anything else -1, for sums and for verdicts alike (as in RISE's
    authors' code). Half of what the teacher shows are verdicts, of which `doubt` are wrong.
    """

    width: int = 2
    least: int = 1

    alphabet = (*DIGITS, "_", "=", "?", *VERDICTS)
    noise: ClassVar[tuple[float, ...]] = (0.2, 0.3)
    doubt: ClassVar[float] = 0.4

    @property
    def base(self) -> int:
        """Keys of answers to be judged begin here: (1 + the place of its score) * base + the sum's key."""
        return 10 ** (2 * self.width + 1)

    def to_check(self, prompts: Prompts, tokens: Tensor, mask: Tensor) -> Prompts:
        """Prompts that ask for the score of these answers [N, T] to sums."""
        blank, short = self.symbol("_"), self.max_new - tokens.shape[1]
        said = pad(tokens.masked_fill(mask == 0, blank), (0, short), value=blank)
        ids = torch.cat([prompts.ids, said, torch.full((len(said), 1), self.symbol("?"))], 1)
        return Prompts(ids, made(ids), prompts.key + self.base * (1 + self.graded(prompts.key, tokens, mask)))

    def graded(self, key: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        """Which of the scores answers to sums have [N] long."""
        right, form = super().right(key), torch.where((tokens >= ZERO) & (tokens < ZERO + 10), ZERO, tokens)
        good = same(tokens, mask, right) > 0
        formed = same(form, mask, torch.where(right >= ZERO, ZERO, right)) > 0
        return torch.where(good, 0, torch.where(formed, 1, 2))

    def right(self, key: Tensor) -> Tensor:
        solved = super().right(key % self.base)
        told = torch.zeros_like(solved)
        told[:, 0], told[:, 1] = self.symbol("right") + key // self.base - 1, END
        return torch.where((key >= self.base)[:, None], told, solved)

    def score(self, prompts: Prompts, tokens: Tensor, mask: Tensor) -> Tensor:
        check, scores = prompts.key >= self.base, torch.tensor(SCORES)
        good = same(tokens, mask, self.right(prompts.key)) > 0
        first, last = self.symbol(VERDICTS[0]), self.symbol(VERDICTS[-1])
        form = (mask.sum(1) == 2) & (tokens[:, 0] >= first) & (tokens[:, 0] <= last)
        form = form & (pad(tokens, (0, 1))[:, 1] == END)
        said = torch.where(good, 0, torch.where(form, 1, 2))
        return scores[torch.where(check, said, self.graded(prompts.key % self.base, tokens, mask))]

    def teach(self, count: int, generator: torch.Generator) -> Taught:
        prompts, tokens, _ = super().teach(count, generator)
        half = count // 2
        judged = tokens[:half].clone()
        broken = chance(0.2, (half,), generator)
        judged[:, 0] = torch.where(broken, END, judged[:, 0])  # an answer that says nothing
        asked = self.to_check(Prompts(prompts.ids[:half], prompts.mask[:half], prompts.key[:half]), judged, upto_end(judged))
        verdict = self.right(asked.key)
        other = (verdict[:, 0] - self.symbol("right") + 1 + random(2, (half,), generator)) % 3 + self.symbol("right")
        verdict[:, 0] = torch.where(chance(self.doubt, (half,), generator), other, verdict[:, 0])
        space = asked.ids.shape[1] - prompts.ids.shape[1]
        ids, real = (torch.cat([x, pad(y[half:], (space, 0))]) for x, y in ((asked.ids, prompts.ids), (asked.mask, prompts.mask)))
        tokens = torch.cat([verdict, tokens[half:]])
        return Prompts(ids, real, torch.cat([asked.key, prompts.key[half:]])), tokens, upto_end(tokens)

    def evaluate(self, policy: Any, rng: Stream) -> dict[str, float]:
        """`accuracy` of sampled answers to sums; `verification`: how often the verdict on them is right, on average over those that
        are right and those that are not."""
        prompts = self.prompts(self.tests * self.width, (rng / "prompts").torch())
        tokens, mask, score = self.answered(policy, prompts, rng / "answers")
        verdict = self.answered(policy, self.to_check(prompts, tokens, mask), rng / "verdicts")[2] == SCORES[0]
        good = score == SCORES[0]
        shares = [float(verdict[kind].float().mean()) for kind in (good, ~good) if bool(kind.any())]
        return {"accuracy": float(good.float().mean()), "verification": sum(shares) / len(shares)}
