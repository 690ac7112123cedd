"""Questions in plain text, each answered once: the text is the model's own tokens, the verdict a function of the text."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..core.problem import Pool, Prompts
from ..core.stream import Stream
from .reading import Placed, Row, Source, row_of, rows
from .rewards import Reward, graded
from .tokens import byte_level

ROWS = 64  # answers at once in an evaluation
SLACK = 8  # tokens by which a tokenizer may exceed the bytes of a text: marks of its beginning and the like


class SingleTurn(Pool):
    """Questions and a reward for the text of an answer. Frozen dataclasses below it say which.

    The question, a text or a list of chat messages, is put in the words of the tokenizer's chat template where it has one. Keys of
    prompts are rows of `train`.

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
    columns: tuple[str, ...] = ()  # of a row, that the reward is given by their names
    figure = "score"  # what the mean reward is called
    instruction = ""  # said after every question
    system = ""  # said before every question that does not begin with a message of the system
    template: Path | None = None  # of chats, in Jinja; None: the tokenizer's own

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

    def encoded(self, questions: Sequence[Any]) -> list[list[int]]:
        """The tokens of each question as the model reads it."""
        words, template = self.tokenizer, self.chat_template
        if template:
            chats = [self.chat(question) for question in questions]
            put = {"add_generation_prompt": True, "tokenize": True, "return_dict": True, "chat_template": template}
            return words.apply_chat_template(chats, **put)["input_ids"]
        said = [self.plain(self.text(question)) for question in questions]
        rows = words(said)["input_ids"]
        return [row[:-1] if row[-1:] == [words.eos_token_id] else row for row in rows]  # nothing has ended yet

    @functools.cached_property
    def chat_template(self) -> str | None:
        return self.tokenizer.chat_template if self.template is None else Path(self.template).read_text(encoding="utf-8")

    def chat(self, question: Any) -> list[dict[str, Any]]:
        """The messages that a question is."""
        said = [{"role": "user", "content": question}] if isinstance(question, str) else [dict(message) for message in question]
        said[-1]["content"] += self.instruction
        return said if not self.system or said[0]["role"] == "system" else [{"role": "system", "content": self.system}, *said]

    def text(self, question: Any) -> str:
        """What a model without a chat template reads."""
        if not isinstance(question, str):
            raise ValueError(
                f"questions of {type(self).__name__} are lists of chat messages, and the tokenizer has no chat template: take the "
                "tokenizer of a chat model (tokenizer_name), or give `template`, a file with one"
            )
        return (f"{self.system}\n" if self.system else "") + question + self.instruction

    def asked(self, questions: Sequence[Any], key: Tensor) -> Prompts:
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
        """The questions of those rows of `train`, which are their keys."""
        return self.asked([self.train[k].question for k in index.tolist()], index)

    @functools.cached_property
    def lengths(self) -> Tensor:
        """Tokens of each prompt [size]."""
        return torch.tensor([len(tokens) for tokens in self.encoded([row.question for row in self.train])])

    def check_room(self, room: int) -> None:
        """Only what could be too long is cut into tokens: no text has more of them than bytes."""
        for split in ("train", "test"):
            rows = getattr(self, split)
            if not rows:
                continue
            beside = len(self.encoded(["x"])[0]) + SLACK + self.max_new
            sizes = [len(row.question.encode()) if isinstance(row.question, str) else math.inf for row in rows]
            doubtful = [n for n, size in enumerate(sizes) if size + beside > room]
            lengths = map(len, self.encoded([rows[n].question for n in doubtful]) if doubtful else [])
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
        """Reward of each text [N] as an answer to its row; and what the reward reports, as how many of its calls failed."""
        calls: list[tuple[Any, ...]] = [(row.question, text, row.answer) for row, text in zip(rows, texts, strict=True)]
        reward: Callable[..., float] = self.reward
        if self.columns:
            reward = with_columns(reward, self.columns)
            calls = [(*call, *(row.more[name] for name in self.columns)) for call, row in zip(calls, rows, strict=True)]
        return graded(reward, calls, seconds=self.seconds, failing=self.failing)

    def grade(self, prompts: Prompts, tokens: Tensor, mask: Tensor) -> tuple[Tensor, dict[str, float]]:
        return self.judged([self.train[k] for k in prompts.key.tolist()], self.read(tokens, mask))

    def score(self, prompts: Prompts, tokens: Tensor, mask: Tensor) -> Tensor:
        return self.grade(prompts, tokens, mask)[0]

    def demonstrate(self, prompts: Prompts) -> tuple[Tensor, Tensor]:
        """The answers that the data hold, each with its end token: tokens [N, M] and mask [N, M]."""
        words, texts = self.tokenizer, [str(self.train[k].answer) for k in prompts.key.tolist()]
        rows = [row + [words.eos_token_id] for row in words(texts, add_special_tokens=False)["input_ids"]]
        length = torch.tensor([len(row) for row in rows])
        mask = (torch.arange(int(length.max())) < length[:, None]).float()
        said = torch.tensor([token for row in rows for token in row])
        return torch.full(mask.shape, words.pad_token_id).masked_scatter(mask > 0, said), mask

    def answers(self, policy: Any, rows: Sequence[Row], rng: Stream, *, greedy: bool) -> tuple[list[str], Tensor, Tensor]:
        """The policy's answers: texts, their lengths in tokens [N], and whether each was cut off before its end token [N]."""
        device = next(policy.parameters()).device
        texts, length, cut = [], [], []
        for first in range(0, len(rows), ROWS):
            part = rows[first : first + ROWS]
            asked = self.asked([row.question for row in part], torch.arange(len(part)))
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
                "prompt": printable(said(row.question)), "answer": printable(text), "right": printable(str(row.answer)),
                "verdict": {1.0: "right", 0.0: "wrong"}.get(reward, f"{reward:.4g}"),
            }
            for row, text, reward in zip(rows, texts, score.tolist(), strict=True)
        ]  # fmt: skip


@dataclass(frozen=True)
class Questions(SingleTurn):
    """Questions of a data set and a reward of one's own.

    data            a file (.jsonl, .json, .csv, .tsv, .parquet), a folder of such files or one that `datasets` saved, OWNER/NAME of
                    the Hugging Face hub; in Python also any iterable of rows: objects of named values, or pairs (question, answer)
    reward          (question, completion, answer) -> number, see `rewards.graded`: one of the library's or MODULE:FUNCTION
    question        the column with the question: a text, or a list of chat messages {"role": ..., "content": ...}
    answer          the column that the reward compares with, of any type; none: the reward gets an empty text
    columns         further columns that the reward gets by their names
    category        a column of names, by which curricula draw questions
    difficulty      a column of numbers, by which curricula draw questions
    split           of a folder or an id, to train on
    part            of an id that has several (the hub's "config")
    test_data       another data set, for evaluations
    test_split      the split for evaluations, of `test_data` or else of `data`
    held_out        share of the rows, drawn once, that is kept for evaluations; without it and a test set, they ask what is
                    trained on
    instruction     said after every question
    system          said before every question, as a message of the system where there is a chat template
    template        file with a chat template in Jinja; none: the tokenizer's own
    max_new         the longest answer, in tokens
    tests           questions of an evaluation
    seconds         time limit of a call of `reward`; none: no limit, and it runs in this process
    failing         the reward of an answer for which `reward` raised or took longer
    tokenizer_name  folder or hub id of the model's tokenizer; default: that of `--model`, or one token a byte
    """

    data: Source = field(repr=False)
    reward: Reward
    question: str = "question"
    answer: str | None = "answer"
    columns: tuple[str, ...] = ()
    category: str | None = None
    difficulty: str | None = None
    split: str = "train"
    part: str | None = None
    test_data: Source | None = field(default=None, repr=False)
    test_split: str | None = None
    held_out: float = 0.0
    instruction: str = ""
    system: str = ""
    template: Path | None = None
    max_new: int = 64
    tests: int = 64
    seconds: float | None = 10.0
    failing: float = 0.0
    tokenizer_name: str | None = None

    def __post_init__(self) -> None:
        positive(self)
        if not 0 <= self.held_out < 1:
            raise ValueError(f"held_out is a share of the rows, at least 0 and below 1, not {self.held_out}")
        if self.held_out and (self.test_data is not None or self.test_split):
            raise ValueError("evaluations ask either what is held_out or a test set: give one of the two")
        for name in ("data", "test_data"):
            value = getattr(self, name)
            if not isinstance(value, (str, Path, type(None))):
                object.__setattr__(self, name, tuple(value))  # an iterator can be read once alone
                self.taken(rows(getattr(self, name)))  # a mistake in what is at hand is told at once

    def taken(self, placed: Iterable[Placed]) -> tuple[Row, ...]:
        """The rows with the columns that were asked for."""
        more = (*self.columns, *filter(None, (self.category, self.difficulty)))
        return tuple(row_of(found, self.question, self.answer, more) for found in placed)

    @functools.cached_property
    def drawn_up(self) -> tuple[tuple[Row, ...], tuple[Row, ...]]:
        """What is trained on, and what evaluations ask."""
        every = self.taken(rows(self.data, self.split, self.part))
        if self.held_out:
            kept = math.ceil(self.held_out * len(every))
            if kept == len(every):
                raise ValueError(f"held_out={self.held_out} of {len(every)} rows leaves none to train on: lower it")
            order = torch.randperm(len(every), generator=Stream("held out").torch()).tolist()
            return tuple(every[n] for n in sorted(order[kept:])), tuple(every[n] for n in sorted(order[:kept]))
        if self.test_data is None and self.test_split is None:
            return every, ()
        other = self.data if self.test_data is None else self.test_data
        return every, self.taken(rows(other, self.test_split or "test", self.part if self.test_data is None else None))

    @functools.cached_property
    def train(self) -> tuple[Row, ...]:  # type: ignore[override]
        return self.drawn_up[0]

    @functools.cached_property
    def test(self) -> tuple[Row, ...]:  # type: ignore[override]
        return self.drawn_up[1]

    @functools.cached_property
    def categories(self) -> tuple[str, ...]:
        """Names of the categories, in order."""
        return tuple(sorted({str(row.more[self.category]) for row in self.train})) if self.category else ()

    @functools.cached_property
    def category_of(self) -> Tensor:
        """Which category each question is of, an index into `categories` [size] long; all 0 where there is no such column."""
        place = {name: n for n, name in enumerate(self.categories)}
        return torch.tensor([place[str(row.more[self.category])] if self.category else 0 for row in self.train])

    @functools.cached_property
    def difficulty_of(self) -> Tensor:
        """The number in the column `difficulty` of each question [size]; all 0 where there is no such column."""
        return torch.tensor([hardness(row, n, self.difficulty) if self.difficulty else 0.0 for n, row in enumerate(self.train)])


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


def with_columns(reward: Callable[..., float], names: tuple[str, ...]) -> Callable[..., float]:
    """The reward, given what stands in further columns by their names."""

    @functools.wraps(reward)  # errors name it
    def called(prompt: Any, completion: str, answer: Any, *found: Any) -> float:
        return reward(prompt, completion, answer, **dict(zip(names, found, strict=True)))

    return called


def hardness(row: Row, index: int, column: str) -> float:
    try:
        return float(row.more[column])
    except (TypeError, ValueError) as error:
        raise ValueError(f"difficulty: {column} is {row.more[column]!r}, no number, of question {index}") from error


def said(question: Any) -> str:
    """A question for the eye: of chat messages the last."""
    return question if isinstance(question, str) else question[-1]["content"]


def printable(text: str) -> str:
    """A text that cannot steer a terminal."""
    return "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text)
