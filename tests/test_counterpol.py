"""The nearest policy of a chosen return: its gradient in closed form, its limits, and where it stops."""

import math
from functools import partial

import pytest
import torch

from steepest.core import Stream, begin, train
from steepest.core.check import check_system
from steepest.evidence.claim import Run
from steepest.evidence.on_policy.counterpol import claim
from steepest.optimize.planning import occupancy, policy_iteration, softmax_gradient, visited_kl, worth
from steepest.problems.tabular import ChainWalk, Garnet, simplex_noise
from steepest.systems.on_policy.counterpol import counterpol, explain, goal


def process(sign="reward", seed=0):
    return Garnet(states=5, actions=3, branch=3, sign=sign, radius=0.0, seed=seed)


def one_step(system, problem, state):
    before = state.policy.logits.detach().clone()
    metrics = system.learn(state, system.collect(state, problem, Stream(0)), Stream(0))
    return state.policy.logits.detach() - before, metrics


@pytest.mark.parametrize("sign", ["reward", "cost"])
def test_the_chosen_return_lies_between_the_worst_and_the_best(sign):
    problem = process(sign)
    model = problem.model
    pi = simplex_noise((5, 3), Stream(0).torch())
    best = model.direction * float(model.rho @ policy_iteration(model)[0])
    assert goal(model, pi, 1.0) == pytest.approx(best)
    assert goal(model, pi, 0.0) == pytest.approx(float(worth(model, pi)))
    g = Stream(1).torch()
    assert all(goal(model, pi, -1.0) <= float(worth(model, simplex_noise((5, 3), g))) <= best for _ in range(50))
    assert goal(model, pi, 0.5) == pytest.approx((best + float(worth(model, pi))) / 2)


@pytest.mark.parametrize("sign", ["reward", "cost"])
def test_at_the_chosen_return_with_the_pivot_where_it_is_nothing_moves(sign):
    state = begin(counterpol(target=0.0), process(sign))
    step, metrics = one_step(counterpol(target=0.0), process(sign), state)
    assert float(step.abs().max()) < 1e-8
    assert metrics["missed"] == pytest.approx(0.0, abs=1e-5)
    assert metrics["kl"] == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("sign", ["reward", "cost"])
def test_far_from_the_return_it_is_the_policy_gradient_with_a_penalty_towards_or_away(sign):
    """At first the pivot is the policy, so the penalty has no gradient; then it is that of the KL, by states and by hand."""
    problem = process(sign)
    steps = {}
    for target in (1.0, -1.0):
        state = begin(counterpol(target=target, scale=1e-3), problem)
        slope = softmax_gradient(problem.model, state.policy.logits.detach())
        steps[target], _ = one_step(counterpol(target=target, scale=1e-3, lr=0.5), problem, state)
        assert torch.allclose(steps[target], target * 0.5 * problem.model.direction * slope, atol=1e-12)
        pi, pivot = state.policy.probs().detach(), state.pivot.probs()
        visits = (1 - problem.model.gamma) * occupancy(problem.model, pivot).sum(-1, keepdim=True)
        slope = target * problem.model.direction * softmax_gradient(problem.model, state.policy.logits.detach())
        second, _ = one_step(counterpol(target=target, scale=1e-3, lr=0.5, weight=3.0), problem, state)
        assert torch.allclose(second, 0.5 * (slope - 3.0 * visits * (pi - pivot)), atol=1e-10)
    assert torch.allclose(steps[1.0], -steps[-1.0])


@pytest.mark.parametrize(("sign", "target"), [("reward", 0.5), ("reward", -0.5), ("cost", -0.5), ("cost", 0.9)])
def test_it_reaches_the_return_and_stops_for_good(sign, target):
    problem = process(sign)
    records = [(r.metrics, r.state.policy.logits.detach().clone()) for r in train(counterpol(target=target), problem, steps=150)]
    metrics, theta = records[-1]
    assert metrics["stopped"] == 1.0
    assert abs(metrics["missed"]) < 0.01
    wanted = goal(problem.model, begin(counterpol(), problem).original.probs(), target)
    assert metrics["return"] == pytest.approx(wanted, abs=0.01)
    first = next(i for i, (m, _) in enumerate(records) if m["stopped"])
    assert torch.equal(records[first][1], theta)


def test_pivots_follow_now_and_then():
    state = begin(counterpol(every=3), process())
    for record in train(counterpol(every=3), process(), steps=7, state=state):
        same = torch.equal(state.pivot.logits, state.policy.logits)
        assert same == (record.step % 3 == 0)
    assert torch.equal(state.original.logits, begin(counterpol(), process()).original.logits)


def test_walks_come_near_too_and_their_mean_return_runs():
    problem = process()
    system = counterpol(walks=32, horizon=60, lr=0.3, memory=0.3)
    start = begin(system, problem)
    wanted, before = (goal(problem.model, start.original.probs(), t) for t in (0.5, 0.0))
    record = list(train(system, problem, steps=60, seed=1))[-1]
    assert abs(record.metrics["return"] - wanted) < 0.5 * abs(wanted - before)


def test_an_explanation_by_hand():
    old = torch.tensor([[0.9, 0.1], [0.5, 0.5], [0.2, 0.8]]).double()
    new = torch.tensor([[0.2, 0.8], [0.5, 0.5], [0.1, 0.9]]).double()
    found = explain(old, new)
    first = 0.9 * math.log(0.9 / 0.2) + 0.1 * math.log(0.1 / 0.8)
    assert found.kl.tolist() == pytest.approx([first, 0.0, 0.2 * math.log(2) + 0.8 * math.log(8 / 9)])
    assert found.flipped.tolist() == [True, False, False]
    assert found.states.tolist() == [0, 2, 1]
    model = Garnet(states=3, actions=2, radius=0.0).model
    visits = 0.1 * occupancy(model, old).sum(-1)
    assert float(visits.sum()) == pytest.approx(1.0)
    assert float(visited_kl(model, old, new)) == pytest.approx(float(visits @ found.kl))


@pytest.mark.parametrize("make", [counterpol, partial(counterpol, walks=3, horizon=5, every=2)], ids=["exact", "walks"])
def test_it_conforms(make):
    assert any("resume is bitwise" in law for law in check_system(make, ChainWalk, fresh=make is counterpol))


@pytest.mark.parametrize(
    ("options", "said"),
    [({"target": 1.5}, "target must lie"), ({"every": 0}, "every, horizon >= 1"), ({"weight": -1.0}, "weight >= 0"),
     ({"tolerance": 0.0}, "tolerance"), ({"memory": 0.0}, "memory in"), ({"walks": 1}, "walks must be at least 2")],
)  # fmt: skip
def test_it_refuses_what_makes_no_sense(options, said):
    with pytest.raises(ValueError, match=said):
        counterpol(**options)


def test_its_claim_runs_at_a_smaller_size():
    problem = claim.problem()
    for arm in (claim.ours, claim.baseline):
        records = list(train(arm(), problem, steps=2))
        assert math.isfinite(claim.measure(Run(0, [r.metrics for r in records], records[-1].state, problem)))
        assert all(claim.figure in r.metrics for r in records)
