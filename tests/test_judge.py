"""A model as a reward: numbers are read, an endpoint that is down stops the run with everything saved."""

import json

import pytest
import torch

from steepest.core.problem import Unavailable
from steepest.models.chat import ChatClient
from steepest.models.judge import Judge, last_number, question
from steepest.problems.rewards import Part, exact, graded, guarded, mixed
from steepest.problems.scripted import MODEL

from .test_chat import canned


def said(text):
    page = {"choices": [{"index": 0, "message": {"role": "assistant", "content": text}}]}
    return 200, "application/json", json.dumps(page).encode()


def judge(url, **options):
    return Judge(ChatClient(url, MODEL, retries=options.pop("retries", 0)), workers=1, **options)


CALL = ("1 + 1", "2", "2")


def test_a_number_is_read_and_clipped_and_a_reply_without_one_counts_as_said():
    with canned(said("It is fine: 0.75"), said("7"), said("-3"), said("no idea"), (200, "application/json", b"{}")) as (url, count):
        score, told = graded(judge(url, failing=0.5), [CALL] * 5)
    assert score.tolist() == [0.75, 1, 0, 0.5, 0.5]
    assert told == {"judge_failures": 2.0}
    assert len(count) == 5


def test_a_mix_holds_a_judge():
    with canned(said("0.5")) as (url, _):
        score, told = graded(mixed(style=Part(judge(url), weight=0.2), right=exact), [CALL, ("1 + 1", "3", "2")])
    torch.testing.assert_close(score, torch.tensor([1.1, 0.1]))
    assert told["reward_style"] == 0.5
    assert told["style_judge_failures"] == 0


def test_it_asks_again_and_then_says_that_nobody_is_there():
    bad = (503, "text/plain", b"starting up")
    with canned(bad, said("1")) as (url, count):
        assert graded(judge(url, retries=1), [CALL])[0].tolist() == [1]
        assert len(count) == 2
    with canned(bad) as (url, count):
        with pytest.raises(Unavailable, match="failed 3 times"):
            graded(judge(url, retries=2), [CALL])
        assert len(count) == 3


def test_what_is_not_there_is_not_held_against_an_answer():
    """In a function of one's own too: any other exception costs a sample, this one ends the run."""

    def down(prompt, completion, answer):
        raise Unavailable("the licence server is away")

    for seconds in (5.0, None):
        with pytest.raises(Unavailable, match="the licence server is away"):
            guarded(down, [CALL], seconds=seconds)


def test_the_question_holds_all_three():
    assert all(part in question("ask", "said", "truth") for part in ("ask", "said", "truth"))
    assert "right answer" not in question("ask", "said", "")
    assert last_number("1e-1 or .5") == 0.5


@pytest.mark.parametrize("wrong", [{"low": 1.0}, {"workers": 0}, {"max_tokens": 0}])
def test_bounds_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValueError, match="low < high"):
        Judge(ChatClient("http://localhost:1/v1", MODEL), **wrong)


MINE = """
from steepest.models.chat import ChatClient
from steepest.models.judge import Judge
from steepest.problems.single_turn import Questions


def judged(url: str = ""):
    return Questions([("a", "b")], Judge(ChatClient(url, "m", retries=1), workers=1), max_new=2, tests=1)
"""


def test_an_endpoint_that_goes_down_stops_the_run_with_all_saved_and_it_goes_on_later(steepest, tmp_path, monkeypatch):
    (tmp_path / "of_mine.py").write_text(MINE)
    monkeypatch.syspath_prepend(tmp_path)
    down = (503, "text/plain", b"starting up")
    answers = [said("0.5")] * 6  # two before training, two in each of two steps
    back = [said("0.5")] * 100
    with canned(*answers, down, down, *back) as (url, _):
        options = f"--url {url} --prompts 1 --group 2 --steps 3 --threads 1 --every-save 1 --out {tmp_path / 'run'}"
        status, out, errors = steepest(f"train grpo --problem of_mine.judged {options}")
        assert status == 1, errors
        assert "step 3 failed: BadEndpoint" in out, errors
        assert "the last good state, of step 2, is in" in out
        status, out, _ = steepest(f"resume {tmp_path / 'run'}")
        assert status == 0, out
        assert "step 3" in out or (tmp_path / "run" / "checkpoints" / "step-000000003").is_dir()
