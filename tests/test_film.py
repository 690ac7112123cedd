"""FiLM control: what the user says steers the network and changes no parameter; the vehicle obeys the limit."""

from functools import partial

import numpy as np
import pytest
import torch

from steepest.core import Stream, begin, train
from steepest.core.check import check_system
from steepest.evidence.on_policy.film_control import claim
from steepest.models.film import Modulated, film
from steepest.models.networks import __all__ as names
from steepest.problems.control import CartPole
from steepest.problems.gym import Gym
from steepest.problems.waypoints import CORNERS, Waypoints
from steepest.systems.on_policy.film_control import film_control
from steepest.systems.on_policy.ppo import ppo

SMALL = {"envs": 4, "horizon": 16, "width": 8, "hidden": 4, "epochs": 2, "minibatches": 2}


def trunk(hidden=4):
    with Stream(3).fork():
        return Modulated(6, said=2, width=5, depth=3, hidden=hidden)


# ---------------------------------------------------------------------------------- conformance


@pytest.mark.parametrize("problem", [partial(CartPole, limit=9), partial(Gym, "Pendulum-v1")], ids=["choices", "gym"])
def test_it_conforms(problem):
    assert check_system(partial(film_control, **SMALL), problem, fresh=False)[-1] == "resume is bitwise"


def test_it_conforms_in_a_fresh_process():
    make = partial(film_control, **SMALL)
    assert check_system(make, partial(Waypoints, limit=9, episodes=2))[-1] == "resume is bitwise in a fresh process"


# ---------------------------------------------------------------------------------- the modulation


def test_at_first_it_is_the_plain_network_whatever_is_said():
    """Bug that it catches: a modulation that does not start at the identity."""
    steered, plain = trunk(), trunk(hidden=0)
    x = torch.randn(7, 6, generator=Stream(1).torch())
    other = torch.cat([x[:, :4], 5 * x[:, 4:] - 1], 1)
    assert torch.equal(steered(x), steered(other))
    h = x[:, :4]
    for layer in steered.layers:
        h = torch.tanh(h @ layer.weight.T + layer.bias)
    assert torch.allclose(steered(x), h, atol=1e-6)
    plain.load_state_dict({name: p for name, p in steered.state_dict().items() if name in plain.state_dict()})
    assert torch.allclose(steered(x), plain(x), atol=1e-6)


def test_a_unit_is_scaled_and_shifted_by_what_is_said():
    steered = trunk()
    with torch.no_grad():
        for p in steered.steer.parameters():
            p.normal_(generator=Stream(2).torch())
    x = torch.randn(7, 6, generator=Stream(1).torch())
    scale, shift = steered.steer(x[:, 4:]).chunk(2, -1)
    first, second, third = steered.layers
    h = (1 + scale) * first(x[:, :4]).tanh() + shift
    assert torch.allclose(steered(x), third(second(h).tanh()).tanh(), atol=1e-6)
    assert not torch.allclose(steered(x), steered(torch.cat([x[:, :4], 0 * x[:, 4:]], 1)), atol=1e-3)


def test_saying_something_else_changes_what_is_done_and_no_parameter():
    problem = Waypoints(limit=30)
    state = list(train(film_control(lr=0.01, normalize=False, **SMALL), problem, steps=4))[-1].state
    before = {name: p.clone() for name, p in state.state_dict().items() if isinstance(p, torch.Tensor)}
    obs = torch.randn(5, 8, generator=Stream(1).torch()).abs()
    slow, fast = obs.clone(), obs.clone()
    slow[:, -1], fast[:, -1] = 0.2, 1.0
    done = [state.policy.act(x, Stream(0).torch(), True) for x in (slow, fast)]
    assert not torch.allclose(*done)
    assert all(torch.equal(p, before[name]) for name, p in state.state_dict().items() if name in before)


def test_what_is_not_told_the_parameter_does_the_same_for_all():
    state = list(train(film_control(lr=0.01, normalize=False, **{**SMALL, "hidden": 0}), Waypoints(limit=30), steps=2))[-1].state
    obs = torch.randn(5, 8, generator=Stream(1).torch())
    other = obs.clone()
    other[:, -1] += 1
    assert torch.equal(state.policy.distribution(obs).mean, state.policy.distribution(other).mean)
    assert torch.equal(state.critic.value(obs, obs, obs), state.critic.value(other, obs, obs))


def test_it_is_ppo_with_another_network():
    assert "film" in names
    options = {"envs": 4, "horizon": 16, "epochs": 2, "minibatches": 2}
    one = film_control(width=8, hidden=4, **options)
    two = ppo(model=film(width=8, hidden=4), **options)
    rows = [list(train(system, Waypoints(limit=20), steps=2))[-1].metrics for system in (one, two)]
    assert rows[0] == rows[1]


# ---------------------------------------------------------------------------------- the course


def test_no_acceleration_is_longer_than_the_limit():
    """Bug that it catches: a limit on each axis, which lets the diagonal have 1.4 times as much."""
    problem = Waypoints()
    generator = Stream(1).numpy()
    state = problem.start(generator.random((400, 3)))
    action = generator.normal(0, 3, (400, 2))
    push = problem.push(state, action)
    long = np.linalg.norm(push, axis=1)
    assert (long <= state[:, 5] + 1e-12).all()
    assert long.max() > 0.9
    wanted = np.clip(action, -1, 1)
    assert np.allclose(push[:, 0] * wanted[:, 1], push[:, 1] * wanted[:, 0])  # shortened, not turned
    after = problem.move(state, action)[0]
    assert (np.linalg.norm(after[:, 2:4] - state[:, 2:4], axis=1) <= 0.2 * state[:, 5] + 1e-12).all()
    small = np.full((400, 2), 0.01)
    assert np.allclose(problem.push(state, small), small)
    assert np.array_equal(after[:, 5], state[:, 5])
    assert state[:, 5].min() >= 0.2 > state[:, 5].min() - 0.02
    assert state[:, 5].max() <= 1.0


def test_the_course_is_flown_in_order_and_ends_with_the_last_waypoint():
    problem = Waypoints(least=0.8, most=0.8, episodes=3)
    vector = problem.make(3)
    obs, total, passed = vector.reset(Stream(0)), torch.zeros(3), []
    done = False
    for _ in range(200):
        step = vector.step((0.6 * obs[:, :2] - 1.1 * obs[:, 4:6]).clamp(-1, 1))  # a spring and a damper towards the next waypoint
        total += step.reward
        passed.append(int(len(CORNERS) - step.next_obs[0, 6]))
        if step.terminated.any():
            done = True
            break
        obs = step.obs
    assert done
    assert sorted(set(passed)) == [0, 1, 2, 3, 4]
    assert passed == sorted(passed)
    assert (total > 5).all()  # 4 waypoints, about 7 of way, 0.05 for every step


def test_leaving_the_field_costs_and_ends_the_episode():
    problem = Waypoints()
    state = np.array([[2.49, 0.0, 1.0, 0.0, 0.0, 0.5], [0.0, 0.0, 0.0, 0.0, 0.0, 0.5]])
    _, reward, ended = problem.move(state, np.zeros((2, 2)))
    assert ended.tolist() == [True, False]
    assert reward[0] < -5
    assert reward[1] == pytest.approx(-0.05)


# ---------------------------------------------------------------------------------- claim and bad input


def test_the_claim_runs_at_a_smaller_size():
    for arm in (claim.ours, claim.baseline):
        record = list(train(partial(arm, envs=4, horizon=32)(), claim.problem(limit=20, episodes=2), steps=2))[-1]
        assert claim.figure in record.metrics


def test_what_makes_no_sense_is_refused():
    for options, message in (({"said": 0}, "said must be at least 1"), ({"hidden": -1}, "hidden must be at least 0")):
        with pytest.raises(ValueError, match=message):
            film_control(**options)
    with pytest.raises(ValueError, match="an observation of 4 numbers has nothing left when 4 of them are the user's"):
        begin(film_control(said=4), CartPole())
    state = begin(film_control(normalize=False, **SMALL), Waypoints())
    with pytest.raises(ValueError, match="an observation has 7 numbers, not 8: the last 1 are the user's parameter"):
        state.policy.act(torch.zeros(2, 7), Stream(0).torch(), True)
    with pytest.raises(ValueError, match=r"least <= most, not 0\.5 and 0\.2"):
        Waypoints(least=0.5, most=0.2)
