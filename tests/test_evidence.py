"""Claims run, are judged rightly and are written down."""

import json
from dataclasses import replace
from functools import partial

import pytest

from steepest.core import train
from steepest.evidence import Run, tail
from steepest.evidence.parallel import RunFailed, scatter
from steepest.evidence.run import Job, arm, described, plain, reproduce, run_one, write
from steepest.evidence.statistics import t_interval

from . import claims
from .toy import Arms, toy


@pytest.fixture(scope="module")
def outcome():
    return reproduce("tests.claims", workers=2)


def test_a_claim_that_holds_is_shown(outcome):
    assert outcome.shown
    assert outcome.low > 0.1
    assert outcome.seeds == [0, 1, 2]


def test_the_values_are_those_of_a_plain_loop(outcome):
    for side, lr in ((outcome.ours, 0.3), (outcome.baseline, 1e-6)):
        for seed, value in enumerate(side.values):
            problem = Arms(questions=3)
            state = [r.state for r in train(toy(lr=lr), problem, steps=8, seed=seed)][-1]
            assert value == claims.likelihood(Run(seed, [], state, problem))


def test_the_gap_is_paired(outcome):
    gaps = [a - b for a, b in zip(outcome.ours.values, outcome.baseline.values, strict=True)]
    assert outcome.gaps == gaps
    assert (outcome.gap, outcome.low, outcome.high) == tuple(vars(t_interval(gaps)).values())


def test_the_record_holds_all_that_is_needed(outcome, tmp_path):
    write(outcome, tmp_path / "new" / "toy.json")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["toy.json"]
    record = json.loads((tmp_path / "new" / "toy.json").read_text())
    assert record["verdict"] == "shown"
    assert record["ours"]["options"] == {"lr": 0.3, "passes": 2}
    assert record["ours"]["system"] == "tests.toy.toy"
    assert record["problem_options"] == {"questions": 3, "arms": 4}
    assert record["ours"]["curve_steps"] == list(range(1, 9))
    assert len(record["baseline"]["curves"]) == 3
    assert {"python", "torch", "numpy", "steepest"} <= record["versions"].keys()
    assert record["seconds"] > 0
    assert "T" in record["date"]


def test_a_pickled_claim_varies_its_problem_and_is_not_shown_against_itself():
    said = []
    found = reproduce(claims.equal, seeds=[2, 5], workers=2, tell=said.append)
    assert found.verdict == "not shown"
    assert found.gaps == [0.0, 0.0]
    assert found.why == "it is the same system"
    last = [run_one(Job(claims.equal, "ours", seed), lambda _: None)["value"] for seed in (2, 5)]
    assert found.ours.values == last
    assert {(p.job.arm, p.job.seed) for p in said if p.step == p.steps == 4} == {
        (a, s) for a in ("ours", "baseline") for s in (2, 5)
    }


def test_long_curves_are_averaged():
    long = replace(claims.claim, steps=100)
    curve = run_one(Job(long, "ours", 0), lambda _: None)["curve"]
    rows = [r.metrics["score"] for r in train(toy(lr=0.3), Arms(questions=3), steps=100)]
    assert len(curve) == 40
    assert curve[0] == pytest.approx((2.0, sum(rows[:3]) / 3))  # 100 = 20 pieces of 3, then 20 of 2
    assert curve[-1] == pytest.approx((99.5, sum(rows[-2:]) / 2))


def test_curves_of_seeds_that_report_at_other_steps_stand_at_all_their_steps():
    """Bug that it catches: a claim whose seeds end their episodes at other steps, which had no curves at all."""
    one, two = [(1.0, 10.0), (3.0, 30.0), (4.0, 0.0)], [(2.0, 5.0), (4.0, 7.0), (6.0, 9.0)]
    rows = [{"value": 0.0, "curve": curve} for curve in (one, two)]
    found = arm(partial(toy), 6, rows)
    assert found.curve_steps == [1, 2, 3, 4, 6]
    assert found.curves == [[10, 20, 30, 0, None], [None, 5, 6, 7, 9]]
    same = arm(partial(toy), 6, [rows[0], rows[0]])
    assert (same.curve_steps, same.curves) == ([1, 3, 4], [[10, 30, 0], [10, 30, 0]])
    assert arm(partial(toy), 6, [rows[0], {"value": 0.0, "curve": []}]).curve_steps == []


def test_a_figure_that_is_not_finite_breaks_its_own_curve_alone():
    rows = [{"value": 0.0, "curve": curve} for curve in ([(1.0, 1.0), (2.0, float("nan")), (3.0, 3.0)], [(1.0, 2.0), (2.5, 5.0)])]
    found = arm(partial(toy), 3, rows)
    assert found.curve_steps == [1, 2, 2.5, 3]
    assert found.curves == [[1, None, None, 3], [2, 4, 5, None]]


def test_a_margin_must_be_exceeded(outcome):
    assert reproduce(replace(claims.claim, margin=outcome.high), seeds=2, workers=1).verdict == "not shown"


def test_a_failure_names_arm_and_seed():
    with pytest.raises(RunFailed, match=r"baseline, seed 4 failed(.|\n)*RuntimeError: no such luck"):
        reproduce(replace(claims.claim, baseline=partial(claims.hopeless)), seeds=[4, 5], workers=1)


def test_a_dead_process_names_arm_and_seed():
    with pytest.raises(RunFailed, match="ours, seed 0: its process ended with exit code 7"):
        reproduce(replace(claims.claim, ours=partial(claims.deadly)), workers=1)


@pytest.mark.parametrize("seeds", [1, [0], [3, 3]])
def test_one_pair_is_no_evidence(seeds):
    with pytest.raises(ValueError, match="at least two different seeds"):
        reproduce(claims.claim, seeds=seeds)


def test_what_cannot_travel_is_refused_at_once():
    with pytest.raises(ValueError, match="by its module's name"):
        reproduce(replace(claims.claim, measure=lambda run: 1.0))
    with pytest.raises(TypeError, match="defines no `claim"):
        reproduce("tests.toy")
    with pytest.raises(ValueError, match="workers must be at least 1"):
        scatter(run_one, [], workers=0)


def test_tail_is_the_mean_of_the_last_reports():
    run = Run(0, [{"x": float(i)} for i in range(20)] + [{}], None, None)
    assert tail("x", 0.1)(run) == 18.5
    with pytest.raises(ValueError, match="no step reported 'y'"):
        tail("y")(Run(0, [{"x": 1.0}], None, None))


def test_options_are_told_in_full_and_fit_json():
    assert described(partial(toy, passes=5)) == ("tests.toy.toy", {"lr": 0.1, "passes": 5})
    assert plain(float("inf")) == "inf"
    assert plain((1, None, {"f": tail})) == [1, None, {"f": "tail"}]
    assert plain(partial(Arms, arms=2)) == {"made by": "tests.toy.Arms", "questions": 3, "arms": 2}
