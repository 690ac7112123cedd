"""The command line as a user meets it: words, help, wrong names and options, and what is printed."""

import inspect
import json
import subprocess
import sys

import pytest

from steepest import __version__
from steepest.app import cli, names
from steepest.app.options import REQUIRED, Option, coerce, fields_of, options_of, parse, plain, without_clashes
from steepest.app.train import Train

TINY = "--envs 2 --horizon 8 --minibatches 1 --epochs 1 --width 8 --episodes 1 --limit 20 --threads 1"


# ------------------------------------------------------------------------------------ words


def test_no_word_tells_all_words(steepest):
    status, out, _ = steepest("")
    assert status == 2
    assert all(f"steepest {name}" in out for name, _ in cli.COMMANDS)
    assert steepest("--help")[0] == 0
    assert steepest("--version") == (0, f"steepest {__version__}\n", "")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("trian ppo", "no command is called 'trian'; nearest: train. The commands are list, show"),
        ("train pp0 --problem CartPole", "no system is called 'pp0'; nearest: ppo"),
        ("train webrl", "no system is called 'webrl' yet: it is planned"),
        ("train vpg", "vpg has no claim that says what to train it on: add --problem"),
        ("train ppo --problem cartpol", "no problem is called 'cartpol'; nearest: CartPole"),
        ("train ppo --problem HalfCheeta-v5", "nearest: HalfCheetah-v5"),
        ("train ppo --problem CartPole --steps 0", "--steps is at least 1, not 0"),
        ("train ppo --problem CartPole --every-save 0", "--every-save is at least 1, not 0"),
        ("train ppo --problem CartPole --threads -1", "--threads is at least 1, not -1"),
        ("train ppo --problem CartPole --epochs 0", "at least 1, not 0"),
        ("train ppo --problem CartPole --device gpu", "device 'gpu' cannot be used here"),
        ("train ppo --problem CartPole --tracker tensorbord", "no tracker is called 'tensorbord'; nearest: tensorboard"),
        ("train nash_md --problem CartPole", "nash_md on CartPole: the system does not fit the problem: it needs `model`, which"),
        ("train td3_bc --problem CartPole", "it needs `data`, which CartPole (a Control problem) does not have"),
        ("train grpo --problem CartPole", "grpo on CartPole: this method compares whole answers to prompts"),
        ("train ppo --problem RockPaperScissors", "no policy is known for RockPaperScissors"),
        ("resume nowhere", "nowhere does not exist: give the folder that `steepest train` named"),
        ("evaluate .", ". is no run and no checkpoint"),
        ("show pppo", "no system is called 'pppo'; nearest: ppo"),
        ("list --family onpolicy", "no family is called 'onpolicy': choose one of agentic"),
        ("list --state done", "no state is called 'done'"),
        ("compare ppo vpg --problem CartPol --seeds 2", "no problem is called 'CartPol'"),
        ("compare ppo vpg(rate=1) --problem CartPole", "vpg has no option 'rate'; it has"),
        ("reproduce vpg", "vpg has no claim: it is a baseline"),
        ("check vpg", "With --problem any system can be checked"),
        ("check ppo --problem CartPole --half 0", "half must be at least 1 step"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_one_line_before_any_work(steepest, tmp_path, line, said):
    status, out, err = steepest(line)
    assert status == 2
    assert said in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("train ppo --problem CartPole --lrr 1", "--lr FLOAT"), ("train ppo --problem CartPole --lr fast", "could not convert"),
        ("compare ppo vpg", "--problem"), ("show", "NAME"), ("list --familly robust", "--family"),
    ],
)  # fmt: skip
def test_wrong_flags_suggest_the_right_ones(steepest, tmp_path, line, said):
    status, out, err = steepest(line)
    assert status == 2
    assert said in err
    assert out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_tracker_that_is_not_installed_gives_one_line(steepest, monkeypatch, name):
    find = __import__("importlib.util").util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda asked, *more: None if asked == name else find(asked, *more))
    status, _, err = steepest(f"train ppo --problem CartPole --tracker {name}")
    assert (status, err) == (2, f"error: --tracker {name} needs the package {name}, which is not installed: pip install {name}\n")


# ------------------------------------------------------------------------------------ help and defaults


def test_help_shows_every_option_with_default_unit_and_source(steepest):
    status, out, _ = steepest("train ppo --problem CartPole --help")
    assert status == 0
    flat = " ".join(out.replace("│", " ").split())
    for name in inspect.signature(names.find_system("ppo")).parameters:
        if plain(next((o.type for o in options_of(names.find_system("ppo"), "ppo") if o.name == name), object)):
            assert f"--{name.replace('_', '-')} " in flat
    assert "the band of the ratio is 1 +- this; inf: no band (paper: 0.2) (default: 0.2)" in flat
    assert "discount" in flat
    for words in ("ppo options", "CartPole options", "run options", "--episodes INT", "--every-save"):
        assert words in flat


def every_system():
    for name in names.all_systems():
        try:
            yield name, names.find_system(name)
        except ValueError:
            continue  # a part that several systems share


def test_every_system_says_what_each_option_is_and_takes_it():
    """A child that passes its options on must not show one that its parent's maker refuses."""
    told = list(every_system())
    assert len(told) >= 11
    for name, make in told:
        shown = options_of(make, name)
        assert [o.name for o in shown if not o.help] == [], name
        given = {o.name: o.default for o in shown}
        assert REQUIRED not in given.values(), name
        make(**given)


@pytest.mark.parametrize("name", names.all_problems())
def test_every_problem_says_what_each_option_is(name):
    assert [o.name for o in options_of(names.find_problem(name), name) if not o.help] == []


def test_a_claim_gives_defaults_and_flags_override_them():
    claim = names.find_claim("dpo")
    plan = Train.parse(["dpo"], "steepest train").plan
    assert plan.problem == claim.problem.func.__name__
    assert plan.steps == claim.steps
    assert plan.claimed
    for given, kept in ((claim.ours.keywords, plan.options), (claim.problem.keywords, plan.problem_options)):
        assert {name: x for name, x in given.items() if name in kept}.items() <= kept.items()
    plan = Train.parse(["dpo", "--beta", "0.7", "--steps", "3"], "steepest train").plan
    assert (plan.options["beta"], plan.steps) == (0.7, 3)
    other = Train.parse(["ppo", "--problem", "Pendulum-v1"], "steepest train").plan
    assert (other.claimed, other.problem, other.options["lr"]) == (False, "Pendulum-v1", 3e-4)


def test_names_of_systems_may_stand_anywhere_and_problems_be_said_loosely():
    plan = Train.parse(["--problem=cart-pole", "ppo", "--seed", "3"], "steepest train").plan
    assert (plan.system, plan.seed, plan.make()[1].__class__.__name__) == ("ppo", 3, "CartPole")


def test_two_options_of_one_name_get_two_flags():
    told = without_clashes([Option("steps", int, k, "", group) for k, group in enumerate(("run", "dppo", "Maze"))])
    assert [o.flag for o in told] == ["steps", "dppo.steps", "Maze.steps"]
    read = parse(told, ["--steps", "5", "--Maze.steps", "7"], prog="x", description="")
    assert read == {"": {}, "run": {"steps": 5}, "dppo": {"steps": 1}, "Maze": {"steps": 7}}


def test_options_survive_json():
    def make(*, sizes: tuple[int, ...] = (1, 2), data: __import__("pathlib").Path | None = None, name: str = "a"): ...

    back = coerce(make, json.loads(json.dumps({"sizes": [3, 4], "data": "x/y", "name": "n"})))
    assert back["sizes"] == (3, 4)
    assert back["data"].name == "y"
    assert back["name"] == "n"


def test_every_command_describes_its_options():
    for name, word in cli.COMMANDS:
        module, _, own = word.where.partition(":")
        command = getattr(__import__(f"steepest.app.{module}", fromlist=[own]), own)
        assert [o.name for o in fields_of(command) if not o.help] == [], name


# ------------------------------------------------------------------------------------ what is printed


def test_list_and_show_tell_the_catalog(steepest):
    status, out, _ = steepest("list --family on_policy")
    assert status == 0
    assert "Proximal Policy Optimization Algorithms" in out
    assert "nash_md" not in out
    page = json.loads(steepest("list --json")[1])
    assert sum(row["kind"] != "baseline" for row in page["systems"]) == 296
    out = steepest("show ppo")[1]
    assert all(word in out for word in ("Paper", "Claim", "Idea", "State", "--clip-range", "1707.06347", "steepest train ppo"))
    out = steepest("show grpo")[1]
    assert "--group" in out
    assert "--loss" in out  # a part that has names
    assert "--reduce" not in out  # a slot is no flag
    assert "slots: they take functions, in Python" in out
    assert "planned" in steepest("show webrl")[1]
    assert json.loads(steepest("show dppo --json")[1])["options"][0]["owner"] == "dppo"


def test_dropped_options_are_not_shown(steepest):
    page = json.loads(steepest("show dppo --json")[1])
    assert "std" not in {o["name"] for o in page["options"]}
    assert "envs" in {o["name"] for o in page["options"]}


def test_check_says_which_laws_hold(steepest):
    status, out, _ = steepest("check ppo(envs=2,horizon=8,minibatches=1,epochs=1,width=8) --problem CartPole(limit=20) --half 1")
    assert status == 0
    assert out.count("holds") == 7
    assert "resume is bitwise in a fresh process" in out


def test_compare_prints_a_table_or_json(steepest, tmp_path):
    systems = "ppo(envs=2,horizon=8,minibatches=1) vpg(envs=2,horizon=8,critic_minibatches=1)"
    line = f"compare {systems} --problem CartPole(limit=20,episodes=1)"
    status, out, _ = steepest(f"{line} --seeds 2 --steps 1 --repetitions 100 --workers 1 --out c --json")
    assert status == 0
    page = json.loads(out)
    assert page["problems"] == ["CartPole(limit=20,episodes=1)"]
    assert page == json.loads((tmp_path / "c" / "compare.json").read_text())


def test_train_evaluate_resume(steepest, tmp_path):
    status, out, err = steepest(f"train ppo --problem CartPole --steps 3 --json --tracker tensorboard --out run {TINY}")
    assert status == 0
    page = json.loads(out)
    assert page["step"] == 3
    assert "steepest resume run --steps 6" in err
    status, out, _ = steepest("evaluate run --json")
    assert json.loads(out)["evaluation"] == page["after"]
    status, out, _ = steepest("evaluate run/checkpoints/step-000000003 --repeats 3")
    assert "std" in out
    assert "ppo on CartPole, step 3" in out
    status, out, err = steepest("resume run --steps 5 --json")
    assert (status, json.loads(out)["step"]) == (0, 5)
    assert json.loads(out)["before"] == page["before"]
    assert [json.loads(line)["step"] for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()] == [1, 2, 3, 4, 5]
    status, out, err = steepest("resume run")
    assert status == 2
    assert "is at step 5 of 5: --steps N goes on to a later one" in err
    status, _, err = steepest(f"train ppo --problem CartPole --out run {TINY}")
    assert status == 2
    assert "run holds a run: `steepest resume run` goes on with it" in err


def test_a_reader_that_has_seen_enough_is_no_error():
    done = subprocess.run(f"{sys.executable} -m steepest list | head -1", shell=True, capture_output=True, text=True, check=True)
    assert done.stderr == ""
