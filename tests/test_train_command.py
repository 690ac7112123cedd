"""A run from the command line: what it leaves behind, how it ends when something goes wrong, and how it goes on."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import threading

import pytest
import torch

from steepest.app import session
from steepest.app.plan import Plan, alone, find_run
from steepest.app.progress import clock, pace
from steepest.app.tracking import JsonLines, numbers
from steepest.core import State, save
from steepest.core import system as loop

TINY = "--envs 2 --horizon 8 --minibatches 1 --epochs 1 --width 8 --episodes 1 --limit 20 --threads 1"


@pytest.fixture
def train(steepest):
    def run(line):
        return steepest(f"train ppo --problem CartPole {TINY} {line}")

    return run


def disturbed(monkeypatch, at, what):
    """Let `what(record)` happen to a run after step `at`."""
    real = loop.train

    def disturbing(*args, **options):
        for record in real(*args, **options):
            if record.step == at:
                what(record)
            yield record

    monkeypatch.setattr(loop, "train", disturbing)


def newest(run):
    return save.latest(run / "checkpoints")


def weights(folder):
    return {name: x for name, x in save.load(folder)[0].items() if isinstance(x, torch.Tensor)}


# ------------------------------------------------------------------------------------ what is left behind


def test_a_run_leaves_metrics_checkpoints_a_picture_and_its_plan(train, tmp_path):
    status, out, _ = train("--steps 6 --every-save 1")
    assert status == 0
    run = tmp_path / "runs" / "ppo-CartPole-0"
    last = "runs/ppo-CartPole-0/checkpoints/step-000000006"
    assert all(name in out for name in ("before", "after", "change", "return", "curve.png", f"steepest evaluate {last}"))
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert all(math.isfinite(row["score"]) and row["seconds"] >= 0 for row in rows)
    plan = Plan.read(json.loads((run / "run.json").read_text()), run)
    assert (plan.system, plan.problem, plan.steps, plan.options["envs"]) == ("ppo", "CartPole", 6, 2)
    assert plan.json() == json.loads((run / "run.json").read_text())
    assert (run / "curve.png").read_bytes().startswith(b"\x89PNG")
    kept = {int(path.name[5:]) for path in (run / "checkpoints").iterdir()}
    best = max((row for row in rows if plan.figure in row), key=lambda row: row[plan.figure])["step"]
    assert kept == {4, 5, 6, best}
    page = json.loads((run / "evaluation.json").read_text())
    assert page["step"] == 6
    assert page["before"].keys() == page["after"].keys()
    assert train("--steps 1")[0] == 0
    assert (tmp_path / "runs" / "ppo-CartPole-0-2").is_dir()


def test_stopping_and_going_on_changes_no_bit(train, steepest, tmp_path):
    train("--steps 7 --out whole")
    train("--steps 3 --out parts")
    assert steepest("resume parts --steps 7")[0] == 0
    assert json.loads((tmp_path / "parts" / "run.json").read_text())["steps"] == 7
    one, two = (weights(newest(tmp_path / name)) for name in ("whole", "parts"))
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.slow
@pytest.mark.parametrize("problem", ["HalfCheetah-v5", "Pendulum-v1", "PointMass", "Acrobot-v1"])
def test_live_environments_go_on_bitwise(steepest, tmp_path, problem):
    """Episodes are under way when the run stops: MuJoCo, classic control and the library's own."""
    sizes = "--envs 2 --horizon 33 --minibatches 1 --epochs 1 --width 8 --episodes 1"
    words = f"ppo --problem {problem} {sizes} --normalize True --threads 1"
    assert steepest(f"train {words} --steps 6 --out whole")[0] == 0
    assert steepest(f"train {words} --steps 3 --out parts")[0] == 0
    command = [sys.executable, "-m", "steepest", "resume", "parts", "--steps", "6"]
    subprocess.run(command, check=True, cwd=tmp_path, capture_output=True)
    one, two = (weights(newest(tmp_path / name)) for name in ("whole", "parts"))
    assert any("live" in name for name in one)
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_tensorboard_holds_the_scalars(train, tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    assert train("--steps 3 --tracker tensorboard --out run")[0] == 0
    events = accumulator.EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    told = events.Scalars("score")
    assert [event.step for event in told] == [1, 2, 3]
    assert [event.value for event in told] == pytest.approx([row["score"] for row in rows])


# ------------------------------------------------------------------------------------ what goes wrong


def test_nan_ends_the_run_and_the_last_good_state_is_saved(train, steepest, tmp_path, monkeypatch):
    def poison(record):
        record.metrics["loss"] = float("nan")

    disturbed(monkeypatch, 4, poison)
    monkeypatch.setattr(session, "SHARE", math.inf)  # a copy after every step
    status, out, _ = train("--steps 9 --out run")
    assert status == 1
    assert "step 4 failed: loss is NaN. Likely causes: a learning rate that is too high" in out
    assert "the last good state, of step 3, is in run/checkpoints/step-000000003" in out
    assert "with other options  steepest train ppo --problem CartPole" in out
    assert "Diverged" in (tmp_path / "run" / "error.txt").read_text()
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert steepest("resume run")[0] == 0
    train("--steps 9 --out calm")
    one, two = (weights(newest(tmp_path / name)) for name in ("run", "calm"))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert [json.loads(x)["step"] for x in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()] == [*range(1, 10)]


def test_weights_that_are_not_finite_never_take_a_good_states_place(train, tmp_path, monkeypatch):
    def poison(record):
        with torch.no_grad():
            next(record.state.policy.parameters()).view(-1)[0] = math.inf

    disturbed(monkeypatch, 3, poison)
    status, out, _ = train("--steps 9 --every-save 1 --out run")
    assert status == 1
    assert "step 3 failed: policy." in out
    assert "holds NaN or infinite numbers" in out
    assert newest(tmp_path / "run").name == "step-000000002"


def test_an_error_saves_and_names_the_step(train, steepest, tmp_path, monkeypatch):
    def fail(record):
        raise RuntimeError("the simulator [bold] broke")

    disturbed(monkeypatch, 3, fail)
    monkeypatch.setattr(session, "SHARE", math.inf)
    status, out, _ = train("--steps 9 --out run")
    assert status == 1
    assert "failed: RuntimeError: the simulator [bold] broke" in out
    assert "the last good state, of step 2, is in" in out
    assert "once the cause is removed  steepest resume run" in out


def test_an_error_in_the_first_step_leaves_no_checkpoint(train, tmp_path):
    status, out, _ = train("--steps 3 --out run --lr 1e38")
    assert status == 1
    assert "no step was finished" in out
    assert newest(tmp_path / "run") is None


def test_no_room_for_a_checkpoint_keeps_the_earlier_ones(train, steepest, tmp_path, monkeypatch):
    real = save.save_file

    def full(tensors, path):
        if "step-000000002" in str(path):
            raise OSError(28, "No space left on device")
        real(tensors, path)

    monkeypatch.setattr(save, "save_file", full)
    status, out, _ = train("--steps 9 --every-save 1 --out run")
    assert status == 1
    assert "no room for a checkpoint" in out
    assert newest(tmp_path / "run").name == "step-000000001"
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert steepest("resume run")[0] == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_after_its_step(train, tmp_path, monkeypatch, number):
    disturbed(monkeypatch, 2, lambda record: os.kill(os.getpid(), number))
    before = signal.getsignal(number)
    status, out, _ = train("--steps 9 --out run")
    assert status == 128 + number
    assert "stopped after step 2 of 9; saved." in out
    assert "go on  steepest resume run" in out
    assert newest(tmp_path / "run").name == "step-000000002"
    assert signal.getsignal(number) is before


def test_a_second_ctrl_c_stops_at_once(train, tmp_path, monkeypatch):
    def twice(record):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    disturbed(monkeypatch, 2, twice)
    status, _, err = train("--steps 9 --out run")
    assert status == 130
    assert "interrupted" in err


def test_a_run_in_a_thread_needs_no_signals():
    found = []

    def listen():
        with session.Stop().listening():
            found.append(True)

    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    assert found == [True]


# ------------------------------------------------------------------------------------ folders


def test_a_folder_in_use_is_refused(train, steepest, tmp_path):
    train("--steps 2 --out run")
    code = "from pathlib import Path; from steepest.app.plan import alone\nwith alone(Path('run')): print(1, flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "1\n"
        status, _, err = steepest("resume run --steps 4")
        assert status == 2
        assert f"process {other.pid} is training in run: wait for it" in err
        other.kill()
    with alone(tmp_path / "run"):  # a process that died holds nothing
        pass
    assert steepest("resume run --steps 4")[0] == 0


def test_what_can_be_resumed(train, steepest, tmp_path):
    train("--steps 4 --every-save 1 --out run")
    checkpoints = tmp_path / "run" / "checkpoints"
    status, _, err = steepest("resume run/checkpoints/step-000000003")
    assert status == 2
    assert "is not the newest of its run" in err
    shutil.copytree(checkpoints / "step-000000003", tmp_path / "copy" / "step-000000003")
    assert steepest("resume copy/step-000000003")[0] == 0
    one, two = weights(newest(tmp_path / "run")), weights(newest(tmp_path / "runs" / "ppo-CartPole-0"))
    assert all(torch.equal(one[name], two[name]) for name in one)
    status, _, err = steepest("resume .")
    assert "below it are run" in err
    (tmp_path / "run" / "run.json").write_text("{")
    status, _, err = steepest("resume run")
    assert "run.json is no JSON" in err
    with pytest.raises(ValueError, match=r"does not say system, .*`steepest train` did not write it"):
        find_run(save.save(tmp_path / "mine" / "c", State(), {}))


def test_options_changed_by_hand_are_refused(train, steepest, tmp_path):
    train("--steps 2 --out run")
    path = tmp_path / "run" / "run.json"
    page = json.loads(path.read_text())
    path.write_text(json.dumps({**page, "options": {**page["options"], "lr": 1.0}}))
    status, _, err = steepest("resume run --steps 3")
    assert status == 2
    assert "this run has lr=1.0: it cannot go on from there" in err


def test_a_run_killed_before_its_evaluation_is_finished_by_resume(train, steepest, tmp_path, monkeypatch):
    monkeypatch.setattr(session.Session, "finish", lambda *_: 1 / 0)
    assert train("--steps 2 --out run")[0] == 1
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert "after" not in json.loads((tmp_path / "run" / "evaluation.json").read_text())
    status, out, _ = steepest("resume run")
    assert status == 0
    assert "change" in out
    assert steepest("resume run")[0] == 2


# ------------------------------------------------------------------------------------ parts


def test_metrics_beyond_the_checkpoint_and_torn_rows_are_removed(tmp_path):
    path = tmp_path / "metrics.jsonl"
    lines = JsonLines(path, 0)
    for step in (1, 2, 3):
        lines.log(step, {"seconds": step / 2, "score": math.inf if step == 2 else 1.0})
    lines.close()
    with open(path, "a") as file:
        file.write('{"step": 4, "sec')
    again = JsonLines(path, 2)
    assert again.seconds == 1.0
    again.log(3, {"seconds": 9.0})
    again.close()
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(row["step"], row["seconds"], row.get("score")) for row in rows] == [(1, 0.5, 1.0), (2, 1.0, None), (3, 9.0, None)]


def test_metrics_are_numbers_or_left_out():
    found = numbers({"a": 1, "b": torch.tensor(2.0), "c": torch.zeros(2), "d": "x", "e": None, "f": True})
    assert found == {"a": 1.0, "b": 2.0, "f": 1.0}


def test_times_are_easy_to_read():
    assert [clock(x) for x in (0, 59.6, 3600, 3723, -1)] == ["0:00", "1:00", "1:00:00", "1:02:03", "0:00"]
    assert [pace(x) for x in (123.456, 1.0, 0.25)] == ["123 steps/s", "1 steps/s", "4 s/step"]
