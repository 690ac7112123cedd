"""Programs as answers: right ones pass, and no trick does."""

import json
import random

import pytest
import torch

from steepest.core import Stream
from steepest.core.check import check_problem, check_system
from steepest.core.problem import Unavailable
from steepest.problems.coding import CASES, RULES, Coding, rows, solution
from steepest.problems.rewards import code, code_reward, graded
from steepest.problems.rewards.cases import beside, cases_of, received, spelt
from steepest.problems.rewards.code import last_program
from steepest.problems.sandbox import Limits, SandboxError, sandbox
from steepest.systems.reasoning.grpo import grpo

from . import escapes
from .escapes import by_name


def holds():
    try:
        return bool(sandbox())
    except SandboxError:
        return False


pytestmark = pytest.mark.skipif(not holds(), reason="nothing on this machine holds a program")

ADD = json.dumps(["assert add(1, 2) == 3", "assert abs(add(0.5, 0.9) - 1.4) < 1e-9", "assert set(add([1], [2])) == {1, 2}"])
DOUBLE = json.dumps([{"stdin": "3\n", "stdout": "6\n"}, {"stdin": "0\n", "stdout": "0"}])


def fenced(program):
    return f"Here it is.\n```python\n{program}\n```\n"


def test_right_programs_pass_and_wrong_ones_do_not():
    calls = [
        ("q", fenced("def add(a, b):\n    return a + b"), ADD), ("q", fenced("def add(a, b):\n    return a - b"), ADD),
        ("q", fenced("def add(a, b):\n    return 3"), ADD), ("q", fenced("def other(a, b):\n    return a + b"), ADD),
        ("q", "def add(a, b):\n    return a + b", ADD), ("q", fenced("def add(a, b:"), ADD),
        ("q", fenced("print(2 * int(input()))"), DOUBLE), ("q", fenced("print(6)"), DOUBLE),
        ("q", fenced("print('6 ', '')\n"), DOUBLE),
    ]  # fmt: skip
    score, told = graded(code_reward(), calls)
    assert score.tolist() == [1, 0, 0, 0, 0, 0, 1, 0, 0]
    assert told == {"no_program": pytest.approx(1 / 9), "over_limit": 0}
    parts, _ = graded(code_reward(share=True), calls)
    torch.testing.assert_close(parts, torch.tensor([1, 0, 1 / 3, 0, 0, 0, 1, 0.5, 0.5]))


TRICKS = {**by_name(escapes.TRICKS), "no text": "\x00"}


@pytest.mark.parametrize("name", TRICKS)
def test_no_trick_passes(name):
    reward = code_reward(limits=Limits(seconds=2.0, cpu=1), share=True)
    score, _ = graded(reward, [("q", fenced(TRICKS[name]), ADD)])
    assert score.tolist() == [0] or (name in ("other builtins", "another json") and score[0] < 1)


def test_the_trick_with_a_pickle_left_nothing(tmp_path):
    from pathlib import Path

    assert not Path("/tmp/steepest-was-here").exists()


def test_a_program_that_lies_about_an_early_exit_has_printed_nothing():
    calls = [("q", fenced(text), DOUBLE) for text in ("import os; os._exit(0)", "quit()", "raise SystemExit")]
    assert graded(code_reward(), calls)[0].tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("test", "program", "passes"),
    [
        ("assert f(2)", "f = lambda n: n % 2 == 0", True), ("assert f(3)", "f = lambda n: n % 2 == 0", False),
        ("assert not f(3)", "f = lambda n: n % 2 == 0", True), ("assert f(1) is None", "f = lambda n: None", True),
        ("assert f('a') == {'a': 1}", "from collections import Counter\nf = Counter", True),
        ("assert f() == (1, [2.5, {3}], 'x', b'y', None, True)", "f = lambda: (1, [2.5, {3}], 'x', b'y', None, True)", True),
        ("assert f() == [1]", "f = lambda: (1,)", False), ("assert f() == 1", "f = lambda: 1.0", True),
        ("assert math.isnan(f())", "f = lambda: float('nan')", True), ("assert f() == float('inf')", "f = lambda: 1e999", True),
        ("assert isclose(f(), 0.1 + 0.2)", "f = lambda: 0.3", True), ("assert f() == 1 + 2j", "f = lambda: 1 + 2j", True),
        ("assert sorted(f()) == [1, 2]", "f = lambda: {2, 1}", True), ("assert A(3).double() == 6",
         "class A:\n    def __init__(self, n): self.n = n\n    def double(self): return 2 * self.n", True),
        ("assert f(g(2)) == 5", "f = lambda x: x + 1\ng = lambda x: x * 2", True), ("assert LIMIT == 7", "LIMIT = 7", True),
        ("assert f(1) == f(2)", "f = lambda n: 0", True), ("assert len(f(3)) == 3, 'three'", "f = lambda n: list(range(n))", True),
        ("assert f(1, key=[2][0]) <= 3", "f = lambda n, key: n + key", True),
        ("assert f('\\u00e4') == '\\u00e4\\n'", "f = lambda x: x + '\\n'", True),
        ("assert f() == 'said'", "def f():\n    print('not this')\n    return 'said'", True),
        ("assert f() == 1", "def f(): return 1\nif __name__ == '__main__':\n    input()", True),
    ],
)  # fmt: skip
def test_assertions_are_taken_apart_and_hold_as_they_would_in_python(test, program, passes):
    assert code_reward()("q", fenced(program), json.dumps([test])) == passes


def test_values_cross_over_unchanged():
    generator = random.Random(0)

    def drawn(depth):
        kind = generator.randrange(10 if depth else 6)
        if kind < 6:
            return [None, True, generator.randrange(-(10**30), 10**30), generator.random(), "ä\n'\"\\\x00", b"\x00\xff"][kind]
        inner = [drawn(depth - 1) for _ in range(generator.randrange(4))]
        flat = [x for x in inner if not isinstance(x, (list, dict, set, tuple))]
        return [inner, tuple(inner), set(flat), dict(zip(flat, inner, strict=False))][kind - 6]

    values = [drawn(3) for _ in range(60)]
    found = sandbox().run(beside(f"values = {values!r}", [f"values[{n}]" for n in range(60)]))
    assert received(found.stdout, 60) == [(x,) for x in values]
    assert all(eval(spelt(x)) == x for x in values)


@pytest.mark.parametrize(
    "text", ["", "[]", "[1, 2]", "{}", "[[1, 2], [3]]", "nonsense", "[" * 10**5, '[[{"set": [[1]]}], [1]]', "[[1]]"]
)
def test_what_is_no_value_counts_as_none(text):
    assert received(text, 2)[0] is None


@pytest.mark.parametrize(
    ("text", "program"),
    [
        ("```python\na\n```", "a\n"), ("```python\na\n```\n```python\nb\n```", "b\n"), ("```\na\n```", "a\n"),
        ("```py\na\n```x", "a\n"),
        ("```python\na\n```\n```\nb\n```", "a\n"), ("```bash\na\n```", None), ("a", None), ("```python\na", None),
        ("  ```Python3 title\n  a\n  ```", "  a\n"), ("", None),
    ],
)  # fmt: skip
def test_the_last_program_is_taken(text, program):
    assert last_program(text) == program


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("assert f(1) == 1", "a list in JSON"), ("[]", "at least one entry"), ("[3]", "test 0 is neither"),
        ("[{}]", "test 0 is neither"),
        ('["f(1)"]', "one assertion"), ('["assert f(1"]', "no Python"), ('["assert 1 == 1"]', "calls nothing of the program"),
        ('["assert all(f(x) for x in [1])"]', "names of its own"), ('{"inputs": ["1"], "outputs": []}', "1 inputs but 0 outputs"),
    ],
)  # fmt: skip
def test_tests_that_are_none_are_refused_with_their_row(answer, said):
    with pytest.raises(ValueError, match=f"the answer of row 1: .*{said}"):
        code_reward().grade([("q", "x", ADD), ("q", "x", answer)])


def test_texts_for_stdin_and_stdout_may_stand_in_two_lists():
    assert cases_of('{"inputs": ["3"], "outputs": ["6"]}') == cases_of('[{"stdin": "3", "stdout": "6"}]')


def test_where_nothing_holds_a_program_the_run_stops_before_any_work(monkeypatch):
    def nothing(*, weak):
        raise SandboxError("nothing on this machine holds a program")

    monkeypatch.setattr(code, "sandbox", nothing)
    for make in (code_reward, Coding):
        with pytest.raises(Unavailable, match="nothing on this machine"):
            make()


# ------------------------------------------------------------------------------------ the problem


def test_the_problem_obeys_the_laws_and_its_tasks_can_be_solved():
    problem = Coding(tests=4)
    check_problem(problem)
    assert (len(problem.train), len(problem.test)) == (96, 32)
    assert not {row.question for row in problem.train} & {row.question for row in problem.test}
    keys = torch.arange(0, 96, 13)
    texts = [solution(*divmod(int(key), 12), slip=0) for key in keys]
    assert problem.judged([problem.train[k] for k in keys], texts)[0].eq(1).all()
    assert "bubblewrap" in problem.holds or "seccomp" in problem.holds


def small():
    return Coding(warm=1, max_new=24, tests=2)


@pytest.mark.slow
def test_training_on_it_repeats_and_resumes_bitwise():
    assert "two runs equal" in check_system(lambda: grpo(prompts=1, group=2, lr=1e-4), small, half=1, fresh=False)


def test_no_two_rules_agree_on_all_cases():
    """Else a wrong program would pass."""
    for n in range(2, 18):
        seen = [tuple(eval(rule.format(n=n), {"a": a, "b": b}) for a, b in CASES) for _, rule in RULES]
        assert len(set(seen)) == len(RULES)


def test_the_teacher_is_right_in_half_of_its_answers():
    problem = Coding()
    prompts, tokens, mask = problem.teach(16, Stream(0).torch())
    score, told = problem.grade(prompts, tokens, mask)
    assert 0.2 < float(score.mean()) < 0.9
    assert told["no_program"] == 0


def test_rows_of_ones_own(tmp_path):
    path = tmp_path / "mine.jsonl"
    one = '{"question": "Double.", "tests": [{"stdin": "2", "stdout": "4"}]}'
    other = '{"question": "f", "tests": ["assert f() == 1"]}'
    path.write_text(f"{one}\n\n{other}\n")
    problem = Coding(data=path)
    assert [row.question for row in problem.train] == ["Double.", "f"]
    assert problem.warmup is None
    assert problem.judged(problem.train, [fenced("print(4)"), fenced("f = lambda: 1")])[0].tolist() == [1, 1]
    wrong = '{"question": "q", "tests": ["x"]}'
    for text, said in (("{", ":1: "), ("{}", "'question'; the row has no names"), (wrong, "test 0"), ("", "empty")):
        path.write_text(text)
        with pytest.raises(ValueError, match=said):
            rows(path)
    with pytest.raises(ValueError, match="there is no file"):
        rows(tmp_path / "none")
    with pytest.raises(ValueError, match="test_data without data"):
        Coding(test_data=path)
