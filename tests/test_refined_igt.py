"""Schedules refined from norms, and momentum that stays a gradient: closed forms, identities, enumeration."""

import math
from functools import partial

import numpy as np
import pytest
import torch

from steepest.core import Stream, begin, train
from steepest.core.check import check_system
from steepest.evidence.claim import Run
from steepest.evidence.on_policy.n_pg_igt import claim as igt_claim
from steepest.evidence.on_policy.refined_schedules import claim as refined_claim
from steepest.optimize.momentum import HessianAided, Plain, Transport, policy_hessian_product
from steepest.optimize.schedules import refine_schedule
from steepest.problems.control import PointMass
from steepest.problems.regression import Logistic
from steepest.problems.tabular import ChainWalk, Garnet
from steepest.systems.on_policy.n_pg_igt import n_pg_igt
from steepest.systems.on_policy.refined_schedules import constant, refined_schedules

# ------------------------------------------------------------------------------------------ schedules


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_constant_norms_ask_for_linear_decay(power):
    eta = refine_schedule(torch.full((50,), 3.0), power=power)
    assert torch.allclose(eta, torch.arange(49, -1, -1).double() / 49)


def test_a_schedule_in_a_plain_loop():
    norms = torch.rand(30, generator=Stream(0).torch()).double() + 0.1
    for power, width in ((2.0, 0.1), (1.0, 0.3), (2.0, 0.0)):
        half = int(width * 30) // 2
        smooth = [float(np.median([norms[min(max(s, 0), 29)] for s in range(t - half, t + half + 1)])) for t in range(30)]
        weight = [g**-power for g in smooth]
        eta = torch.tensor([weight[t] * sum(weight[t + 1 :]) for t in range(30)]).double()
        found = refine_schedule(norms, power=power, width=width)
        assert torch.allclose(found, eta / eta.max())
        assert found[-1] == 0
        assert torch.allclose(refine_schedule(2 * norms, power=power, width=width), found)


def test_norms_that_say_nothing_count_as_the_smallest_and_bad_ones_are_refused():
    norms = torch.full((20,), 2.0)
    odd = norms.clone()
    odd[3], odd[7] = 0.0, math.nan
    assert torch.equal(refine_schedule(odd, width=0.0), refine_schedule(norms, width=0.0))
    for bad, said in ((torch.ones(9), "at least 10 steps"), (torch.zeros(20), "no norm is positive")):
        with pytest.raises(ValueError, match=said):
            refine_schedule(bad)
    with pytest.raises(ValueError, match="width must lie"):
        refine_schedule(norms, width=2.0)


def test_large_gradients_at_the_start_ask_for_a_warm_up():
    eta = refine_schedule(torch.cat([torch.full((20,), 3.0), torch.ones(80)]), width=0.0)
    assert float(eta[:20].max()) < 0.2
    assert int(eta.argmax()) == 20


def test_the_second_run_begins_anew_and_follows_the_norms_of_the_first():
    problem, system = Logistic(examples=50, features=3), refined_schedules(length=12, batch=5)
    records = [(r.metrics, r.state.policy.weights.clone()) for r in train(system, problem, steps=24)]
    norms = torch.tensor([m["grad_norm"] for m, _ in records[:12]]).double()
    assert [m["lr"] for m, _ in records[:12]] == pytest.approx([1 - t / 12 for t in range(12)])
    assert [m["lr"] for m, _ in records[12:]] == pytest.approx(refine_schedule(norms, power=2.0).tolist())
    x = records[12]
    assert float(x[1].norm()) == pytest.approx(x[0]["lr"] * x[0]["grad_norm"])  # from 0
    assert x[0]["loss"] == pytest.approx(math.log(2))
    assert [r.metrics["lr"] for r in train(refined_schedules(length=12, first=constant), problem, steps=3)] == [1.0] * 3


def test_sgd_fits_and_refuses_what_makes_no_sense():
    problem = Logistic(examples=100, features=3, noise=0.1)
    record = list(train(refined_schedules(lr=0.5, length=100, batch=10), problem, steps=200))[-1]
    assert problem.evaluate(record.state.policy, Stream(0))["accuracy"] > 0.9
    for options in ({"lr": 0.0}, {"length": 9}, {"batch": 0}):
        with pytest.raises(ValueError, match="lr > 0, length >= 10 and batch >= 1"):
            refined_schedules(**options)
    with pytest.raises(ValueError, match="freedom > 0"):
        Logistic(freedom=0.0)


# ------------------------------------------------------------------------------------------ momentum


def test_of_a_quadratic_transport_keeps_the_exact_gradient_and_plain_momentum_does_not():
    g = Stream(1).torch()
    root = torch.randn(4, 4, generator=g).double()
    hessian, centre = -(root @ root.T), torch.randn(4, generator=g).double()
    errors = {}
    for rule in (Transport(), Plain()):
        now = before = probe = torch.zeros(4).double()
        old, worst = hessian @ (now - centre), 0.0
        for t in range(20):
            eta = (2 / (t + 2)) ** 0.8
            old = rule.turn(old, eta, now - before, lambda _, p=probe: hessian @ (p - centre), None)
            worst = max(worst, float((old - hessian @ (now - centre)).norm()))
            before, now = now, now + 0.1 * old / old.norm()
            probe = rule.look(now, before, (2 / (t + 3)) ** 0.8, Stream(t))
        errors[type(rule)] = worst
    assert errors[Transport] < 1e-9
    assert errors[Plain] > 0.1


def exact_gradient(mdp, logits):
    leaf = logits.clone().requires_grad_()
    return torch.autograd.grad(mdp.direction * (mdp.rho @ mdp.values(leaf.softmax(-1))[0]), leaf)[0].reshape(-1)


def test_the_hessian_at_random_points_of_a_step_adds_up_to_the_change_of_the_gradient():
    mdp = Garnet(states=3).model
    g = Stream(2).torch()
    before, now = (torch.randn(3, 3, generator=g).double() for _ in range(2))
    nodes, weights = np.polynomial.legendre.leggauss(12)
    total = torch.zeros(9).double()
    for x, w in zip((nodes + 1) / 2, weights / 2, strict=True):
        logits = (before + x * (now - before)).requires_grad_()
        value = mdp.direction * (mdp.rho @ mdp.values(logits.softmax(-1))[0])[None]
        total += w * policy_hessian_product(value, None, [logits], (now - before).reshape(-1))
    assert torch.allclose(total, exact_gradient(mdp, now) - exact_gradient(mdp, before), atol=1e-6)
    rule, seen = HessianAided(), []
    for i in range(200):
        share = (rule.look(now, before, 0.5, Stream(i)) - before) / (now - before)
        assert torch.allclose(share, share[0, 0])
        seen.append(float(share[0, 0]))
    assert 0 <= min(seen) < 0.05
    assert 0.95 < max(seen) <= 1


def test_a_sampled_hessian_has_that_of_the_return_as_its_mean():
    """Bandit with three arms: the expectation over arms, written out, is the Hessian of sum_a pi(a) r(a)."""
    r, u = torch.tensor([1.0, 2.0, 4.0]).double(), torch.tensor([0.3, -1.0, 0.5]).double()
    logits = torch.tensor([[0.1, 0.5, -0.2]]).double().requires_grad_()
    mean = torch.zeros(3).double()
    for arm in range(3):
        score = logits.log_softmax(-1)[0, arm][None]
        mean += logits.softmax(-1)[0, arm].detach() * policy_hessian_product(r[arm] * score, score, [logits], u)
    truth = torch.autograd.functional.hessian(lambda x: x.softmax(-1) @ r, logits.detach()[0]) @ u
    assert torch.allclose(mean, truth)


def test_samples_are_drawn_where_the_rule_looked():
    problem = PointMass(limit=4)
    system = n_pg_igt(lr=1.0)
    state = begin(system, problem)
    for record in train(system, problem, steps=3, state=state):
        assert record.metrics["ahead"] > 0
    batch = system.collect(state, problem, Stream(0))["probe"]
    with torch.no_grad():
        assert torch.allclose(state.probe.logp(batch.obs, batch.action, batch.mask), batch.logp, atol=1e-4)
        assert not torch.allclose(state.policy.logp(batch.obs, batch.action, batch.mask), batch.logp, atol=1e-3)


def test_without_memory_each_rule_is_the_normalised_policy_gradient():
    problem = Garnet(states=4)
    logits = torch.zeros(4, 3).double()
    states = [begin(n_pg_igt(eta=1.0, momentum=rule), problem) for rule in (Transport(), HessianAided(), Plain())]
    runs = [
        train(n_pg_igt(eta=1.0, momentum=rule), problem, steps=4, state=s)
        for rule, s in zip((Transport(), HessianAided(), Plain()), states, strict=True)
    ]
    for t, records in enumerate(zip(*runs, strict=True)):
        slope = exact_gradient(problem.model, logits)
        logits = logits + 2 / (t + 2) * (slope / slope.norm()).view(4, 3)
        for record in records:
            assert torch.allclose(record.state.policy.logits.detach(), logits, atol=1e-9)


def test_no_gradient_is_no_step():
    problem = Garnet(states=3, scale=0.0)
    record = list(train(n_pg_igt(), problem, steps=2))[-1]
    assert torch.equal(record.state.policy.logits.detach(), torch.zeros(3, 3).double())


@pytest.mark.parametrize("momentum", [None, HessianAided()], ids=["igt", "harpg"])
def test_it_climbs_a_chain(momentum):
    problem = ChainWalk()
    record = list(train(n_pg_igt(lr=5.0, momentum=momentum), problem, steps=60))[-1]
    best = float(problem.model.rho @ problem.model.values(torch.tensor([0.0, 1.0]).double().expand(6, 2))[0])
    assert problem.evaluate(record.state.policy, Stream(0))["return"] > 0.9 * best


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (partial(n_pg_igt, lr=3.0), partial(PointMass, limit=4)),
        (partial(n_pg_igt, momentum=HessianAided()), partial(PointMass, limit=4)),
        (partial(refined_schedules, length=10), partial(Logistic, examples=20, features=2)),
    ],
    ids=["igt", "harpg", "refined"],
)
def test_they_conform(make, problem):
    half = 7 if make.func is refined_schedules else 2
    laws = check_system(make, problem, half=half, fresh=make.keywords.get("momentum") is None)
    assert any("resume is bitwise" in law for law in laws)


@pytest.mark.parametrize("options", [{"lr": 0.0}, {"power": 0.0}, {"eta": 0.0}, {"eta": 1.5}, {"count": 1}])
def test_n_pg_igt_refuses_what_makes_no_sense(options):
    with pytest.raises(ValueError, match="lr > 0, power and eta in"):
        n_pg_igt(**options)


@pytest.mark.parametrize("claim", [igt_claim, refined_claim], ids=["n_pg_igt", "refined_schedules"])
def test_claims_run_at_a_smaller_size(claim):
    problem = claim.problem()
    for arm in (claim.ours, claim.baseline):
        records = list(train(arm(), problem, steps=2))
        run = Run(0, [r.metrics for r in records], records[-1].state, problem)
        assert math.isfinite(claim.measure(run))
        assert all(claim.figure in row for row in run.steps)
