import dataclasses
import json
import os
import pickle
import random
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

from steepest.app.names import find_problem
from steepest.app.plan import spoken
from steepest.collectors.generate import generate
from steepest.core import State, Stream, Warmup, train
from steepest.core.check import check_problem, check_system
from steepest.models.language import language_policy
from steepest.models.warmup import warm_up
from steepest.problems.gsm8k import GSM8K, rows
from steepest.problems.reading import Row
from steepest.problems.rewards import numeric
from steepest.problems.single_turn import Questions
from steepest.problems.tokens import byte_level
from steepest.systems.reasoning.grpo import grpo

REAL = Path(__file__).parents[2] / "shared" / "data" / "gsm8k"
real = pytest.mark.skipif(not REAL.is_dir(), reason=f"the files are not in {REAL}")
SIZE = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2}
INSTRUCTION = "\nReason step by step, and end with #### and the answer as a number."


def line(question, answer):
    return json.dumps({"question": question, "answer": answer})


@pytest.fixture
def data(tmp_path):
    """A folder like the real one: questions of growing length, whose answers are 0, 1000, 2000, ..."""
    for split, count in (("train", 6), ("test", 4)):
        lines = [line(f"{split} {'é' * n}: how much is {n} times 1000?", f"It is {n}.\n#### ${n},000.00") for n in range(1, count)]
        (tmp_path / f"{split}.jsonl").write_text("\n".join([line(f"{split}: zero?", "#### 0"), *lines]) + "\n", encoding="utf-8")
    return tmp_path


@pytest.fixture
def pretrained(tmp_path):
    """A folder with weights and a tokenizer of its own, which has a chat template and no pad token."""
    words = byte_level()
    words = type(words)(tokenizer_object=words.backend_tokenizer, eos_token="<eos>", additional_special_tokens=["<user>", "<bot>"])
    words.chat_template = (
        "{% for m in messages %}<user>{{ m['content'] }}{% endfor %}{% if add_generation_prompt %}<bot>{% endif %}"
    )
    words.save_pretrained(tmp_path / "model")
    config = LlamaConfig(**SIZE, vocab_size=len(words), max_position_embeddings=256, eos_token_id=1, bos_token_id=None)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "model")
    return str(tmp_path / "model")


class Says(nn.Module):
    """Answers each prompt by a rule on its text."""

    def __init__(self, problem, rule):
        super().__init__()
        self.words, self.rule, self.heard = problem.tokenizer, rule, []
        self.weight = nn.Parameter(torch.zeros(1))

    def act(self, obs, generator, greedy=False):
        texts = [self.words.decode(row[m > 0]) for row, m in zip(obs["ids"], obs["mask"], strict=True)]
        self.heard += texts
        return encoded(self.words, [self.rule(text) for text in texts])


def encoded(words, texts, end=True):
    """Answers as a policy gives them: tokens and mask, padded on the right."""
    said = [words(text)["input_ids"] + [words.eos_token_id] * end for text in texts]
    width = max(map(len, said))
    tokens = torch.tensor([row + [words.pad_token_id] * (width - len(row)) for row in said])
    return tokens, (torch.arange(width) < torch.tensor([[len(row)] for row in said])).float()


# ------------------------------------------------------------------------------------ the tokenizer


def test_any_text_is_read_back_from_its_bytes(tmp_path):
    rng, words = random.Random(0), byte_level()
    words.save_pretrained(tmp_path)
    for read in (words, AutoTokenizer.from_pretrained(tmp_path), pickle.loads(pickle.dumps(words))):
        assert (len(read), read.pad_token_id, read.eos_token_id, read.padding_side) == (258, 0, 1, "left")
        drawn = ["".join(map(chr, rng.choices([*range(0xD800), *range(0xE000, 0x110000)], k=40))) for _ in range(10)]
        plain = ["", " ", "  a , b ' s ", "\t\r\n\0\x1b", "e\u0301 \u00e9", "<eos>", "a<pad> <eos>b", "\u2028\ufeff", "👩‍👩‍👧"]
        for text in [*plain, *drawn, "".join(map(chr, range(0x900)))]:
            ids = read(text)["input_ids"]
            assert ids == [2 + byte for byte in text.encode()]
            assert read.decode(ids) == text
            assert read.decode([*ids, 1, 0, 0], skip_special_tokens=True) == text


def test_bytes_that_are_no_text_are_read_as_replacements():
    words = byte_level()
    assert words.decode([2 + 0xC3]) == "\ufffd"
    assert words.decode([2 + 0xC3, 2 + ord("a")]) == "\ufffda"


# ------------------------------------------------------------------------------------ the files


@real
def test_all_gold_answers_of_the_real_files_verify_themselves():
    problem = GSM8K(REAL)
    assert (len(problem.train), len(problem.test)) == (7473, 1319)
    for split in ("train", "test"):
        for text, found in zip((REAL / f"{split}.jsonl").open(), getattr(problem, split), strict=True):
            row = json.loads(text)
            assert row["question"].strip() == found.question
            assert numeric(found.question, row["answer"], found.answer) == 1.0
            assert float(row["answer"].split("####")[1].replace(",", "")) == float(found.answer)
            assert numeric(found.question, row["answer"], f"{found.answer}1") == 0.0


@real
def test_the_real_problem_obeys_the_laws_of_problems():
    assert len(check_problem(GSM8K(REAL, max_new=16))) == 3
    GSM8K(REAL).check_room(2048)  # the small model's
    with pytest.raises(ValueError, match=r"question 3331 of GSM8K\.train is a prompt of 1076 tokens"):
        GSM8K(REAL).check_room(1076 + 255)
    GSM8K(REAL).check_room(1076 + 256)


GOOD = line("q", "#### 1")
BAD = [
    (f"{GOOD}\n{{", "train.jsonl:2: no JSON"), (f"{GOOD}\n\n{GOOD}\nq", ":4: no JSON"), ("[1]", ":1: a row is an object"),
    ('"q"', ":1: a row is an object"), ('{"question": "q"}', ":1: nothing named 'answer'"), (line("", "#### 1"), "is neither"),
    (f"{GOOD}\n{line(3, '#### 1')}", ":2: 'question' is neither a text"), (line("q", None), ":1: nothing named 'answer'; it is"),
    (line("q", 3), ":1: question and answer are texts"),
    (f"{GOOD}\n{line('q', 'it is 3')}", ":2: the answer does not end with #### and a number, but with 'it is 3'"),
    (line("q", "#### 3 or 4"), ":1: the answer does not end"), ("", "train.jsonl is empty"), ("\n \n", "train.jsonl is empty"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "said"), BAD)
def test_bad_data_is_refused_with_its_line(tmp_path, text, said):
    (tmp_path / "train.jsonl").write_text(text)
    with pytest.raises(ValueError, match=f"{tmp_path}.*{said}"):
        GSM8K(tmp_path).prompts(1, torch.Generator())


def test_bytes_that_are_no_text_and_a_missing_file_are_refused(tmp_path):
    (tmp_path / "train.jsonl").write_bytes(GOOD.encode() + b'\n{"question": "\xff"}')
    with pytest.raises(ValueError, match=r"train.jsonl:2: no JSON"):
        rows(tmp_path / "train.jsonl")
    with pytest.raises(ValueError, match=rf"there is no file {tmp_path}/test.jsonl: `data` is the folder"):
        GSM8K(tmp_path).test  # noqa: B018
    (tmp_path / "train.jsonl").write_bytes(b"\xef\xbb\xbf" + GOOD.encode() + b"\r\n" + GOOD.encode())  # as Windows writes
    assert rows(tmp_path / "train.jsonl") == (Row("q", "1"),) * 2


# ------------------------------------------------------------------------------------ prompts and verdicts


def test_prompts_are_questions_padded_on_the_left_and_keys_are_their_rows(data):
    problem = GSM8K(data)
    assert len(check_problem(problem)) == 3
    drawn = problem.prompts(50, Stream(0).torch())
    assert set(drawn.key.tolist()) == set(range(6))
    assert (drawn.mask.sum(1) < drawn.ids.shape[1]).any()
    assert (drawn.ids[drawn.mask == 0] == problem.tokenizer.pad_token_id).all()
    for ids, mask, key in zip(drawn.ids, drawn.mask, drawn.key.tolist(), strict=True):
        assert problem.tokenizer.decode(ids[mask > 0]) == f"Question: {problem.train[key].question}{INSTRUCTION}\nAnswer:"
    copy = pickle.loads(pickle.dumps(problem))
    assert torch.equal(copy.prompts(50, Stream(0).torch()).ids, drawn.ids)


def test_an_answer_is_scored_by_its_own_question(data):
    problem = GSM8K(data)
    asked = problem.asked([problem.train[k].question for k in (0, 3, 3, 5)], torch.tensor([0, 3, 3, 5]))
    tokens, mask = encoded(problem.tokenizer, ["#### 0", r"\boxed{3{,}000}", "#### 5000", "#### 5000"])
    assert problem.score(asked, tokens, mask).tolist() == [1, 1, 0, 1]
    tokens[mask == 0] = 2 + ord("7")  # what stands behind the end does not count
    assert problem.score(asked, tokens, mask).tolist() == [1, 1, 0, 1]
    cut, whole = encoded(problem.tokenizer, ["#### 0", "#### 3,0", "#### 3,000", "#### 500"], end=False)
    assert problem.score(asked, cut, whole).tolist() == [1, 0, 1, 0]


def test_an_evaluation_asks_each_test_question_once_and_counts(data):
    problem = GSM8K(data, tests=3)
    right = Says(problem, lambda text: f"#### {text.count('é')}000")
    assert problem.evaluate(right, Stream(0)) == {"accuracy": 1.0, "length": pytest.approx(10, abs=1), "truncated": 0.0}
    assert len(set(right.heard)) == 3
    assert all(text.startswith("Question: test") for text in right.heard)
    assert next(iter(problem.evaluate(right, Stream(0)))) == "accuracy"
    some = Says(problem, lambda text: "#### 1000")
    whole = dataclasses.replace(problem, tests=99)
    assert whole.evaluate(some, Stream(0))["accuracy"] == 1 / 4
    colourful = Says(problem, lambda text: "\x1b[31m#### 1000" if "éé" in text else "#### 1000")
    shown = problem.examples(colourful, Stream(1), 4)
    assert {row["right"]: row["verdict"] for row in shown} == {"0": "wrong", "1000": "right", "2000": "wrong", "3000": "wrong"}
    assert {row["answer"] for row in shown} == {"#### 1000", "\ufffd[31m#### 1000"}  # a text that cannot steer a terminal


def test_what_exceeds_the_context_is_refused_with_its_row_before_any_work(data, tmp_path):
    problem = GSM8K(data, max_new=20)
    longest = max(len(row) for row in problem.encoded([row.question for row in problem.train]))
    problem.check_room(longest + 20)
    with pytest.raises(
        ValueError, match=rf"question 5 of GSM8K.train is .* {longest} tokens; with max_new=20 .* of {longest + 19}:"
    ):
        problem.check_room(longest + 19)
    config = LlamaConfig(**SIZE, vocab_size=258, max_position_embeddings=longest)
    config.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"question 5 of GSM8K\.train"):
        language_policy(problem, Stream(0), model=str(tmp_path / "config.json"))
    (data / "train.jsonl").write_text(GOOD)
    with pytest.raises(ValueError, match=r"question 3 of GSM8K\.test"):  # the test split counts too
        GSM8K(data, max_new=20).check_room(longest)


@pytest.mark.parametrize("option", ["max_new", "tests"])
def test_sizes_are_at_least_one(data, option):
    with pytest.raises(ValueError, match="max_new and tests are at least 1"):
        GSM8K(data, **{option: 0})


# ------------------------------------------------------------------------------------ tokenizers of models


def test_a_chat_template_is_used_and_the_end_token_pads_where_there_is_no_pad(data, pretrained):
    problem = GSM8K(data, max_new=8, tokenizer_name=pretrained)
    assert problem.tokenizer.pad_token_id == problem.tokenizer.eos_token_id == 1
    assert len(check_problem(problem)) == 3
    drawn = problem.prompts(5, Stream(0).torch())
    for ids, mask, key in zip(drawn.ids, drawn.mask, drawn.key.tolist(), strict=True):
        assert problem.tokenizer.decode(ids[mask > 0]) == f"<user>{problem.train[key].question}{INSTRUCTION}<bot>"
    longest = max(map(len, problem.encoded([row.question for row in problem.train])))
    problem.check_room(longest + 8)
    with pytest.raises(ValueError, match=f"question 5 of GSM8K.train is a prompt of {longest} tokens"):
        problem.check_room(longest + 7)


def test_a_model_is_read_with_its_own_tokenizer_or_not_at_all(data, pretrained, tmp_path):
    problem = GSM8K(data, max_new=8)
    with pytest.raises(ValueError, match=rf"{pretrained} has a tokenizer of its own, of 260 .* of 258.* tokenizer_name, give it"):
        language_policy(problem, Stream(0), model=pretrained)
    policy = language_policy(dataclasses.replace(problem, tokenizer_name=pretrained), Stream(0), model=pretrained)
    policy.export(tmp_path / "out")
    assert AutoTokenizer.from_pretrained(tmp_path / "out").get_vocab() == policy.tokenizer.get_vocab()
    bare = tmp_path / "bare"
    policy.model.save_pretrained(bare)  # no tokenizer beside it: Transformers would make one of no words
    assert language_policy(problem, Stream(0), model=str(bare)).tokenizer is byte_level()
    for name in (str(bare), str(tmp_path)):
        with pytest.raises(ValueError, match=rf"{name} has no tokenizer that Transformers can read"):
            GSM8K(data, tokenizer_name=name).tokenizer  # noqa: B018


def test_the_command_line_takes_the_tokenizer_from_the_model():
    assert spoken({"model": "some/model"}, {"tokenizer_name": None, "tests": 3}) == {"tokenizer_name": "some/model", "tests": 3}
    for system, problem in (
        ({"model": "some/model"}, {"tokenizer_name": "another"}), ({"model": "x/config.json"}, {"tokenizer_name": None}),
        ({"model": None}, {"tokenizer_name": None}), ({}, {"tokenizer_name": None}), ({"model": "some/model"}, {"tests": 3}),
    ):  # fmt: skip
        assert spoken(system, problem) == problem


def test_a_tokenizer_that_ends_its_texts_does_not_end_the_prompts(data, monkeypatch):
    problem = GSM8K(data)
    rows = problem.encoded(["a"])
    monkeypatch.setitem(problem.__dict__, "tokenizer", Ending())
    assert problem.encoded(["a"]) == rows


class Ending:
    """As tokenizers that set the end token behind every text."""

    chat_template, eos_token_id = None, 1

    def __call__(self, texts):
        return {"input_ids": [[*row, 1] for row in byte_level()(texts)["input_ids"]]}


# ------------------------------------------------------------------------------------ rewards of one's own


def copied(question, completion, answer):
    """A shaped reward: the share of the answer's letters that the completion has in place."""
    if "fail" in completion:
        raise ZeroDivisionError("no such luck")
    return sum(a == b for a, b in zip(completion, answer, strict=False)) / len(answer)


def lawless(question, completion, answer):
    return float("nan") if completion == "b" else 1.0


ROWS = [("say a", "a"), ("say ab", "ab"), ("say abc", "abc"), ("say abcd", "abcd")]


def test_a_reward_of_ones_own_and_what_fails_counts_as_stated():
    problem = Questions(ROWS, copied, max_new=8, failing=-0.5)
    assert len(check_problem(problem)) == 3
    asked = problem.asked([question for question, _ in ROWS], torch.arange(4))
    with pytest.warns(RuntimeWarning, match="the reward copied failed, so that its answer counts -0.5: ZeroDivisionError") as told:
        score, numbers = problem.grade(asked, *encoded(problem.tokenizer, ["a", "a", "fail", "fail!"]))
    assert len(told) == 1
    assert score.tolist() == [1, 0.5, -0.5, -0.5]
    assert numbers == {"reward_failures": 2.0}
    says = Says(problem, lambda text: text.removeprefix("say "))
    assert problem.evaluate(says, Stream(0)) == {"score": 1.0, "length": 3.5, "truncated": 0.0, "reward_failures": 0.0}
    assert Questions(ROWS, copied, test_data=[("no", "x")]).evaluate(says, Stream(0))["score"] == 0.0
    shown = problem.examples(Says(problem, lambda text: "ab"), Stream(0), 4)
    assert {row["verdict"] for row in shown} == {"right", "0.6667", "0.5"}


def test_failures_are_a_metric_of_the_step_and_numbers_that_are_none_name_the_function():
    problem = Questions(ROWS, always, max_new=4)
    state = State(policy=language_policy(problem, Stream(0)))
    with pytest.warns(RuntimeWarning, match="OSError"):
        batch = generate(prompts=3, group=2)(state, problem, Stream(1)).check()
    assert batch.info["reward_failures"] == 6.0
    assert batch.score.tolist() == [0.0] * 6
    problem = Questions(ROWS, lawless, max_new=4)
    asked = problem.asked(["say a", "say ab"], torch.arange(2))
    with pytest.raises(ValueError, match=r"the reward lawless gave nan for answer 1 \(1 of 2"):
        problem.score(asked, *encoded(problem.tokenizer, ["a", "b"]))


def always(question, completion, answer):
    raise OSError("the judge is down")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"data": []}, "the tuple of rows is empty"), ({"data": [("a", "b"), ("a",)]}, "row 1: a row is an object"),
        ({"data": [("", "b")]}, "row 0: 'question' is neither"), ({"data": [("a", None)]}, "row 0: nothing named 'answer'"),
        ({"test_data": ["ab"]}, "row 0"), ({"tests": 0}, "at least 1"), ({"held_out": 1.0}, "below 1"),
        ({"held_out": 0.5, "test_split": "test"}, "one of the two"),
    ],
)  # fmt: skip
def test_rows_that_are_no_questions_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        Questions(**{"data": ROWS, "reward": copied, **options})


def test_the_command_line_finds_what_options_can_say():
    assert find_problem("gsm8k") is GSM8K


# ------------------------------------------------------------------------------------ the whole pipe


def tiny(folder):
    """The path of a small configuration."""
    LlamaConfig(**SIZE, vocab_size=258, max_position_embeddings=2048).save_pretrained(folder)
    return str(Path(folder, "config.json"))


def vowels(question, completion, answer):
    return sum(completion.count(letter) for letter in "aeiou") / 8


@pytest.mark.slow
def test_training_resumes_bitwise_and_a_reward_of_ones_own_moves_the_weights(tmp_path):
    make = partial(grpo, prompts=2, group=4, lr=1e-2, model=tiny(tmp_path))
    problem = partial(Questions, ROWS, vowels, max_new=16)
    assert "resume is bitwise in a fresh process" in check_system(make, problem, half=2)
    told = [record.metrics for record in train(make(), problem(), steps=4)]
    assert sum("skipped" in row for row in told) < 4  # steps in which every group agrees
    assert {row["reward_failures"] for row in told} == {0.0}


@pytest.fixture
def easy(tmp_path):
    """Those of the real problems that are short and have the answer 10 or 20."""
    for split in ("train", "test"):
        lines = [text for text in (REAL / f"{split}.jsonl").open() if text.rstrip().endswith(('#### 10"}', '#### 20"}'))]
        (tmp_path / f"{split}.jsonl").write_text("".join(sorted(lines, key=len)[:16]))
    return tmp_path


def guesser(data, folder):
    """A pretrained model: it says 10, 20 or nothing of use to whatever is asked. Its weights and tokenizer lie in `folder`."""
    problem = GSM8K(data, max_new=10)

    def teach(count, generator):
        asked = problem.prompts(count, generator)
        said = torch.randint(3, (count,), generator=generator).tolist()
        return asked, *encoded(problem.tokenizer, [("#### 10", "#### 20", "10 or 20?")[k] for k in said])

    policy = language_policy(problem, Stream(0), model=tiny(data))
    warm_up(policy, Warmup(teach, steps=120, batch=8, lr=1e-2, warm=10), Stream(1))
    policy.export(folder)
    return str(folder)


def steepest(*words, cwd):
    """What a command prints as JSON."""
    done = subprocess.run(
        [sys.executable, "-m", "steepest", *map(str, words), "--json"], capture_output=True, text=True, timeout=300, cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + done.stdout
    return json.loads(done.stdout)


@real
@pytest.mark.slow
def test_the_whole_pipe_on_the_real_files_as_a_user_runs_it(tmp_path):
    options = ("--problem", "gsm8k", "--data", os.path.relpath(REAL, tmp_path), "--tests", 4, "--max-new", 16)
    options += ("--prompts", 4, "--group", 2, "--model", tiny(tmp_path))
    first = steepest("train", "grpo", *options, "--steps", 2, "--out", "run", cwd=tmp_path)
    assert (first["step"], next(iter(first["after"]))) == (2, "accuracy")
    assert len(first["examples"]) == 3
    assert set(first["examples"][0]) == {"prompt", "answer", "right", "verdict"}
    again = steepest("resume", "run", "--steps", 3, cwd=tmp_path)
    assert again["step"] == 3
    checkpoint = tmp_path / again["checkpoint"]
    assert steepest("evaluate", checkpoint, cwd=tmp_path)["evaluation"] == again["after"]
    words = AutoTokenizer.from_pretrained(checkpoint)
    assert words.decode(words("naïve <eos> 18 %")["input_ids"]) == "naïve <eos> 18 %"
    assert AutoModelForCausalLM.from_pretrained(checkpoint).get_input_embeddings().num_embeddings == len(words)


@real
@pytest.mark.slow
def test_a_model_that_is_sometimes_right_learns_and_its_path_alone_suffices(easy, tmp_path):
    model = guesser(easy, tmp_path / "model")
    options = ("--problem", "gsm8k", "--data", easy, "--max-new", 10, "--prompts", 8, "--group", 8, "--model", model, "--lr", 1e-3)
    whole = steepest("train", "grpo", *options, "--steps", 40, "--out", "whole", cwd=tmp_path)
    told = [json.loads(text) for text in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    first, last = (sum(row["score"] for row in part) / 10 for part in (told[:10], told[-10:]))
    assert first > 0.2  # of three things that it says, two are right sometimes
    assert last > first + 0.1  # the mean of 640 answers: a standard error of 0.02

    steepest("train", "grpo", *options, "--steps", 3, "--out", "parts", cwd=tmp_path)
    parts = steepest("resume", "parts", "--steps", 40, cwd=tmp_path)
    read = AutoModelForCausalLM.from_pretrained
    places = (tmp_path / whole["checkpoint"], tmp_path / parts["checkpoint"], model)
    one, two, start = (list(read(place).parameters()) for place in places)
    assert all(map(torch.equal, one, two))
    assert not any(map(torch.equal, one, start))
