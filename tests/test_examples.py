"""The examples do what they say."""

import re
import subprocess
import sys

import pytest

from .pages import ROOT


def run(name, tmp_path):
    """What an example prints; each must be done in half a minute, on a machine that has other things to do in three."""
    command = [sys.executable, str(ROOT / "examples" / f"{name}.py")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_example_is_run():
    assert {path.stem for path in (ROOT / "examples").glob("*.py")} == {"own_loss", "own_claim", "resume"}


def test_one_loss_learns_on_a_text_and_on_a_cart_pole(tmp_path):
    said = run("own_loss", tmp_path)
    assert "on_policy, zero_advantage, order, padding, finite, pure, cut" in said
    before, after = map(float, re.search(r"ModeLottery accuracy: (\S+) -> (\S+)", said).groups())
    assert after > before + 0.1
    before, after = map(float, re.search(r"CartPole    return: (\S+) -> (\S+)", said).groups())
    assert after > before + 100


def test_a_run_that_is_cut_short_ends_with_the_same_bits(tmp_path):
    assert run("resume", tmp_path).splitlines() == ["goes on from step 6", "equal in every bit: True"]


@pytest.mark.slow
def test_a_claim_is_judged(tmp_path):
    assert run("own_claim", tmp_path).rstrip().endswith(": shown")
