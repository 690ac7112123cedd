"""Forms, mixes and mathematics as rewards."""

import pickle
import time

import pytest
import torch

from steepest.core.check import check_system
from steepest.problems.rewards import Inside, Matches, Mathematical, Part, Tagged, exact, graded, max_of, mixed, numeric
from steepest.problems.single_turn import Questions
from steepest.systems.reasoning.grpo import grpo


def test_exact_is_letter_by_letter():
    assert [exact("q", text, "Ab") for text in ("Ab", " Ab\n", "ab", "Ab.", "")] == [1, 1, 0, 0, 0]


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("<think>a</think><answer>b</answer>", 1), ("\n<think>\na\n</think>\n\n<answer> b </answer>\n", 1), ("<think>a</think>", 0),
        ("<answer>b</answer><think>a</think>", 0), ("<think>a</think> so <answer>b</answer>", 0),
        ("<think></think><answer>b</answer>", 0),
        ("<think>a</think><answer>b</answer>.", 0), ("<think>a</think><answer>b</answer><answer>c</answer>", 0), ("", 0),
        ("<think>a<think>b</think></think><answer>c</answer>", 0), ("<think>a<answer>b</answer></think>", 0),
        ("<think>a</think><answer>b", 0), ("<THINK>a</THINK><answer>b</answer>", 0),
    ],
)  # fmt: skip
def test_tags_are_kept_or_not(text, kept):
    assert Tagged("think", "answer")("q", text, "b") == kept


def test_other_forms():
    assert Matches(r"\d+")("q", "12", "") == 1
    assert Matches(r"\d+")("q", "12 ", "") == 0
    assert Matches(r"a.*b")("q", "a\nb", "") == 1
    assert Inside("answer", numeric)("q", "<answer>#### 3</answer> #### 4", "3") == 1
    assert Inside("answer", numeric)("q", "#### 3", "3") == 0
    for wrong, said in ((lambda: Matches("("), "no regular expression"), (lambda: Tagged(), "one or more names"),
                        (lambda: Tagged("a b"), "one or more names")):  # fmt: skip
        with pytest.raises(ValueError, match=said):
            wrong()


def long(prompt, completion, answer):
    return float(len(completion))


def slow(prompt, completion, answer):
    time.sleep(1000 if completion == "slow" else 0)
    return 1.0


CALLS = [("q", "2", "2"), ("q", "333", "2"), ("q", "slow", "slow")]


def test_a_mix_is_the_weighted_sum_of_capped_parts_and_tells_each():
    reward = mixed(right=exact, size=Part(long, weight=-0.5, high=3.0))
    score, told = graded(reward, CALLS, seconds=None)
    assert score.tolist() == [1 - 0.5 * 1, 0 - 0.5 * 3, 1 - 0.5 * 3]  # four letters count as three
    assert told["reward_right"] == pytest.approx(2 / 3)
    assert told["reward_size"] == pytest.approx(7 / 3)
    assert 0 <= told["reward_size_seconds"] < 5
    assert pickle.loads(pickle.dumps(reward)) == reward
    assert reward("q", "333", "2") == -1.5


def test_the_largest_of_several():
    assert graded(max_of(right=exact, size=Part(long, weight=0.25)), CALLS, seconds=None)[0].tolist() == [1, 0.75, 1]


def test_each_part_has_its_own_time_limit():
    with pytest.warns(RuntimeWarning, match="slow failed, so that its answer counts -1: it took longer than 0.3 s"):
        score, told = graded(mixed(right=exact, slow=Part(slow, seconds=0.3)), CALLS, seconds=5.0, failing=-1.0)
    assert score.tolist() == [2, 1, 0]
    assert (told["slow_reward_failures"], told["right_reward_failures"]) == (1, 0)
    assert told["reward_slow_seconds"] >= 0.3


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: mixed(), "no reward is given"), (lambda: mixed(a="exact"), "must be callable"),
        (lambda: Part(exact, weight=float("nan")), "weight must be a finite"),
        (lambda: Part(exact, low=1, high=0), "low must be below"),
    ],
)  # fmt: skip
def test_a_mix_that_makes_no_sense_is_refused(make, said):
    with pytest.raises(ValueError, match=said):
        make()


def mix():
    return Questions([("1 + 1", "2")], reward=mixed(right=exact, size=Part(long, weight=0.01, high=8)), max_new=4, tests=2)


def test_a_run_reports_its_mix_and_repeats_bitwise():
    """Seconds differ from run to run; their names say that they may."""
    laws = check_system(lambda: grpo(prompts=1, group=2, lr=1e-4), mix, half=1, fresh=False)
    assert "two runs equal" in laws


# ------------------------------------------------------------------------------------ mathematics

EQUAL = [
    (r"\boxed{\frac{1}{2}}", "0.5"), (r"\boxed{\dfrac{3}{6}}", r"\frac12"), (r"\boxed{2\sqrt{2}}", r"\sqrt{8}"),
    ("#### 1,234", "1234"),
    (r"\boxed{(1, 2)}", "(1,2)"), (r"\boxed{\{2, 1\}}", r"\{1,2\}"), (r"\boxed{[0, 1)}", "[0,1)"),
    (r"\boxed{x^2 + 2x + 1}", "(x+1)^2"),
    (r"thus $x = \frac{\pi}{3}$.", r"\frac{\pi}{3}"), (r"\boxed{-\infty}", r"-\infty"), ("The answer is 7", "$7$"),
]  # fmt: skip
DIFFERENT = [
    (r"\boxed{\frac{1}{3}}", "0.5"), (r"\boxed{(2, 1)}", "(1,2)"), (r"\boxed{(0, 1)}", "[0,1)"), ("", "7"), ("none", "7"),
    (r"\boxed{7", "8"), (r"\boxed{x + 1}", "x"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "answer", "same"), [*((*row, 1.0) for row in EQUAL), *((*row, 0.0) for row in DIFFERENT)])
def test_answers_are_compared_as_mathematics(text, answer, same):
    pytest.importorskip("math_verify")
    assert Mathematical()("q", text, answer) == same


def test_mathematics_runs_where_alarms_do_not_and_is_held_by_the_time_limit():
    """math-verify's own limit is an alarm, which would take that of the forked process away."""
    pytest.importorskip("math_verify")
    calls = [("q", r"\boxed{\frac12}", "0.5"), ("q", r"\boxed{9^{9^{9^{9^{9}}}}}", "2"), ("q", "3", "3")]
    began = time.monotonic()
    with pytest.warns(RuntimeWarning, match="longer than 4 s"):
        found, _ = graded(Mathematical(), calls, seconds=4.0)
    assert (float(found[0]), float(found[2])) == (1, 1)
    assert time.monotonic() - began < 60


def test_without_the_library_the_way_to_it_is_said(monkeypatch):
    from steepest.problems.rewards import latex

    latex.library.cache_clear()
    monkeypatch.setitem(__import__("sys").modules, "math_verify", None)
    with pytest.raises(ValueError, match=r"pip install 'steepest\[math\]'"):
        Mathematical()
    latex.library.cache_clear()


def test_an_answer_of_the_data_that_is_no_mathematics_is_refused():
    pytest.importorskip("math_verify")
    with pytest.raises(ValueError, match="cannot be read as mathematics"):
        Mathematical()("q", "3", "")
    assert torch.equal(graded(mixed(math=Mathematical()), [("q", "3", "3")], seconds=None)[0], torch.ones(1))
