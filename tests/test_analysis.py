"""Analyses run, fit what they measured and are written down; RL's razor."""

import json
from dataclasses import replace
from functools import partial

import pytest
import torch

from steepest.core import train
from steepest.core.check import check_system
from steepest.core.stream import Stream
from steepest.core.system import begin
from steepest.evidence.analysis import Fit, Job, analyse, fitted, run_one
from steepest.evidence.parallel import RunFailed
from steepest.evidence.reasoning import rls_razor as study
from steepest.problems.new_rule import NewRule
from steepest.systems.reasoning.grpo import grpo
from steepest.systems.reasoning.rls_razor import moved, rls_razor
from steepest.systems.reasoning.sft import sft

from . import claims
from .claims import study as toys
from .toy import Arms, toy

SMALL = partial(NewRule, tests=16, warm=30)
SIZES = {"prompts": 4, "group": 4, "lr": 1e-2}


@pytest.fixture(scope="module")
def findings():
    return analyse("tests.claims", workers=1)


def test_every_treatment_is_measured_on_every_seed(findings):
    assert [(row["treatment"], row["seed"]) for row in findings.rows] == [
        (name, seed) for name in ("none", "slow", "fast") for seed in (0, 1)
    ]
    state = [r.state for r in train(toy(lr=0.3), Arms(questions=3), steps=8, seed=1)][-1]
    row = findings.rows[-1]
    assert row["likelihood"] == claims.likelihood_of(state)
    assert findings.treatments[-1] == {
        "name": "fast", "system": "tests.toy.toy", "options": {"lr": 0.3, "passes": 2}, "steps": 8,
    }  # fmt: skip


def test_no_step_leaves_what_training_begins_with(findings):
    state = begin(toy(lr=0.3), Arms(questions=3), seed=1)
    assert findings.rows[1]["likelihood"] == claims.likelihood_of(state)


def test_a_fit_is_that_of_least_squares():
    rows = [{"x": x, "y": 2 * x**2 - x + 3} for x in (0.0, 1.0, 2.0, 4.0, 5.0, 7.0)]
    found = fitted(Fit("x", "y", 2), rows)
    assert found.coefficients == pytest.approx([2, -1, 3])
    assert found.r2 == pytest.approx(1)
    noise = [{"x": x, "y": y} for x in (-1.0, 1.0) for y in (0.0, 1.0, 2.0)]
    assert fitted(Fit("x", "y", 1), noise).r2 == pytest.approx(0)


@pytest.mark.parametrize(
    ("fit", "rows", "said"),
    [
        (Fit("x", "z"), [{"x": 0.0, "y": 1.0}] * 6, r"nothing measured is called \['z'\]; measured were \['x', 'y'\]"),
        (Fit("x", "y", 2), [{"x": n % 2, "y": float(n)} for n in range(6)], "more than 2 different values"),
        (Fit("x", "y", 1), [{"x": float(n), "y": 1.0} for n in range(6)], "all runs agree in 'y'"),
    ],
)
def test_what_cannot_be_fitted_is_refused(fit, rows, said):
    with pytest.raises(ValueError, match=said):
        fitted(fit, rows)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"treatments": ()}, "needs a treatment and a seed, not 0 and 2"),
        ({"seeds": 0}, "needs a treatment and a seed, not 3 and 0"),
        ({"treatments": toys.treatments[:1] * 2}, "names of their own"),
        ({"seeds": 1, "fit": Fit("likelihood", "accuracy")}, "at least 6 runs, not 3 treatments on 1 seed"),
    ],
)  # fmt: skip
def test_an_analysis_that_says_nothing_is_refused_before_it_runs(wrong, said):
    with pytest.raises(ValueError, match=said):
        analyse(replace(toys, **wrong))


def test_a_run_that_measures_nothing_names_itself():
    with pytest.raises(RunFailed, match=r"none, seed 0 failed[\s\S]*nothing was measured"):
        analyse(replace(toys, treatments=toys.treatments[:1], measure=claims.unmeasured, fit=None), workers=1)


def test_the_command_writes_a_record_and_a_picture(steepest, tmp_path):
    status, out, err = steepest("analyse tests.claims --workers 1 --json --out there")
    assert status == 0, err
    record = json.loads((tmp_path / "there" / "claims.analysis.json").read_text())
    assert json.loads(out) == record
    assert len(record["rows"]) == 6
    assert "R² 1.000" in err
    assert (tmp_path / "there" / "claims.analysis.png").stat().st_size > 10_000
    status, _, err = steepest("analyse grpo")
    assert status == 2
    assert "grpo has no analysis: it is a" in err


def test_without_a_fit_every_number_is_drawn_by_treatment(tmp_path):
    from dataclasses import asdict

    from steepest.app.analyse import draw

    draw(asdict(analyse(replace(toys, fit=None, seeds=1), workers=1)), tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 5_000


# ------------------------------------------------------------------------------------ RL's razor


def test_it_conforms():
    check_system(partial(rls_razor, every=1, **SIZES), SMALL, half=1)


def test_what_learns_is_the_learner_itself():
    problem = SMALL()
    ends = [
        [r.state.policy for r in train(system, problem, steps=2, seed=0)][-1].state_dict()
        for system in (rls_razor(every=1, **SIZES), grpo(**SIZES))
    ]
    assert all(torch.equal(x, y) for x, y in zip(*(end.values() for end in ends), strict=True))


def test_an_unmoved_policy_has_not_moved_and_a_moved_one_has():
    problem, system = SMALL(), rls_razor(learner=sft, prompts=8, lr=1e-2, every=2)
    state = begin(system, problem)
    batch = system.collect(state, problem, Stream(0))
    assert moved(state, batch, Stream(1)) == 0
    told = [r.metrics.get("moved") for r in train(system, problem, steps=4)]
    assert [x is not None for x in told] == [False, True, False, True]
    assert min(told[1], told[3]) > 0


def test_the_divergence_is_that_of_the_mean_over_many_answers():
    """KL of whole answers by sampling alone: the mean of log first - log now over answers of the first policy."""
    problem, system = SMALL(), rls_razor(learner=sft, prompts=32, lr=1e-2, every=2)
    state = [r.state for r in train(system, problem, steps=4)][-1]
    batch = system.collect(state, problem, Stream(0))
    obs = {name: x.repeat(60, 1) for name, x in batch.obs.items()}
    with torch.no_grad():
        tokens, mask, before = state.reference.sample(obs, Stream(2).torch())
        ratio = (before - state.policy.logp(obs, tokens, mask)).sum(1)
    error = float(ratio.std()) / len(ratio) ** 0.5
    exact = sum(moved(state, batch, Stream(n)) for n in range(10)) / 10
    assert exact == pytest.approx(float(ratio.mean()), abs=5 * error)


def test_the_first_policy_restricted_to_what_is_right_moves_the_least():
    """Of all distributions that are right surely, p restricted to the right set R has the least KL(. || p) = -log p(R); softmax
    policy gradient on it ends elsewhere, so the razor is a bias of RL and no identity."""
    base = torch.tensor([0.5, 0.2, 0.1, 0.2], dtype=torch.float64)
    right = torch.tensor([1.0, 1.0, 1.0, 0.0], dtype=torch.float64)
    limit = base * right / (base * right).sum()
    least = float((limit * (limit / base).clamp(min=1e-300).log()).sum())
    assert least == pytest.approx(-float((base * right).sum().log()))
    logits = base.log()
    for _ in range(4000):
        p = logits.softmax(0)
        logits = logits + p * (right - (p * right).sum())
    p = logits.softmax(0)
    assert float((p * right).sum()) > 0.99
    assert float((p[:3] / p[:3].sum() - limit[:3]).abs().max()) > 0.1
    assert float(torch.special.xlogy(p, p / base).sum()) > least


def test_the_rule_and_what_is_known():
    problem = NewRule(tests=4, warm=1)
    asked = problem.prompts(64, Stream(0).torch())
    tokens, mask = problem.demonstrate(asked)
    assert problem.score(asked, tokens, mask).tolist() == [1.0] * 64
    old = problem.marked(asked, torch.zeros(64, dtype=torch.bool))
    share = float(problem.score(old, tokens, mask).mean())
    assert 0 < share < 0.8  # what the rule allows is seldom what was known
    taught, tokens, mask = problem.teach(512, Stream(1).torch())
    new = taught.ids[:, -1] == problem.symbol("?")
    assert 0.4 < float(new.float().mean()) < 0.6
    score = problem.score(taught, tokens, mask)
    assert float(score[~new].mean()) > 0.85
    assert 0.35 < float(score[new].mean()) < 0.65
    with pytest.raises(ValueError, match="must stay 'any'"):
        NewRule(accept="one")


def test_every_zero_steps_are_refused():
    with pytest.raises(ValueError, match="every must be at least 1"):
        rls_razor(every=0)


@pytest.mark.parametrize("index", [0, 3, 6, 9])
def test_the_study_runs_small(index):
    one = study.analysis.treatments[index]
    one = replace(one, system=partial(one.system, prompts=4), steps=10)
    small = replace(study.analysis, problem=SMALL, treatments=(one,))
    numbers, seconds = run_one(Job(small, 0, 100), lambda progress: None)
    assert {study.MOVED, study.KNOWN} < numbers.keys()
    assert numbers[study.MOVED] > 0
    assert seconds > 0
