"""Questions in plain text, each answered once: the text is the model's own tokens, the verdict a function of the text."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..core.problem import Pool, Prompts
from ..core.stream import Stream
from .rewards import Reward, guarded
from .tokens import byte_level

Row = tuple[str, str]  # a question, and the answer that the reward compares with
ROWS = 64  # answers at once in an evaluation
SLACK = 8  # tokens by which a tokenizer may exceed the bytes of a text: marks of its beginning and the like


class SingleTurn(Pool):
    """Questions and a reward for the text of an answer. Frozen dataclasses below it say which.

    The question is put in the words of the tokenizer's chat template where it has one. Keys of prompts are rows of `train`.

    max_new         the longest answer, in tokens
    tests           questions of an evaluation, drawn from the test split
    tokenizer_name  folder or hub id of the model's tokenizer; default: that of `--model`, or one token a byte
    """

    train: Sequence[Row]
    test: Sequence[Row]
    reward: Reward
    tests: int
    tokenizer_name: str | None

    seconds: float | None = None  # time limit of a call of `reward`
    failing: float = 0.0  # the reward where it raised or took longer
    figure = "score"  # what the mean reward is called
    instruction = ""  # said after every question

    @functools.cached_property
    def tokenizer(self) -> Any:  # type: ignore[override]
        return byte_level() if self.tokenizer_name is None else pretrained(self.tokenizer_name)

    def config(self) -> Any:
        from transformers import LlamaConfig

        return LlamaConfig(
            vocab_size=len(self.tokenizer), hidden_size=128, intermediate_size=352, num_hidden_layers=4, num_attention_heads=4,
            num_key_value_heads=4, max_position_embeddings=2048, pad_token_id=self.tokenizer.pad_token_id,
            eos_token_id=self.tokenizer.eos_token_id, bos_token_id=None,
        )  # fmt: skip

    def plain(self, said: str) -> str:
        """What a model without a chat template reads where a user would say that."""
        return said

    def encoded(self, questions: Sequence[str]) -> list[list[int]]:
        """The tokens of each question as the model reads it."""
        words, said = self.tokenizer, [question + self.instruction for question in questions]
        if words.chat_template:
            chats = [[{"role": "user", "content": text}] for text in said]
            return words.apply_chat_template(chats, add_generation_prompt=True, tokenize=True, return_dict=True)["input_ids"]
        rows = words([self.plain(text) for text in said])["input_ids"]
        return [row[:-1] if row[-1:] == [words.eos_token_id] else row for row in rows]  # nothing has ended yet

    def asked(self, questions: Sequence[str], key: Tensor) -> Prompts:
        """Those questions, padded on the left."""
        rows = self.encoded(questions)
        width = max(map(len, rows))
        ids = torch.full((len(rows), width), self.tokenizer.pad_token_id)
        mask = torch.zeros(len(rows), width)
        for n, row in enumerate(rows):
            ids[n, width - len(row) :] = torch.tensor(row)
            mask[n, width - len(row) :] = 1
        return Prompts(ids, mask, key)

    @property
    def size(self) -> int:
        return len(self.train)

    def pick(self, index: Tensor) -> Prompts:
        return self.asked([self.train[k][0] for k in index.tolist()], index)

    def check_room(self, room: int) -> None:
        """Only what could be too long is cut into tokens: no text has more of them than bytes."""
        for split in ("train", "test"):
            rows = getattr(self, split)
            if not rows:
                continue
            beside = len(self.encoded([""])[0]) + SLACK + self.max_new
            doubtful = [n for n, (question, _) in enumerate(rows) if len(question.encode()) + beside > room]
            lengths = map(len, self.encoded([rows[n][0] for n in doubtful]) if doubtful else [])
            longest, index = max(zip(lengths, doubtful, strict=True), default=(0, 0))
            if longest + self.max_new > room:
                raise ValueError(
                    f"question {index} of {type(self).__name__}.{split} is a prompt of {longest} tokens; with "
                    f"max_new={self.max_new} of answer it exceeds the model's context of {room}: lower max_new, take a model with "
                    "a longer context or leave such questions out"
                )

    def read(self, tokens: Tensor, mask: Tensor) -> list[str]:
        """The texts of answers, without the end token."""
        said = [row[made].tolist() for row, made in zip(tokens, mask > 0, strict=True)]
        return [self.tokenizer.decode(row, skip_special_tokens=True) for row in said]

    def judged(self, rows: Sequence[Row], texts: Sequence[str]) -> tuple[Tensor, dict[str, float]]:
        """Reward of each text [N] as an answer to its row; and, where calls have a time limit, how many failed."""
        calls = [(question, text, answer) for (question, answer), text in zip(rows, texts, strict=True)]
        score, failures = guarded(self.reward, calls, seconds=self.seconds, failing=self.failing)
        return score, {} if self.seconds is None else {"reward_failures": float(failures)}

    def grade(self, prompts: Prompts, tokens: Tensor, mask: Tensor) -> tuple[Tensor, dict[str, float]]:
        return self.judged([self.train[k] for k in prompts.key.tolist()], self.read(tokens, mask))

    def score(self, prompts: Prompts, tokens: Tensor, mask: Tensor) -> Tensor:
        return self.grade(prompts, tokens, mask)[0]

    def answers(self, policy: Any, rows: Sequence[Row], rng: Stream, *, greedy: bool) -> tuple[list[str], Tensor, Tensor]:
        """The policy's answers: texts, their lengths in tokens [N], and whether each was cut off before its end token [N]."""
        device = next(policy.parameters()).device
        texts, length, cut = [], [], []
        for first in range(0, len(rows), ROWS):
            part = rows[first : first + ROWS]
            asked = self.asked([question for question, _ in part], torch.arange(len(part)))
            obs = {"ids": asked.ids.to(device), "mask": asked.mask.to(device)}
            tokens, mask = (x.cpu() for x in policy.act(obs, (rng / first).torch(device), greedy))
            texts += self.read(tokens, mask)
            length.append(mask.sum(1))
            cut.append(((tokens == self.tokenizer.eos_token_id) & (mask > 0)).sum(1) == 0)
        return texts, torch.cat(length), torch.cat(cut)

    def drawn(self, count: int, rng: Stream) -> list[Row]:
        """`count` rows of the test split, or all of it; of the training split where there is no other."""
        rows = self.test or self.train
        return [rows[k] for k in torch.randperm(len(rows), generator=rng.torch())[:count].tolist()]

    def evaluate(self, policy: Any, rng: Stream) -> dict[str, float]:
        """The mean reward of the likeliest answers to `tests` questions; their `length` in tokens; the share cut off."""
        rows = self.drawn(self.tests, rng / "questions")
        texts, length, cut = self.answers(policy, rows, rng / "answers", greedy=True)
        score, told = self.judged(rows, texts)
        means = {self.figure: score, "length": length, "truncated": cut.float()}
        return {**{name: float(x.mean()) for name, x in means.items()}, **told}

    def examples(self, policy: Any, rng: Stream, count: int) -> list[dict[str, Any]]:
        """Sampled answers to test questions with their verdict."""
        rows = self.drawn(count, rng / "questions")
        texts, _, _ = self.answers(policy, rows, rng / "answers", greedy=False)
        score, _ = self.judged(rows, texts)
        return [
            {
                "prompt": question, "answer": printable(text), "right": answer,
                "verdict": {1.0: "right", 0.0: "wrong"}.get(reward, f"{reward:.4g}"),
            }
            for (question, answer), text, reward in zip(rows, texts, score.tolist(), strict=True)
        ]  # fmt: skip


@dataclass(frozen=True)
class Questions(SingleTurn):
    """Questions and a reward function of one's own.

    train           rows (question, answer)
    reward          (question, completion, answer) -> number; any callable, see `rewards.guarded`
    test            rows of evaluations; none: those of `train`
    max_new         the longest answer, in tokens
    tests           questions of an evaluation
    seconds         time limit of a call of `reward`; None: none, and it runs in this process
    failing         the reward of an answer for which `reward` raised or took longer
    tokenizer_name  folder or hub id of the model's tokenizer; None: one token a byte
    """

    train: Sequence[Row] = field(repr=False)
    reward: Reward
    test: Sequence[Row] = field(default=(), repr=False)
    max_new: int = 64
    tests: int = 64
    seconds: float | None = 10.0
    failing: float = 0.0
    tokenizer_name: str | None = None

    def __post_init__(self) -> None:
        positive(self)
        if not self.train:
            raise ValueError("Questions.train has no row")
        for split in ("train", "test"):
            for n, row in enumerate(getattr(self, split)):
                if not (isinstance(row, (tuple, list)) and len(row) == 2 and all(isinstance(x, str) for x in row) and row[0]):
                    raise ValueError(f"row {n} of Questions.{split} must be a question and its answer, two strings, not {row!r}")


def positive(problem: SingleTurn) -> None:
    if problem.max_new < 1 or problem.tests < 1:
        raise ValueError(f"max_new and tests are at least 1, not {problem.max_new} and {problem.tests}")


def pretrained(name: str) -> Any:
    """The tokenizer of a folder or hub id; the end token pads where it has no pad token. No code of it is run."""
    from transformers import AutoTokenizer

    try:
        words = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
        why = "" if len(words) > len(words.all_special_ids) else "there is no file of it"  # Transformers makes one of no words then
    except (OSError, ValueError) as error:
        why = str(error).splitlines()[0]
    if why:
        raise ValueError(
            f"{name} has no tokenizer that Transformers can read ({why}): give a folder or hub id that has one as tokenizer_name"
        )
    if words.pad_token_id is None:
        words.pad_token = words.eos_token
    return words


def printable(text: str) -> str:
    """A text that cannot steer a terminal."""
    return "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text)
