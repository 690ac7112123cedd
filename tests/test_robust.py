"""Nature answers: its choices against linear programs, robust planning, and the double loop that finds the same policy."""

import dataclasses
import itertools
from functools import partial

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

from steepest.core import Stream, begin, train
from steepest.core.check import check_system
from steepest.optimize.planning import direct_gradient, policy_iteration, value_iteration
from steepest.optimize.projection import simplex
from steepest.optimize.robust import robust_value_iteration
from steepest.problems.tabular import ChainWalk, Garnet, simplex_noise, worst_l1
from steepest.systems.robust.drpg import Nominal, Parametric, Rectangular, drpg

SIGNS = ("cost", "reward")


def garnet(**options):
    return Garnet(**{"states": 5, "actions": 3, "branch": 4, "radius": 0.6} | options)


def some_policy(mdp, seed=0):
    return simplex_noise(tuple(mdp.R.shape), Stream(seed, "policy").torch())


def best_by_program(v, p, radius):
    """max <v, x> over x >= 0, sum x = 1, |x - p|_1 <= radius, with x - p = up - down."""
    n = len(p)
    eye = np.eye(n)
    found = linprog(
        c=np.concatenate([-v, np.zeros(2 * n)]),
        A_eq=np.block([[np.ones((1, n)), np.zeros((1, 2 * n))], [eye, -eye, eye]]),
        b_eq=np.concatenate([[1.0], p]),
        A_ub=np.concatenate([np.zeros(n), np.ones(2 * n)])[None],
        b_ub=[radius],
    )
    return -found.fun


@pytest.mark.parametrize("radius", [0.0, 0.1, 0.7, 1.9, 2.0])
def test_the_worst_distribution_is_that_of_the_linear_program(radius):
    for seed in range(15):
        g = Stream(seed, "worst").torch()
        p, v = simplex_noise((6,), g), torch.randn(6, generator=g, dtype=torch.float64)
        if seed % 3 == 0:
            p = torch.where(p < 0.1, 0.0, p) / torch.where(p < 0.1, 0.0, p).sum()
        x = worst_l1(v, p, radius)
        assert float(x.min()) >= 0
        assert float(x.sum()) == pytest.approx(1.0)
        assert float((x - p).abs().sum()) <= radius + 1e-12
        assert float(v @ x) == pytest.approx(best_by_program(v.numpy(), p.numpy(), radius), abs=1e-9)


def test_every_row_is_answered_alone():
    p, v = simplex_noise((3, 2, 4), Stream(0).torch()), torch.tensor([0.0, 2.0, 1.0, -1.0]).double()
    all_at_once = worst_l1(v, p, 0.5)
    assert torch.equal(all_at_once, torch.stack([torch.stack([worst_l1(v, row, 0.5) for row in rows]) for rows in p]))


@pytest.mark.parametrize("sign", SIGNS)
def test_the_worst_case_is_worse_than_any_other_answer(sign):
    mdp = garnet(sign=sign).model
    pi = some_policy(mdp)
    worst = mdp.direction * mdp.worst_case(pi).values(pi)[0]
    g = Stream(0, "nature").torch()
    for _ in range(100):
        other = worst_l1(torch.randn(5, generator=g, dtype=torch.float64), mdp.P, mdp.radius)
        assert (worst <= mdp.direction * dataclasses.replace(mdp, P=other).values(pi)[0] + 1e-9).all()


@pytest.mark.parametrize("sign", SIGNS)
def test_robust_planning_finds_the_policy_of_the_best_worst_case(sign):
    """Rectangular sets have a deterministic optimum, so enumeration of the worst cases is the truth."""
    mdp = garnet(states=3, actions=2, branch=3, sign=sign).model
    v, pi = robust_value_iteration(mdp)
    eye = torch.eye(2, dtype=torch.float64)
    tables = [eye[[a, b, c]] for a in (0, 1) for b in (0, 1) for c in (0, 1)]
    worst = torch.stack([mdp.direction * mdp.worst_case(table).values(table)[0] for table in tables])
    assert torch.allclose(mdp.direction * v, worst.amax(0), atol=1e-8)
    assert torch.allclose(mdp.worst_case(pi).values(pi)[0], v, atol=1e-8)


@pytest.mark.parametrize("sign", SIGNS)
def test_nature_never_helps_and_a_larger_ball_never_either(sign):
    mdp = garnet(sign=sign).model
    values = [mdp.direction * robust_value_iteration(dataclasses.replace(mdp, radius=r))[0] for r in (0.0, 0.3, 0.6, 2.0)]
    assert torch.allclose(values[0], mdp.direction * value_iteration(mdp)[0], atol=1e-8)
    assert all((b < a).all() for a, b in itertools.pairwise(values))


# ------------------------------------------------------------------------------------------ drpg


@pytest.mark.parametrize("tolerance", [1.0, 1e-3])
def test_natures_answer_is_as_bad_as_it_says(tolerance):
    mdp = garnet().model
    nature = Rectangular(mdp)
    for seed in range(5):
        pi = some_policy(mdp, seed)
        kernel, sweeps = nature.respond(mdp, pi, tolerance)
        answered, worst = (m.values(pi)[0] for m in (dataclasses.replace(mdp, P=kernel), mdp.worst_case(pi)))
        assert float((worst - answered).max()) <= tolerance
        assert sweeps >= 1
    assert nature.respond(mdp, pi, tolerance)[1] <= 2  # it goes on from where it was


@pytest.mark.parametrize("sign", SIGNS)
def test_it_reaches_the_optimum_of_robust_planning(sign):
    problem = garnet(sign=sign)
    mdp = problem.model
    record = list(train(drpg(lr=1.0), problem, steps=200))[-1]
    best = float(mdp.rho @ robust_value_iteration(mdp)[0])
    assert problem.evaluate(record.state.policy, Stream(0))["return"] == pytest.approx(mdp.direction * best, abs=1e-3)
    assert record.metrics["objective"] == pytest.approx(best, abs=1e-3)
    assert record.metrics["gap"] < 1e-2


def test_with_exact_answers_the_worst_case_never_gets_worse():
    problem = garnet(sign="cost")
    records = train(drpg(lr=0.02, tolerance=1e-6), problem, steps=30)
    costs = [-problem.evaluate(record.state.policy, Stream(0))["return"] for record in records]
    assert all(b <= a + 1e-7 for a, b in itertools.pairwise(costs))
    assert costs[-1] < costs[0] - 0.01


@pytest.mark.parametrize("adversary", [Rectangular, Nominal])
def test_where_nature_cannot_move_it_is_projected_policy_gradient(adversary):
    problem = garnet(radius=0.0 if adversary is Rectangular else 0.6, sign="reward")
    mdp = problem.model
    pi = torch.full_like(mdp.R, 1 / 3)
    for record in train(drpg(lr=0.1, adversary=adversary), problem, steps=60):
        pi = simplex(pi + 0.1 * direct_gradient(mdp, pi))
        assert torch.allclose(record.state.policy.probs(), pi, atol=1e-10)
    assert float(mdp.rho @ mdp.values(pi)[0]) <= float(mdp.rho @ policy_iteration(mdp)[0])


def test_a_parametric_nature_does_harm_within_its_set():
    mdp = garnet().model
    pi = some_policy(mdp)
    nature = Parametric(mdp, lr=0.05)
    assert torch.allclose(nature.kernel(mdp, nature.theta, nature.lam), mdp.P)
    kernel, steps = nature.respond(mdp, pi, 1e-6)
    assert 1 < steps <= nature.steps
    assert torch.allclose(kernel.sum(-1), torch.ones(5, 3).double())
    assert float(nature.theta.abs().sum()) <= 1 + 1e-9
    assert float((nature.lam - 1).abs().sum()) <= 1 + 1e-9
    assert float(nature.lam.min()) >= 1e-5
    assert ((kernel > 0) == (mdp.P > 0)).all()
    harm = float(mdp.rho @ (dataclasses.replace(mdp, P=kernel).values(pi)[0] - mdp.values(pi)[0]))
    assert harm > 0.05
    g = Stream(0, "theta").torch()
    for _ in range(50):  # no random member of the set does more
        theta = torch.randn(5, generator=g, dtype=torch.float64)
        other = nature.kernel(mdp, theta / theta.abs().sum(), torch.ones_like(mdp.R))
        assert float(mdp.rho @ (dataclasses.replace(mdp, P=other).values(pi)[0] - mdp.values(pi)[0])) < harm


def test_the_objective_is_that_of_the_answer_and_no_better_than_without_nature():
    problem = garnet(sign="cost")
    mdp, system = problem.model, drpg(lr=0.3, adversary=partial(Parametric, lr=0.05, steps=50))
    state = begin(system, problem)
    for record in train(system, problem, steps=8, state=state):
        nature, metrics = state.adversary, record.metrics
        assert 1 <= metrics["inner"] <= 50
        kernel = nature.kernel(mdp, nature.theta, nature.lam)
        pi = state.policy.probs()
        assert float(mdp.rho @ dataclasses.replace(mdp, P=kernel).values(pi)[0]) >= float(mdp.rho @ mdp.values(pi)[0])
    assert torch.allclose(pi.sum(-1), torch.ones(5).double())


def test_tolerance_shrinks_by_the_discount():
    asked = [r.metrics["tolerance"] for r in train(drpg(tolerance=2.0), garnet(), steps=4)]
    assert asked == pytest.approx([2.0, 1.8, 1.62, 1.458])


@pytest.mark.parametrize("adversary", [Rectangular, Parametric])
def test_it_conforms(adversary):
    laws = check_system(partial(drpg, adversary=adversary), partial(Garnet, states=4), fresh=False)
    assert any("resume is bitwise" in law for law in laws)


def test_it_starts_uniform_and_refuses_what_makes_no_sense():
    assert torch.equal(begin(drpg(), ChainWalk()).policy.probs(), torch.full((6, 2), 0.5).double())
    for options in ({"lr": 0.0}, {"tolerance": -1.0}):
        with pytest.raises(ValueError, match="lr and tolerance must be positive"):
            drpg(**options)
