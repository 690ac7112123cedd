"""Questions from files, folders, saved data sets and Python; what a row must hold; how it is put to a model."""

import csv
import dataclasses
import json
import pickle

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

from steepest.app.names import all_problems, find_problem
from steepest.app.options import coerce, options_of
from steepest.app.parts import part_of
from steepest.app.plan import Plan
from steepest.core import Stream
from steepest.core.check import check_problem
from steepest.core.problem import Pool
from steepest.problems.reading import Row, read, rows
from steepest.problems.rewards import Reward, numeric
from steepest.problems.single_turn import Questions
from steepest.problems.tokens import byte_level

TABLE = [{"q": "one, or 1?", "a": "007", "kind": "easy", "hard": "1"}, {"q": 'two\n"2"', "a": "NA", "kind": "odd", "hard": "2.5"}]
TABLE.append({"q": "drei é", "a": "1e5", "kind": "easy", "hard": "-3"})


def copied(question, completion, answer, **columns):
    return float(completion == answer) + len(columns)


def told(question, completion, answer, *, kind, hard):
    return float(kind == "odd") + 10 * float(hard)


def strictness(*, level: float = 1.0) -> Reward:
    return lambda question, completion, answer: level


def write(folder, name, table=TABLE):
    """The same rows as a file of the kind that the name says."""
    path = folder / name
    if path.suffix in (".jsonl", ".ndjson"):
        path.write_text("\n\n".join(map(json.dumps, table)))
    elif path.suffix == ".json":
        path.write_text(json.dumps(table, indent=1))
    elif path.suffix == ".parquet":
        pytest.importorskip("datasets").Dataset.from_list(table).to_parquet(str(path))
    else:
        with path.open("w", newline="", encoding="utf-8-sig") as file:
            lines = csv.DictWriter(file, TABLE[0], delimiter="\t" if path.suffix == ".tsv" else ",")
            lines.writeheader()
            lines.writerows(table)
    return path


def questions(data, **options):
    return Questions(data, copied, question="q", answer="a", **options)


# ------------------------------------------------------------------------------------ where rows lie


@pytest.mark.parametrize("name", ["x.jsonl", "x.ndjson", "x.json", "x.csv", "x.tsv", "x.parquet"])
def test_every_kind_of_file_gives_the_same_rows_and_no_value_is_guessed(tmp_path, name):
    path = write(tmp_path, name)
    assert [row for _, row in read(path)] == [row for _, row in read(str(path))] == TABLE  # 007 stays 007, NA stays NA
    problem = questions(path)
    assert isinstance(problem, Pool)
    assert [row.answer for row in problem.train] == ["007", "NA", "1e5"]
    assert len(check_problem(problem)) == 3
    assert len({place for place, _ in rows(path)}) == 3
    assert all(place.startswith(str(path)) for place, _ in rows(path))


def test_a_name_for_lines_is_forgiven_and_bytes_of_windows_too(tmp_path):
    lines = "\r\n".join(map(json.dumps, TABLE))
    (tmp_path / "x.json").write_bytes(b"\xef\xbb\xbf" + lines.encode())  # lines in a .json
    assert [row for _, row in read(tmp_path / "x.json")] == TABLE
    (tmp_path / "y.json").write_bytes(b"\xef\xbb\xbf " + json.dumps(TABLE).encode())
    assert [row for _, row in read(tmp_path / "y.json")] == TABLE


def test_a_folder_is_read_by_the_names_of_its_files(tmp_path):
    for name, row in (("train-00001.jsonl", 1), ("train-00000.jsonl", 0), ("test.csv", 2), ("training.csv", 0)):
        write(tmp_path, name, [TABLE[row]])
    problem = questions(tmp_path, test_split="test")
    assert [row.answer for row in problem.train] == ["007", "NA"]  # both parts, in order; training.csv is another
    assert [row.answer for row in problem.test] == ["1e5"]
    with pytest.raises(ValueError, match=r"has no file of the split 'dev'; it holds test\.csv, train-00000"):
        rows(tmp_path, "dev")
    (tmp_path / "in").mkdir()
    write(tmp_path / "in", "mine.jsonl")
    assert len(rows(tmp_path / "in")) == 3  # none is named for a split: all of them


def test_what_datasets_saved_is_read_by_split_or_whole(tmp_path):
    datasets = pytest.importorskip("datasets")
    whole = datasets.Dataset.from_list(TABLE)
    whole.save_to_disk(str(tmp_path / "one"))
    datasets.DatasetDict({"train": whole, "late": whole.select([2])}).save_to_disk(str(tmp_path / "several"))
    assert [row for _, row in read(tmp_path / "one")] == TABLE
    assert rows(tmp_path / "several", "late") == ((f"{tmp_path / 'several'}, row 0", TABLE[2]),)
    assert questions(tmp_path / "several", test_split="late").test[0].answer == "1e5"
    with pytest.raises(ValueError, match="no split 'lat'; nearest: late; it has train, late"):
        rows(tmp_path / "several", "lat")
    (tmp_path / "one" / "state.json").unlink()
    with pytest.raises(ValueError, match="is no whole data set"):
        rows(tmp_path / "one")


def test_an_id_of_the_hub_is_asked_for_by_name_split_and_part(monkeypatch):
    datasets = pytest.importorskip("datasets")
    asked = []

    def load(name, part, *, split):
        asked.append((name, part, split))
        if split == "gone":
            raise ValueError('Unknown split "gone".\nmore')
        return datasets.Dataset.from_list(TABLE)

    monkeypatch.setattr(datasets, "load_dataset", load)
    assert len(questions("owner/name", part="main").train) == 3
    assert asked == [("owner/name", "main", "train")]
    with pytest.raises(ValueError, match=r'owner/name could not be read from the Hugging Face hub: Unknown split "gone"\. Check'):
        rows("owner/name", "gone")


@pytest.mark.parametrize("name", ["nowhere.jsonl", "./a/b", "/a/b", "a", "a/b/c", "a/b.csv"])
def test_what_is_no_id_is_a_missing_file(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"there is no file .*: give a file, a folder, or OWNER/NAME"):
        rows(name)


def test_without_the_package_the_extra_is_named(tmp_path, monkeypatch):
    path = write(tmp_path, "x.parquet")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    with pytest.raises(ValueError, match=r"x\.parquet needs the package datasets, .*: pip install 'steepest\[data\]'"):
        rows(path)
    assert len(rows(write(tmp_path, "x.csv"))) == 3  # which needs none


def test_an_iterator_is_read_once_and_kept():
    problem = questions(row for row in TABLE)
    assert [row.answer for row in problem.train] == [row.answer for row in problem.train] == ["007", "NA", "1e5"]
    assert pickle.loads(pickle.dumps(problem)).train == problem.train
    assert Questions(iter([("x", "1")]), numeric).train == (Row("x", "1"),)


# ------------------------------------------------------------------------------------ faults


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("x.jsonl", '{"q": "x", "a": 1}\n\n{"q": "x"', ":3: no JSON"),
        ("x.jsonl", '{"q": "x", "a": 1}\n[1]', ":2: a row is an object"),
        ("x.jsonl", '{"Q": "x", "a": 1}', ":1: nothing named 'q'; there are Q, a; nearest: Q"), ("x.jsonl", "", "is empty"),
        ("x.jsonl", '{"q": "x", "a": 1}\n{"q": "x", "a": null}', ":2: nothing named 'a'; it is empty"),
        ("x.jsonl", '{"q": " ", "a": 1}', ":1: 'q' is neither"), ("x.jsonl", '{"q": [], "a": 1}', ":1: 'q' is neither"),
        ("x.jsonl", '{"q": [{"role": "user"}], "a": 1}', ":1: 'q' is neither"), ("x.json", '[{"q": "x",\n "a": }]', ":2: no JSON"),
        ("x.json", '[{"q": "x", "a": 1}, 3]', "item 2 .from 1.: a row is an object"), ("x.json", "[]", "is empty"),
        ("x.csv", 'q,a\n"x\ny",1\nz\n', ":4: 1 values where the first line names 2 columns"), ("x.csv", "q,a\n", "is empty"),
        ("x.csv", "q,a\nx,1\ny,2,3\n", ":3: 3 values where the first line names 2 columns: quote what holds a comma"),
        ("x.csv", 'q,a\n"x" y,1\n', ":2: no CSV"), ("x.csv", b"q,a\n\xff,1\n", "no CSV"), ("x.parquet", "no", "no Parquet"),
        ("x.txt", "a", "is of no kind that can be read: give one of .jsonl"),
    ],
)  # fmt: skip
def test_a_malformed_row_is_named_by_its_file_and_line(tmp_path, name, text, said):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    if path.suffix == ".parquet":
        pytest.importorskip("pyarrow")
    with pytest.raises(ValueError, match=f"{path}.*{said}"):
        questions(path).train  # noqa: B018


# ------------------------------------------------------------------------------------ columns and splits


def test_the_reward_gets_the_columns_that_were_asked_for_and_no_others(tmp_path):
    path = write(tmp_path, "x.csv")
    tokens, mask = torch.tensor([[2 + ord("N"), 2 + ord("A")]] * 2), torch.ones(2, 2)
    plain = questions(path, category="kind", difficulty="hard")
    asked = plain.pick(torch.tensor([1, 0]))
    assert plain.score(asked, tokens, mask).tolist() == [1, 0]  # no column beside
    more = questions(path, columns=("kind", "hard"))
    assert more.score(asked, tokens, mask).tolist() == [3, 2]
    named = Questions(path, told, question="q", answer=None, columns=("kind", "hard"), seconds=None)
    assert named.score(asked, tokens, mask).tolist() == [26, 10]
    assert [row.answer for row in named.train] == ["", "", ""]
    with pytest.raises(ValueError, match="the reward told gave"):  # the user's name, not the wrapper's
        dataclasses.replace(named, reward=told_nothing).score(asked, tokens, mask)


def told_nothing(question, completion, answer, **columns):
    return None


told_nothing.__qualname__ = "told"


def test_categories_and_difficulties_are_tensors_by_key(tmp_path):
    problem = questions(write(tmp_path, "x.jsonl"), category="kind", difficulty="hard")
    assert (problem.categories, problem.category_of.tolist()) == (("easy", "odd"), [0, 1, 0])
    assert problem.difficulty_of.tolist() == [1, 2.5, -3]
    bare = questions(tmp_path / "x.jsonl")
    assert (bare.categories, bare.category_of.tolist(), bare.difficulty_of.tolist()) == ((), [0, 0, 0], [0, 0, 0])
    with pytest.raises(ValueError, match=r"difficulty.*'easy'.*of question 0"):
        questions(tmp_path / "x.jsonl", difficulty="kind").difficulty_of  # noqa: B018


def test_what_is_held_out_is_not_trained_on_and_is_always_the_same():
    pairs = [(f"q{n}", str(n)) for n in range(10)]
    problem = Questions(pairs, numeric, held_out=0.25)
    kept, trained = ({row.answer for row in rows} for rows in (problem.test, problem.train))
    assert (len(kept), len(trained), kept | trained) == (3, 7, {str(n) for n in range(10)})
    assert Questions(iter(pairs), numeric, held_out=0.25).test == problem.test
    assert [int(row.answer) for row in problem.train] == sorted(int(row.answer) for row in problem.train)
    with pytest.raises(ValueError, match=r"held_out=0.9 of 3 rows leaves none"):
        Questions(pairs[:3], numeric, held_out=0.9).train  # noqa: B018


# ------------------------------------------------------------------------------------ chats

TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<bot>{% endif %}"
CHATS = [
    {"q": [{"role": "user", "content": "hello"}], "a": "1"},
    {"q": [{"role": role, "content": text} for role, text in (("system", "be"), ("user", "hi"), ("assistant", "so"))], "a": "2"},
    {"q": "plain", "a": "3"},
]  # fmt: skip


def heard(problem):
    asked = problem.pick(torch.arange(problem.size))
    return [problem.tokenizer.decode(ids[mask > 0]) for ids, mask in zip(asked.ids, asked.mask, strict=True)]


def test_chats_are_put_in_the_words_of_a_template_with_system_and_instruction(tmp_path):
    (tmp_path / "chat.jinja").write_text(TEMPLATE)
    problem = questions(CHATS, template=tmp_path / "chat.jinja", system="sys", instruction="!")
    one, two, three = heard(problem)
    assert (one, three) == ("<system>sys<user>hello!<bot>", "<system>sys<user>plain!<bot>")
    assert two == "<system>be<user>hi<assistant>so!<bot>"
    assert CHATS[0]["q"][0]["content"] == "hello"  # what was given stays as it was
    assert len(check_problem(problem)) == 3
    longest = max(map(len, heard(problem)))
    problem.check_room(longest + 64)
    with pytest.raises(ValueError, match=rf"question 1 of Questions\.train is a prompt of {longest} tokens"):
        problem.check_room(longest + 63)
    shown = problem.examples(Silent(problem), Stream(0), 3)
    assert {row["prompt"] for row in shown} == {"hello", "so", "plain"}


class Silent(torch.nn.Module):
    """Ends every answer at once."""

    def __init__(self, problem):
        super().__init__()
        self.weight, self.end = torch.nn.Parameter(torch.zeros(1)), problem.tokenizer.eos_token_id

    def act(self, obs, generator, greedy=False):
        return torch.full((len(obs["ids"]), 1), self.end), torch.ones(len(obs["ids"]), 1)


def test_the_templates_file_wins_over_the_tokenizers_own_and_without_one_chats_are_refused(tmp_path):
    words = byte_level()
    words = type(words)(tokenizer_object=words.backend_tokenizer, eos_token="<eos>", pad_token="<pad>")
    words.chat_template = TEMPLATE.replace("<bot>", "<own>")
    words.save_pretrained(tmp_path / "model")
    config = LlamaConfig(vocab_size=len(words), hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "model")
    assert AutoTokenizer.from_pretrained(tmp_path / "model").chat_template
    own = questions(CHATS, tokenizer_name=str(tmp_path / "model"))
    assert heard(own)[0] == "<user>hello<own>"
    (tmp_path / "chat.jinja").write_text(TEMPLATE)
    assert heard(dataclasses.replace(own, template=tmp_path / "chat.jinja"))[0] == "<user>hello<bot>"
    with pytest.raises(ValueError, match="the tokenizer has no chat template: take the tokenizer of a chat model"):
        heard(questions(CHATS))
    assert heard(questions([{"q": "x", "a": "y"}], system="s", instruction="?")) == ["s\nx?"]


# ------------------------------------------------------------------------------------ the command line


def test_the_command_line_says_data_and_reward_and_a_plan_makes_the_same_problem(tmp_path):
    path = str(write(tmp_path, "x.csv"))
    assert find_problem("questions") is Questions
    assert all_problems()["Questions"] == "single_turn"
    flags = {option.name: option for option in options_of(Questions, "questions")}
    assert {"data", "reward", "question", "answer", "columns", "category", "held_out", "template", "test_data"} <= flags.keys()
    said = {"data": path, "reward": "numeric", "question": "q", "answer": "a", "columns": ["kind"], "template": None}
    made = Questions(**coerce(Questions, said))
    assert (made.reward, made.columns, len(made.train)) == (numeric, ("kind",), 3)
    plan = Plan.read({f.name: () for f in dataclasses.fields(Plan)} | {
        "system": "grpo", "options": {}, "problem": "questions", "problem_options": said, "claimed": False,
    }, tmp_path)  # fmt: skip
    assert plan.make()[1] == made


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("numeric", 1.0), (f"{__name__}:copied", 0.0), (f"{__name__}.copied", 0.0),
        (f"{__name__}:strictness(level=3)", 3.0), (f"{__name__}:strictness", 1.0),
    ],
)  # fmt: skip
def test_a_reward_is_named_or_made(text, value):
    assert part_of(text, Reward)("q", "#### 7", "7.0") == value


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("numerc", "no reward is called 'numerc'; nearest: numeric: choose of .*, or name your own as MODULE:FUNCTION"),
        ("steepest.problems.rewards:gone", "cannot be found"),
        (f"{__name__}:strictness(lvl=3)", "has no option 'lvl'; nearest: level"),
    ],
)  # fmt: skip
def test_a_reward_that_is_not_there_is_refused(text, said):
    with pytest.raises(ValueError, match=said):
        part_of(text, Reward)
