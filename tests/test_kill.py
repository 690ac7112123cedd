"""`kill -9` at any moment, then `steepest resume`: the weights are those of a run that nobody disturbed."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from steepest.core.save import TENSORS, latest

CONTROL = (
    "ppo --problem CartPole --episodes 1 --limit 50 --envs 2 --horizon 8 --minibatches 2 --epochs 2 --width 8 --normalize True "
    "--anneal 500"
)
TEXT = "grpo --problem AddCliff --warm 2 --tests 1 --prompts 2 --group 2 --kl 0.04"
MUJOCO = "ppo --problem HalfCheetah-v5 --episodes 1 --envs 2 --horizon 16 --minibatches 2 --epochs 2 --width 8 --normalize True"



def start(*words, cwd):
    """The command, as a user starts it."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "STEEPEST_CACHE": str(cwd / "cache")}
    command = [sys.executable, "-m", "steepest", *map(str, words)]
    return subprocess.Popen(command, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(process, *, rc=0):
    said = process.communicate(timeout=300)[0]
    assert process.returncode == rc, said
    return said


def weights(run: Path) -> bytes:
    """Every bit of the last State."""
    return (run / "checkpoints" / f"step-{steps_of(run):09d}" / TENSORS).read_bytes()


def steps_of(run: Path) -> int:
    return json.loads((run / "run.json").read_text())["steps"]


def rows(run: Path) -> list[dict]:
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: x for name, x in row.items() if name != "seconds"} for row in found]


def moment(process, run: Path, chance: random.Random) -> str:
    """Wait for a random moment of a run's life: start-up, a step, or the middle of a save. -> which"""
    kind = chance.choice(("start", "step", "step", "save", "save"))
    if kind == "start":
        time.sleep(chance.uniform(0, 5))
        return kind
    folder = run / "checkpoints"
    before = latest(folder)
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        drafts = list(folder.glob(".step-*.draft"))
        newer = (newest := max(folder.glob("step-*"), default=None)) is not None and newest != before
        if kind == "save" and drafts and before != newest:
            break
        if kind == "step" and newer:
            time.sleep(chance.uniform(0, 0.1))
            break
        time.sleep(0.0005)
    return kind


def survive(tmp_path, words, steps, kills, seed):
    """Kill a run `kills` times, let it end, and compare it with an undisturbed one."""
    chance, hit = random.Random(seed), []
    words = ("train", *words.split(), "--steps", steps, "--every-save", 1, "--threads", 1, "--out")
    finish(start(*words, "calm", cwd=tmp_path))
    run = tmp_path / "shot"
    while len(hit) < kills:
        process = start("resume", "shot", cwd=tmp_path) if (run / "run.json").exists() else start(*words, "shot", cwd=tmp_path)
        kind = moment(process, run, chance)
        assert process.poll() is None, f"over before kill {len(hit) + 1}: {process.communicate()[0]}"
        process.send_signal(signal.SIGKILL)
        process.communicate()
        newest = latest(run / "checkpoints")  # warns, which is an error here, of one that is not whole
        hit.append((kind, int(newest.name[5:]) if newest else 0))
    finish(start("resume", "shot", cwd=tmp_path))
    assert weights(run) == weights(tmp_path / "calm"), hit
    assert rows(run) == rows(tmp_path / "calm"), hit
    at = [step for _, step in hit]
    assert at == sorted(at), hit  # no kill ever cost a checkpoint
    assert not [path for path in (run / "checkpoints").iterdir() if path.name.startswith(".")]
    return hit


@pytest.mark.filterwarnings("error::UserWarning")
def test_a_killed_run_goes_on_bitwise(tmp_path):
    assert len(survive(tmp_path, CONTROL, 60, 2, seed=2)) == 2


@pytest.mark.slow
@pytest.mark.filterwarnings("error::UserWarning")
@pytest.mark.parametrize(("words", "steps", "kills"), [(CONTROL, 400, 14), (TEXT, 150, 10)], ids=["control", "text"])
def test_many_kills(tmp_path, words, steps, kills):
    hit = survive(tmp_path, words, steps, kills, seed=0)
    assert {kind for kind, _ in hit} == {"start", "step", "save"}
    assert hit[-1][1] > 0


@pytest.mark.slow
def test_mujoco_goes_on_bitwise(tmp_path):
    assert survive(tmp_path, MUJOCO, 40, 3, seed=1)[-1][1] > 0


def test_ctrl_c_at_the_end_of_a_step_ends_the_next_one(steepest, tmp_path, monkeypatch):
    """The bug that it catches: a step that was over when the signal came is called saved and is not."""
    from steepest.app import session

    take, calls = session.Copy.take, iter(("before the first step", "step 1"))

    def late(copy):
        take(copy)
        if next(calls, None) == "step 1":
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(session.Copy, "take", late)
    status, out, err = steepest(f"train {CONTROL} --steps 50 --out run")
    assert status == 130
    assert "stopped after step 2 of 50; saved." in out + err
    assert latest(tmp_path / "run" / "checkpoints").name == "step-000000002"


def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path):
    process = start("train", *CONTROL.split(), "--steps", 100_000, "--threads", 1, "--out", "run", cwd=tmp_path)
    lines = tmp_path / "run" / "metrics.jsonl"
    while process.poll() is None and (not lines.exists() or lines.read_text().count("\n") < 3):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    said = finish(process, rc=130)
    step = rows(tmp_path / "run")[-1]["step"]
    assert f"stopped after step {step} of 100000; saved." in said
    assert "steepest resume run" in said
    assert latest(tmp_path / "run" / "checkpoints").name == f"step-{step:09d}"
    said = finish(start("resume", "run", "--steps", step + 2, cwd=tmp_path))
    assert f"from {step}" in said
    assert [row["step"] for row in rows(tmp_path / "run")] == list(range(1, step + 3))
