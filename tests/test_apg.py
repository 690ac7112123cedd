"""APG: its model and its multiplier are exact, what it keeps and what it ignores, and the cart's second task."""

import math
from functools import partial

import numpy as np
import pytest
import torch

from steepest.core import Stream, begin, train
from steepest.core.check import check_problem, check_system
from steepest.evidence.claim import Run
from steepest.evidence.on_policy.apg import claim
from steepest.models.lessons import appraise, value_of
from steepest.models.ridge import Quadratic
from steepest.models.twin_q import mlp
from steepest.optimize.dual import Multiplier
from steepest.problems.cart import CartTasks
from steepest.problems.control import CartPole, PointMass
from steepest.systems.on_policy.apg import apg
from steepest.systems.on_policy.ddpg_finetune import ddpg_finetune

SMALL = partial(CartTasks, limit=30, episodes=4)
TINY = {"updates": 2, "rows": 16, "envs": 2, "horizon": 20, "hidden": 8, "lessons": 20}
make, tuned = partial(apg, **TINY), partial(ddpg_finetune, **TINY)


def theta(net):
    return torch.cat([p.detach().reshape(-1) for p in net.parameters()]).clone()


def test_conforms():
    assert check_system(make, SMALL)[-1] == "resume is bitwise in a fresh process"


# ---------------------------------------------------------------------------------- the problem


def test_the_cart_is_cartpole_where_the_force_is_full():
    assert check_problem(SMALL())
    state = np.random.default_rng(0).uniform(-0.1, 0.1, (6, 4))
    push = np.array([0, 1, 1, 0, 1, 0])
    after, reward, over = CartTasks().move(state, (2.0 * push - 1)[:, None])
    expected = CartPole().move(state, push)
    assert np.allclose(after, expected[0], atol=1e-12)
    assert (reward == 1).all()
    assert (over == expected[2]).all()


def test_the_cost_is_0_at_the_place_and_1_at_the_far_end():
    obs = torch.zeros(3, 4)
    obs[:, 0] = torch.tensor([1.0, -2.4, -0.7])
    assert CartTasks(place=1.0).cost(obs).tolist() == pytest.approx([0.0, 1.0, 0.25])
    with pytest.raises(ValueError, match="place must lie on the track"):
        CartTasks(place=2.4)


class Taught:
    """The teacher as a policy, pulling to a place."""

    def __init__(self, problem, place):
        self.problem, self.place = problem, torch.tensor([place, 0.0, 0.0, 0.0])

    def act(self, obs, generator, greedy=False):
        return self.problem.teacher(obs - self.place)


def test_the_teacher_balances_and_would_do_the_added_task_if_it_knew_the_place():
    problem = CartTasks(limit=300, episodes=5)
    plain, moved = (problem.evaluate(Taught(problem, place), Stream(0)) for place in (0.0, 1.0))
    assert plain["return"] == moved["return"] == 300
    assert plain["added"] == pytest.approx(-((1 / 3.4) ** 2), abs=0.01)
    assert moved["added"] > plain["added"] / 2


def test_a_fall_costs_the_most_until_the_clock_ends():
    problem = CartTasks(limit=300, episodes=3)
    found = problem.evaluate(Taught(problem, 30.0), Stream(0))
    assert found["return"] < 60
    assert -1 <= found["added"] < -0.8
    lessons = problem.lessons(Stream(0))
    assert bool(lessons.terminated.any())
    assert bool((lessons.episode == 0).sum() == 100)  # the first environment has no noise, and stands


# ---------------------------------------------------------------------------------- the parts


def test_the_model_finds_a_quadratic_function_and_does_not_care_how_rows_are_cut():
    x = torch.randn(60, 3, generator=Stream(0).torch())
    y = torch.stack([1 + x[:, 0] * x[:, 2] - 2 * x[:, 1], x[:, 1] ** 2], 1)
    whole, cut = Quadratic(3, 2, 1e-6), Quadratic(3, 2, 1e-6)
    whole.write(x, y)
    for piece in x.split(7):
        cut.write(piece, torch.stack([1 + piece[:, 0] * piece[:, 2] - 2 * piece[:, 1], piece[:, 1] ** 2], 1))
    new = torch.randn(5, 3, generator=Stream(1).torch())
    expected = torch.stack([1 + new[:, 0] * new[:, 2] - 2 * new[:, 1], new[:, 1] ** 2], 1)
    assert torch.allclose(whole(new), expected, atol=1e-4)
    assert torch.allclose(whole.weight, cut.weight, atol=1e-6)


def test_the_multiplier_follows_violations_and_never_falls_below_its_least():
    price = Multiplier(2.0, floor=2.0)
    for violation, expected in ((-1.0, 2.0), (0.3, 5.0), (-0.1, 4.0), (-1.0, 2.0)):
        price.rise(10.0 * violation)
        assert float(price.value) == pytest.approx(expected)
    always = Multiplier(math.inf, floor=math.inf)
    always.rise(-3.0)
    assert float(always.value) == math.inf


def test_appraisal_of_a_chain_of_two_states():
    """From state 1 comes state 0 with reward 1, from state 0 the end with reward 0: Q is (1 - g) and 0."""
    with Stream(0).fork():
        critic = mlp(2, 1, 16)
    obs, act = torch.tensor([[0.0], [1.0]]), torch.zeros(2, 1)
    later, generator = (torch.tensor([[0.0], [0.0]]), act), Stream(1).torch()
    reward, going = torch.tensor([0.0, 1.0]), torch.tensor([0.0, 1.0])
    appraise(critic, (obs, act), reward, later, going, discount=0.5, rounds=3, updates=150, generator=generator)
    assert value_of(critic, obs, act).tolist() == pytest.approx([0.0, 0.5], abs=0.02)


# ---------------------------------------------------------------------------------- the system


def test_an_infinite_price_keeps_the_policy():
    *_, record = train(make(price=float("inf")), SMALL(), steps=2)
    assert torch.equal(theta(record.state.policy), theta(record.state.origin.module))
    *_, record = train(make(price=1.0), SMALL(), steps=2)
    assert not torch.equal(theta(record.state.policy), theta(record.state.origin.module))


class Free(CartTasks):
    def cost(self, obs):
        return 0 * obs[:, 0]


def test_without_an_added_cost_nothing_is_changed():
    *_, record = train(make(fallen=0.0), Free(limit=30), steps=2)
    assert torch.equal(theta(record.state.policy), theta(record.state.origin.module))


def test_the_price_rises_where_the_first_task_suffers():
    problem = SMALL()
    system = make(rate=10.0, keep=0.95)
    state = begin(system, problem)
    batch = system.collect(state, problem, Stream(0))
    for kept, expected in ((1.0, 10.0), (0.45, 15.0)):
        system.learn(state, batch.having(info={**batch.info, "kept": kept}), Stream(0))
        assert float(state.multiplier.value) == pytest.approx(expected)


# ---------------------------------------------------------------------------------- the baseline


def test_the_baseline_conforms():
    assert check_system(tuned, SMALL)[-1] == "resume is bitwise in a fresh process"


def test_both_begin_with_the_same_policy():
    ours, theirs = (begin(system(), SMALL(), seed=3) for system in (make, tuned))
    assert torch.equal(theta(ours.policy), theta(theirs.policy))
    assert torch.equal(theta(ours.original), theta(theirs.critic))


def test_an_added_cost_without_weight_changes_nothing():
    """The first task's gradient is left alone: where the place is does not matter. With a weight it does."""
    for weight, alike in ((0.0, True), (1.0, False)):
        ends = []
        for place in (-1.0, 1.0):
            *_, record = train(tuned(weight=weight, lr=1e-2), SMALL(place=place), steps=2)
            ends.append(theta(record.state.policy))
        assert torch.equal(*ends) == alike


def test_its_critic_learns_the_reward_less_the_weighted_cost():
    """Without discount of the future's share (g = 0), Q is the reward of a step less what the next place costs."""
    problem, system = SMALL(), tuned(weight=2.0, discount=0.0, updates=150, critic_lr=1e-2, rows=40)
    state = begin(system, problem)
    batch = system.collect(state, problem, Stream(0))
    told = system.learn(state, batch, Stream(1))
    replay = state.replay
    goal = 1 - 2 * problem.cost(replay.next_obs[:40])
    assert torch.allclose(replay.reward[:40], goal)
    assert told["cost"] == pytest.approx(float((1 - goal).mean()) / 2, abs=1e-6)
    assert torch.allclose(value_of(state.critic, replay.obs[:40], replay.action[:40]), goal, atol=0.05)


# ---------------------------------------------------------------------------------- the claim


def test_the_claim_runs_at_a_smaller_size():
    problem = claim.problem(limit=20, episodes=2)
    for arm in (claim.ours, claim.baseline):
        records = list(train(partial(arm, **TINY)(), problem, steps=2))
        assert all(claim.figure in record.metrics for record in records)
        assert -1 <= claim.measure(Run(0, [r.metrics for r in records], records[-1].state, problem)) <= 0


def test_a_policy_that_loses_the_first_task_is_put_back():
    problem = claim.problem(episodes=2)
    state = begin(claim.ours(), problem)
    before = problem.evaluate(state.policy, Stream(0, "evaluate"))["added"]
    state.policy.net[-1].bias.data += 2.0  # pushes one way, and falls
    assert problem.evaluate(state.policy, Stream(0, "evaluate"))["return"] < 100
    assert claim.measure(Run(0, [], state, problem)) == before


@pytest.mark.slow
def test_the_added_task_is_done_better_and_the_first_is_kept():
    """10 steps of 200 transitions, on one seed of those that were used to choose the defaults."""
    problem = CartTasks(limit=200)
    before = problem.evaluate(begin(apg(), problem, seed=100).policy, Stream(0))
    *_, record = train(apg(), problem, steps=10, seed=100)
    after = problem.evaluate(record.state.policy, Stream(0))
    assert before["return"] == after["return"] == 200
    assert after["added"] > before["added"] + 0.003


def test_bad_input_is_refused():
    for system in (make, tuned):
        with pytest.raises(TypeError, match="teaches none"):
            begin(system(), PointMass())
        with pytest.raises(ValueError, match="discount in"):
            system(discount=1.0)
    with pytest.raises(ValueError, match="weight, noise and fallen must not be negative"):
        tuned(weight=-1.0)
    with pytest.raises(ValueError, match="ridge must be positive"):
        Quadratic(2, 1, 0.0)
    with pytest.raises(ValueError, match="price, rate, noise and fallen must not be negative"):
        make(price=-1.0)
