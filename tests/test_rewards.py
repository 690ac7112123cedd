import itertools
import math
import os
import random
import signal
import subprocess
import sys
import threading
import time
import warnings
from contextlib import suppress
from decimal import Decimal
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from steepest.problems.rewards import final_answer, guarded, number, numeric

# ------------------------------------------------------------------------------------ answers that are numbers

SPELLINGS = [
    ("18", "18"), (" 18 ", "18"), ("18.", "18"), ("18.0", "18"), ("18.00", "18"), ("018", "18"), ("+18", "18"), ("$18", "18"),
    ("$ 18", "18"), (r"\$18", "18"), ("$18$", "18"), ("**18**", "18"), ("**$18.00**", "18"), ("18%", "18"), (r"18\%", "18"),
    ("18 dollars", "18"), ("18 miles/hour", "18"), (r"18 \text{ eggs}", "18"), (r"18\!", "18"), ("18!", "18"), ("€18", "18"),
    ("18 €", "18"), ("£18.50", "18.5"), ("¥1,800", "1800"), ("-18", "-18"), ("-$18", "-18"), ("$-18", "-18"), ("−18", "-18"),
    ("- 18", "-18"), ("1,234", "1234"), ("1,234,567.890", "1234567.89"), ("1{,}234", "1234"), ("1234.50", "1234.5"),
    (".5", "0.5"), ("0.5", "0.5"), ("-.5", "-0.5"), ("0", "0"), ("-0", "0"), ("-0.00", "0"), ("000", "0"),
]  # fmt: skip
NO_NUMBER = [
    "", " ", "none", "$", ".", "-", "1,23", "1,2345", ",123", "12,345,6", "1.2.3", "3 or 4", "3/4", "3+4", "10-20", "1e3", "5²",
    "3½", "½", "٣", "18万", "x = 3", "3:30", "km 5", r"\frac{1}{2}", "18 m2", "nan", "inf", "--3",
]  # fmt: skip


@pytest.mark.parametrize(("text", "shortest"), SPELLINGS)
def test_a_number_is_read_however_it_is_spelt(text, shortest):
    assert number(text) == shortest
    assert number(shortest) == shortest
    assert Decimal(shortest) == Decimal(number(text))


@pytest.mark.parametrize("text", NO_NUMBER)
def test_what_is_no_single_number_is_not_read(text):
    assert number(text) is None


def test_equal_numbers_are_equal_texts_and_others_are_not():
    rng = random.Random(0)
    drawn = [Decimal(rng.randrange(-(10**7), 10**7)) / 10 ** rng.randrange(5) for _ in range(300)]
    for value in drawn:
        spelt = [f"{value:f}", f"{value:,f}", f"${value:,f}", f"{value:f} eggs", f"{value:,.6f}"]
        assert len({number(text) for text in spelt}) == 1, spelt
        assert Decimal(number(spelt[0])) == value
    for one, two in itertools.pairwise(drawn):
        assert (number(f"{one:f}") == number(f"{two:,f}")) is (one == two)


def test_a_number_of_any_size_is_read_in_linear_time():
    began = time.process_time()
    assert number("9" * 10**6 + ".0") == "9" * 10**6
    assert number("," * 10**6) is None
    assert number("1" * 10**6 + "x" * 10**6 + "1") is None
    assert final_answer(r"\boxed{" * 10**5) == ""
    assert time.process_time() - began < 5


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("#### 18", "18"), ("so\n#### 18\nand more 19", "18"), ("####18", "18"), ("####\n18", "18"), ("#### 1\n#### 2", "2"),
        ("##### 18", "18"), (r"it is \boxed{18}.", "18"), (r"\boxed{\frac{1}{2}} so", r"\frac{1}{2}"), ("### 18", ""),
        (r"#### 1 \boxed{2}", "2"), ("\\boxed{2}\n#### 1", "1"), ("18", ""), ("", ""), ("####", ""), (r"\boxed{18", ""),
        (r"\boxed{1} \boxed{2}", "2"), (r"\boxed{}", ""),
    ],
)  # fmt: skip
def test_the_final_answer_is_the_last_that_is_marked(text, answer):
    assert final_answer(text) == answer


def test_the_verdict_is_of_the_final_answer_alone():
    assert numeric("q", "5 + 13 = 18\n#### $18.00", "18") == 1.0
    assert numeric("q", r"thus \boxed{1{,}234 \text{ eggs}}", "1,234") == 1.0
    for wrong in ("18", "#### 17", "#### 18 or 19", "#### 18\n#### 19", "#### -18", "#### 180", "#### 1.8", "####"):
        assert numeric("q", wrong, "18") == 0.0
    assert numeric("q", "#### none", "none") == 0.0  # two texts that are no numbers are not equal numbers


# ------------------------------------------------------------------------------------ calls that may fail


def troubled(what, folder=None):
    """Gives the number it is asked for, or misbehaves in the way it is asked to."""
    if not isinstance(what, str):
        return what
    if what == "raises":
        raise KeyError("no such luck")
    if what == "leaves":
        raise SystemExit(0)
    if what == "hangs":
        time.sleep(1000)
    if what == "hangs in C":  # no bytecode runs, so an alarm's handler does not either
        return sum(itertools.repeat(0, 10**15))
    if what == "hangs and swallows":
        while True:
            with suppress(BaseException):
                time.sleep(1000)
    if what == "exits":
        os._exit(0)
    if what == "is killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "starts a program":
        program = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
        Path(folder, "program").write_text(str(program.pid))
        program.wait()
    return 1.0


def alive(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().split(") ")[1][0] != "Z"
    except FileNotFoundError:
        return False


def gone(process, seconds=10.0):
    until = time.monotonic() + seconds
    while alive(process):
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True


@pytest.mark.parametrize("seconds", [5.0, None])
def test_what_does_not_fail_is_what_the_function_says(seconds):
    calls = [(x,) for x in (0, 1.5, True, np.float32(0.25), np.float64(-3), np.array(2), torch.tensor(0.125), torch.tensor(7))]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        score, failures = guarded(troubled, calls, seconds=seconds)
        assert guarded(troubled, [], seconds=seconds)[0].shape == (0,)
    assert score.dtype == torch.float32
    assert score.tolist() == [0, 1.5, 1, 0.25, -3, 2, 0.125, 7]
    assert failures == 0


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("raises", "KeyError: 'no such luck'"), ("hangs", "longer than 0.3 s"), ("hangs in C", "longer than 0.3 s"),
        ("hangs and swallows", "longer than 0.3 s"), ("leaves", "SystemExit"), ("exits", "ended its process"),
        ("is killed", "ended its process"),
    ],
)  # fmt: skip
def test_a_call_that_fails_costs_its_own_sample_and_no_other(what, said):
    calls = [(1.0,), (what,), (2.0,), (what,), (3.0,)]
    began = time.monotonic()
    with pytest.warns(RuntimeWarning, match=f"the reward troubled failed, so that its answer counts -1: .*{said}") as told:
        score, failures = guarded(troubled, calls, seconds=0.3, failing=-1.0)
    assert score.tolist() == [1, -1, 2, -1, 3]
    assert failures == 2
    assert len(told) == 1
    assert time.monotonic() - began < 5


def test_without_a_limit_an_exception_is_caught_here():
    for what, said in (("raises", "KeyError"), ("leaves", "SystemExit")):
        with pytest.warns(RuntimeWarning, match=said):
            score, failures = guarded(troubled, [(what,), (2.0,)], seconds=None)
        assert (score.tolist(), failures) == ([0, 2], 1)
    seen = []
    guarded(lambda x: seen.append(x) or 1.0, [(1,), (2,)], seconds=None)
    assert seen == [1, 2]  # it ran in this process ...
    guarded(lambda x: seen.append(x) or 1.0, [(1,), (2,)], seconds=5.0)
    assert seen == [1, 2]  # ... and with a limit it did not


def test_it_works_from_a_thread_where_an_alarm_cannot():
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        thread = threading.Thread(target=lambda: found.append(guarded(troubled, [("hangs",), (2.0,)], seconds=0.3)))
        thread.start()
        thread.join(20)
    assert found[0][0].tolist() == [0, 2]
    assert found[0][1] == 1


def test_torch_in_a_reward_function_works_after_the_fork():
    torch.randn(300, 300) @ torch.randn(300, 300)  # the pool of threads exists in this process
    score, failures = guarded(lambda n: (torch.ones(n, 300) @ torch.ones(300, n)).mean(), [(200,), (300,)], seconds=20.0)
    assert (score.tolist(), failures) == ([300, 300], 0)


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks at /proc")
def test_what_a_call_started_ends_with_it(tmp_path):
    with pytest.warns(RuntimeWarning, match="longer than 1 s"):
        guarded(troubled, [("starts a program", tmp_path)], seconds=1.0)
    assert gone(int((tmp_path / "program").read_text()))


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks at /proc")
def test_a_killed_run_leaves_no_process_behind(tmp_path):
    program = (
        "import os, pathlib, sys, time\nfrom steepest.problems.rewards import guarded\n"
        "def forever():\n    pathlib.Path(sys.argv[1]).write_text(str(os.getpid()))\n    time.sleep(1000)\n"
        "guarded(forever, [()], seconds=1.0)\n"
    )
    path = tmp_path / "worker"
    run = subprocess.Popen([sys.executable, "-c", program, str(path)])
    try:
        until = time.monotonic() + 60
        while not (path.exists() and path.read_text()):
            assert time.monotonic() < until
            time.sleep(0.01)
    finally:
        run.kill()
        run.wait()
    worker = int(path.read_text())
    assert gone(worker)


class Judge:
    def __call__(self, what):
        return what


def verbose(what, times):
    return what


@pytest.mark.parametrize("seconds", [5.0, None])
@pytest.mark.parametrize(
    ("value", "said"),
    [
        (math.nan, r"gave nan for answer 2 \(1 of 3 are not finite\)"), (math.inf, "gave inf for answer 2"), (1e60, "gave inf"),
        ([1.0, 2.0], r"gave \[1.0, 2.0\] for answer 2: it must give one number"), (None, "gave None"), ("1", "gave '1'"),
        (torch.ones(3), "one number"), (np.ones(1), "one number"), (1j, "one number"),
    ],
)  # fmt: skip
def test_what_is_no_finite_number_is_refused_with_function_and_index(value, said, seconds):
    for reward, name in ((Judge(), "Judge"), (partial(verbose, times=2), "verbose")):
        with pytest.raises(ValueError, match=f"the reward {name} .*{said}"):
            guarded(reward, [(0.0,), (1.0,), (value,)], seconds=seconds)


def test_wrong_limits_are_refused(monkeypatch):
    for options, said in (({"seconds": 0}, "seconds must be positive"), ({"failing": math.nan}, "failing must be a finite number")):
        with pytest.raises(ValueError, match=said):
            guarded(troubled, [(1.0,)], **options)
    monkeypatch.delattr(os, "fork")
    with pytest.raises(ValueError, match=r"needs os\.fork.* seconds=None"):
        guarded(troubled, [(1.0,)])
