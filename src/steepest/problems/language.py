"""Four text tasks on which the effects of the literature show within seconds, each with a teacher that is wrong in a known way."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..core.problem import Prompts
from ..core.stream import Stream
from .symbolic import END, PAD, ZERO, Symbolic, Taught, chance, made, packed, pass_at_k, places, random, upto_end

DIGITS = tuple("0123456789")


@dataclass(frozen=True)
class AddCliff(Symbolic):
    """Add two numbers of n digits, written lowest digit first: 1 for exactly the n + 1 digits of the sum, else 0.

    Both numbers stand one behind the other, each with room for the longest, so that what belongs to a digit of the sum always
    stands at the same distance from it. The longer the numbers, the less often the teacher was right: beyond some length every
    answer of the policy is wrong, and a group of answers says nothing (the learning cliff). A hint writes the first digits of
    the sum into the prompt.

    width   the longest numbers (digits); all prompts are laid out for them
    least   the shortest numbers of training prompts
    most    the longest; None: width
    hints   prompts have places for a hint
    tests   fresh prompts of an evaluation, of each length
    warm    optimizer steps of the warm-up
    """

    width: int = 6
    least: int = 3
    most: int | None = None
    hints: bool = False
    tests: int = 128
    warm: int = 600

    alphabet = (*DIGITS, "_", "=")
    # of each of the teacher's digits that is not told, by their number
    noise: ClassVar[tuple[float, ...]] = (0.02, 0.05, 0.10, 0.20, 0.35, 0.50, 0.65, 0.75)

    def __post_init__(self) -> None:
        if not 1 <= self.width <= len(self.noise):
            raise ValueError(f"width lies in 1..{len(self.noise)}, not {self.width}")
        if not 1 <= self.least <= self.longest <= self.width or self.tests < 1:
            raise ValueError(
                f"needs 1 <= least <= most <= width and tests >= 1, not {self.least}, {self.longest}, {self.width} and {self.tests}"
            )

    @property
    def longest(self) -> int:
        return self.width if self.most is None else self.most

    @property
    def lesson(self) -> str:
        return repr(replace(self, least=1, most=None, tests=1))  # the teacher asks all lengths, whichever are trained then

    @property
    def max_new(self) -> int:  # type: ignore[override]
        return self.width + 2

    def ask(self, length: Tensor, generator: torch.Generator) -> Prompts:
        """A sum of two numbers of length[i] digits for each i."""
        digits = random(10, (len(length), self.width, 2), generator)
        digits = digits.where(torch.arange(self.width)[:, None] < length[:, None, None], 0).flatten(1)
        return self.written(packed(digits) + 10 ** (2 * self.width) * length)

    def category(self, key: Tensor) -> Tensor:
        """Which length each prompt has, from 0 for the shortest that is trained [N]."""
        return key // 10 ** (2 * self.width) - self.least

    def written(self, key: Tensor, level: float | Tensor = 0.0) -> Prompts:
        """The prompts of keys; of the sum's digits the share `level` (one number, or [N]) is told."""
        length, blank = key // 10 ** (2 * self.width), self.symbol("_")
        used = torch.arange(self.width) < length[:, None, None]
        digits = places(key, 2 * self.width).view(-1, self.width, 2).transpose(1, 2)
        parts = [(ZERO + digits).where(used, blank).flatten(1)]
        if self.hints:
            told = torch.arange(self.width + 1) < (torch.as_tensor(level) * (length + 1)).floor()[:, None]
            parts.append(self.right(key)[:, :-1].where(told, blank))
        ids = torch.cat([*parts, torch.full((len(key), 1), self.symbol("="))], 1)
        return Prompts(ids, made(ids), key)

    def hint(self, prompts: Prompts, level: float | Tensor) -> Prompts:
        """The same prompts with the share `level` of the answer's digits told. Raises ValueError without `hints`."""
        if not self.hints:
            raise ValueError("these prompts have no places for a hint: AddCliff(hints=True) has")
        return self.written(prompts.key, level)

    def prompts(self, count: int, generator: torch.Generator) -> Prompts:
        return self.ask(self.least + random(self.longest - self.least + 1, (count,), generator), generator)

    def right(self, key: Tensor) -> Tensor:
        length = (key // 10 ** (2 * self.width))[:, None]
        carry, digits = torch.zeros_like(key), []
        for total in places(key, 2 * self.width).view(-1, self.width, 2).sum(2).unbind(1):
            digits.append((total + carry) % 10)
            carry = (total + carry) // 10
        spelt = pad(ZERO + torch.stack([*digits, carry], 1), (0, 1))
        place = torch.arange(self.width + 2)
        return spelt.where(place <= length, END).where(place <= length + 1, PAD)

    def steps(self, prompts: Prompts, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Which tokens are steps [N, T] and which of them are right [N, T], as floats: each digit is a step of its own, and one
        behind the sum's last is wrong."""
        right = self.right(prompts.key)
        right = pad(right, (0, max(0, tokens.shape[1] - right.shape[1])), value=PAD)[:, : tokens.shape[1]]
        step = (mask > 0) & (tokens >= ZERO) & (tokens < ZERO + 10)
        return step.float(), (step & (tokens == right)).float()

    def teach(self, count: int, generator: torch.Generator) -> Taught:
        length = 1 + random(self.width, (count,), generator)
        prompts, told = self.ask(length, generator), torch.zeros(count)
        if self.hints:
            level = torch.rand(count, generator=generator) * chance(0.5, (count,), generator)
            prompts, told = self.hint(prompts, level), (level * (length + 1)).floor()
        right = self.right(prompts.key)
        wrong = ZERO + (right - ZERO + 1 + random(9, right.shape, generator)) % 10
        slip = chance(torch.tensor(self.noise)[length - 1, None], right.shape, generator) & (right >= ZERO)
        slip &= torch.arange(right.shape[1]) >= told[:, None]  # what is told is copied
        tokens = wrong.where(slip, right)
        return prompts, tokens, upto_end(tokens)

    def evaluate(self, policy: Any, rng: Stream) -> dict[str, float]:
        """`accuracy` of sampled answers at the lengths that are trained; then at each length."""
        length = torch.arange(1, self.width + 1).repeat_interleave(self.tests)
        prompts = self.ask(length, (rng / "prompts").torch())
        share = self.answered(policy, prompts, rng / "answers")[2].view(self.width, -1).mean(1).tolist()
        trained = share[self.least - 1 : self.longest]
        return {"accuracy": sum(trained) / len(trained)} | {f"{n} digit{'s' * (n > 1)}": x for n, x in enumerate(share, 1)}


@dataclass(frozen=True)
class ModeLottery(Symbolic):
    """Four strategies answer a prompt of five digits: strategy j says the j-th digit plus 3, modulo 10. One is accepted.

    Which one is drawn with chances .45, .30, .15, .10, independently of the prompt, and cannot be seen: the best single
    answer always follows the first strategy, but to be right once in many answers (pass@k) all four must stay alive.
    An answer is a strategy's name and a digit; only the digit is checked.

    accept  "one" strategy is accepted, or "any"
    tests   fresh prompts of an evaluation
    warm    optimizer steps of the warm-up
    """

    accept: Literal["one", "any"] = "one"
    tests: int = 256
    warm: int = 400

    alphabet = (*DIGITS, "=", "S0", "S1", "S2", "S3")
    chances = (0.45, 0.30, 0.15, 0.10)
    slip = 0.1  # of the teacher's digits
    max_new = 3
    tries = 16  # answers to a prompt in an evaluation

    def __post_init__(self) -> None:
        if self.accept not in ("one", "any") or self.tests < 1:
            raise ValueError(f"accept must be 'one' or 'any' and tests at least 1, not {self.accept!r} and {self.tests}")

    def prompts(self, count: int, generator: torch.Generator) -> Prompts:
        digits = random(10, (count, 5), generator)
        accepted = torch.multinomial(torch.tensor(self.chances), count, replacement=True, generator=generator)
        ids = torch.cat([ZERO + digits, torch.full((count, 1), self.symbol("="))], 1)
        return Prompts(ids, made(ids), packed(digits) + 10**5 * accepted)

    def said_by(self, strategy: Tensor, key: Tensor) -> Tensor:
        """The digit that strategy [N, ...] says to key [N]."""
        return (places(key, 5).gather(1, strategy) + 3) % 10

    def right(self, key: Tensor) -> Tensor:
        strategy = (key // 10**5)[:, None]
        return torch.cat([self.symbol("S0") + strategy, ZERO + self.said_by(strategy, key), torch.full_like(strategy, END)], 1)

    def score(self, prompts: Prompts, tokens: Tensor, mask: Tensor) -> Tensor:
        name, digit, end = pad(tokens.masked_fill(mask == 0, PAD), (0, 3), value=PAD)[:, :3].unbind(1)
        strategy = torch.arange(4).expand(len(name), 4) if self.accept == "any" else (prompts.key // 10**5)[:, None]
        accepted = (ZERO + self.said_by(strategy, prompts.key) == digit[:, None]).any(1)
        return (accepted & (name >= self.symbol("S0")) & (end == END)).float()

    def kinds(self, prompts: Prompts, tokens: Tensor, mask: Tensor) -> Tensor:
        """Which strategy is named."""
        return tokens[:, 0]

    def teach(self, count: int, generator: torch.Generator) -> Taught:
        prompts = self.prompts(count, generator)
        strategy = random(4, (count, 1), generator)
        said = self.said_by(strategy, prompts.key)
        said = (said + (1 + random(9, (count, 1), generator)) * chance(self.slip, (count, 1), generator)) % 10
        tokens = torch.cat([self.symbol("S0") + strategy, ZERO + said, torch.full_like(said, END)], 1)
        return prompts, tokens, upto_end(tokens)

    def evaluate(self, policy: Any, rng: Stream) -> dict[str, float]:
        """`accuracy` of one sampled answer (pass@1), pass@2 to pass@16, and the entropy of the strategies named (nats)."""
        drawn = self.prompts(self.tests, (rng / "prompts").torch())
        asked = Prompts(*(x.repeat_interleave(self.tries, 0) for x in (drawn.ids, drawn.mask, drawn.key)))
        tokens, _, score = self.answered(policy, asked, rng / "answers")
        hits = score.view(self.tests, -1).sum(1).long()
        passed = {k: float(pass_at_k(self.tries, hits, k).mean()) for k in (1, 2, 4, 8, 16)}
        share = torch.bincount(tokens[:, 0], minlength=2 + len(self.alphabet))[self.symbol("S0") :] / len(tokens)
        spread = -float(torch.special.xlogy(share, share).sum())
        return {"accuracy": passed[1], **{f"pass@{k}": x for k, x in passed.items() if k > 1}, "strategy entropy": spread}


@dataclass(frozen=True)
class ChainSum(Symbolic):
    """The sum of k digits modulo 10, said at once, or after a chain of running sums as long as the policy likes.

    An answer is `now` and a digit, or `chain`, the k running sums with any number of filler dots behind each, `so` and a
    digit. Only the digit and the form are checked. The teacher takes either way, and slips in 3 % of its running sums.

    width   the most digits
    least   the fewest digits of training prompts
    tests   fresh prompts of an evaluation, of each k
    warm    optimizer steps of the warm-up
    """

    width: int = 8
    least: int = 2
    tests: int = 128
    warm: int = 800

    alphabet = (*DIGITS, "_", "=", "now", "chain", "so", ".")
    filler, slip = 0.35, 0.03
    max_new = 24

    def __post_init__(self) -> None:
        if not 2 <= self.least <= self.width <= 8 or self.tests < 1:
            raise ValueError(
                f"needs 2 <= least <= width <= 8 and tests of at least 1, not {self.least}, {self.width} and {self.tests}"
            )

    def ask(self, length: Tensor, generator: torch.Generator) -> Prompts:
        """A sum of length[i] digits for each i."""
        used = torch.arange(self.width) < length[:, None]
        digits = random(10, used.shape, generator).where(used, 0)
        ids = torch.cat([(ZERO + digits).where(used, self.symbol("_")), torch.full((len(length), 1), self.symbol("="))], 1)
        return Prompts(ids, made(ids), packed(digits) + 10**self.width * length)

    def prompts(self, count: int, generator: torch.Generator) -> Prompts:
        return self.ask(self.least + random(self.width - self.least + 1, (count,), generator), generator)

    def category(self, key: Tensor) -> Tensor:
        """How many digits each prompt has, from 0 for the fewest that are trained [N]."""
        return key // 10**self.width - self.least

    def sums(self, key: Tensor) -> Tensor:
        """The running sums modulo 10 [N, width]; beyond the last digit they stay."""
        return places(key, self.width).cumsum(1) % 10

    def right(self, key: Tensor) -> Tensor:
        total = self.sums(key)[:, -1:]
        return torch.cat([torch.full_like(total, self.symbol("now")), ZERO + total, torch.full_like(total, END)], 1)

    def score(self, prompts: Prompts, tokens: Tensor, mask: Tensor) -> Tensor:
        """1 for the right digit in one of the two forms; what the running sums are does not matter."""
        letters = "~$0123456789_=ncs."  # a letter for each token
        texts = ("".join(letters[i] for i in row) for row in tokens.masked_fill(mask == 0, PAD).tolist())
        totals, lengths = self.sums(prompts.key)[:, -1].tolist(), (prompts.key // 10**self.width).tolist()
        return torch.tensor([
            float(re.fullmatch(rf"(?:n|c(?:\d\.*){{{k}}}s){total}\$~*", text) is not None)
            for text, total, k in zip(texts, totals, lengths, strict=True)
        ])  # fmt: skip

    def kinds(self, prompts: Prompts, tokens: Tensor, mask: Tensor) -> Tensor:
        """The token before the end token, which is the digit said; of an answer that was cut off, its last."""
        return tokens.gather(1, (mask.sum(1, keepdim=True).long() - 2).clamp(min=0)).squeeze(1)

    def steps(self, prompts: Prompts, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Which tokens are steps [N, T] and which of them are right [N, T], as floats: the digits of a chain before `so`, where
        the i-th is right if it is the i-th running sum. An answer that is said at once has no step."""
        made, width = mask > 0, self.width
        so = (((tokens == self.symbol("so")) & made).cumsum(1)) > 0
        step = made & ~so & (tokens[:, :1] == self.symbol("chain")) & (tokens >= ZERO) & (tokens < ZERO + 10)
        place = step.cumsum(1) - 1
        truth = self.sums(prompts.key).gather(1, place.clamp(0, width - 1))
        asked = place < (prompts.key // 10**width)[:, None]
        return step.float(), (step & asked & (tokens - ZERO == truth)).float()

    def units(self, prompts: Prompts, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Where an easy unit of thought begins (`now`) and where a hard one does (`chain`), both [N, T] as floats, and whether what
        follows is what was announced [N] bool: running sums in a chain, and nowhere else."""
        first = (torch.arange(tokens.shape[1]) == 0) & (mask > 0)
        easy, hard = (first & (tokens == self.symbol(name)) for name in ("now", "chain"))
        return easy.float(), hard.float(), self.steps(prompts, tokens, mask)[0].any(1) == hard.any(1)

    def chain(self, k: Tensor, sums: Tensor, dots: Tensor, total: Tensor) -> Tensor:
        """Answers [N, max_new] that write the first k [N, 1] running sums, with `dots` [N, width] behind each while there is room,
        and then the total [N, 1]."""
        upto = dots.cumsum(1).minimum(self.max_new - 4 - k)  # dots behind each sum and those before it
        place = torch.arange(1, self.width + 1) + pad(upto, (1, -1))
        so = 1 + k + upto.gather(1, k - 1)
        column, spare = torch.arange(self.max_new + 1), self.max_new
        slow = torch.full((len(k), self.max_new + 1), self.symbol(".")).where(column < so, PAD)
        slow.scatter_(1, place.where(place < so, spare), ZERO + sums)
        slow[:, :1] = self.symbol("chain")
        last = (torch.full_like(k, self.symbol("so")), ZERO + total, torch.full_like(k, END))
        slow.scatter_(1, so + torch.arange(3), torch.cat(last, 1))
        return slow[:, : self.max_new]

    def teach(self, count: int, generator: torch.Generator) -> Taught:
        length = 2 + random(self.width - 1, (count,), generator)
        prompts = self.ask(length, generator)
        k, digits = length[:, None], places(prompts.key, self.width)
        slips = chance(self.slip, digits.shape, generator) * (1 + random(9, digits.shape, generator))
        sums = (digits + slips).cumsum(1) % 10  # a slip is carried on
        dots = torch.rand(digits.shape, generator=generator).log() / math.log(self.filler)
        dots = dots.clamp(max=self.max_new).long()  # one draw in 2^24 is 0, whose logarithm is no number of dots
        slow = self.chain(k, sums, dots, sums.gather(1, k - 1))
        fast = pad(self.right(prompts.key), (0, self.max_new - 3), value=PAD)
        tokens = slow.where(chance(0.5, (count, 1), generator), fast)
        return prompts, tokens, upto_end(tokens)

    def evaluate(self, policy: Any, rng: Stream) -> dict[str, float]:
        """`accuracy` of sampled answers over all k that are trained; then at each k; `length` in tokens; share of `chains`."""
        length = torch.arange(self.least, self.width + 1).repeat_interleave(self.tests)
        prompts = self.ask(length, (rng / "prompts").torch())
        tokens, mask, score = self.answered(policy, prompts, rng / "answers")
        share = score.view(-1, self.tests).mean(1).tolist()
        chains = float((tokens[:, 0] == self.symbol("chain")).float().mean())
        named = {f"{k} digits": x for k, x in enumerate(share, self.least)}
        return {"accuracy": float(score.mean()), **named, "length": float(mask.sum(1).mean()), "chains": chains}


@dataclass(frozen=True)
class BlindSpot(Symbolic):
    """Say the digit that stands at a place of the context; a suggested digit beside it is often, but not always, right.

    The teacher follows the suggestion more often than the context, so the policy starts out blind to what it should read.

    context  digits to read from
    honest   how often the suggestion is right
    tests    fresh prompts of an evaluation, with right suggestions and with wrong ones
    warm     optimizer steps of the warm-up
    """

    context: int = 6
    honest: float = 0.7
    tests: int = 256
    warm: int = 600

    alphabet = (*DIGITS, "=", "?", "#")
    follows, slip, masked = 0.7, 0.1, 0.3  # of the teacher: trust in the suggestion, wrong digits, prompts with a hidden context
    max_new = 2

    def __post_init__(self) -> None:
        if not 2 <= self.context <= 10 or not 0 <= self.honest <= 1 or self.tests < 1:
            raise ValueError(
                f"needs 2 <= context <= 10, honest in [0, 1] and tests >= 1, not {self.context}, {self.honest} and {self.tests}"
            )

    def ask(self, honest: Tensor, generator: torch.Generator) -> Prompts:
        """A question for each entry of `honest` [N] bool: whether its suggestion is right."""
        digits = random(10, (len(honest), self.context), generator)
        place = random(self.context, (len(honest), 1), generator)
        truth = digits.gather(1, place)
        said = truth.where(honest[:, None], (truth + 1 + random(9, truth.shape, generator)) % 10)
        key = packed(torch.cat([digits, place, said], 1))
        query, equals = (torch.full_like(place, self.symbol(name)) for name in ("?", "="))
        ids = torch.cat([ZERO + digits, query, ZERO + place, ZERO + said, equals], 1)
        return Prompts(ids, made(ids), key)

    def hidden(self, prompts: Prompts) -> Prompts:
        """The same questions with a context that cannot be read."""
        ids = prompts.ids.clone()
        ids[:, : self.context] = self.symbol("#")
        return Prompts(ids, prompts.mask, prompts.key)

    def prompts(self, count: int, generator: torch.Generator) -> Prompts:
        return self.ask(chance(self.honest, (count,), generator), generator)

    def right(self, key: Tensor) -> Tensor:
        digits = places(key, self.context + 1)
        truth = digits.gather(1, digits[:, -1:])
        return torch.cat([ZERO + truth, torch.full_like(truth, END)], 1)

    def teach(self, count: int, generator: torch.Generator) -> Taught:
        prompts = self.ask(chance(0.5, (count,), generator), generator)  # where both agree, nothing is learned of the context
        truth, said = self.right(prompts.key)[:, :1] - ZERO, places(prompts.key, self.context + 2)[:, -1:]
        blind = chance(self.masked, (count, 1), generator)
        answer = said.where(blind | chance(self.follows, (count, 1), generator), truth)
        answer = answer.where(~chance(self.slip, (count, 1), generator), random(10, (count, 1), generator))
        tokens = torch.cat([ZERO + answer, torch.full_like(answer, END)], 1)
        ids = self.hidden(prompts).ids.where(blind, prompts.ids)
        return Prompts(ids, prompts.mask, prompts.key), tokens, upto_end(tokens)

    def evaluate(self, policy: Any, rng: Stream) -> dict[str, float]:
        """`accuracy` of sampled answers where the suggestion is wrong, and where it is right; how often it is `followed`."""
        honest = torch.arange(2 * self.tests) >= self.tests
        prompts = self.ask(honest, (rng / "prompts").torch())
        tokens, _, score = self.answered(policy, prompts, rng / "answers")
        followed = (tokens[:, 0] - ZERO == places(prompts.key, self.context + 2)[:, -1]).float()
        shares = {"accuracy": score[~honest], "right suggestion": score[honest], "followed": followed}
        return {name: float(share.mean()) for name, share in shares.items()}
