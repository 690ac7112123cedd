"""Logged data: graded pendulum logs, their soundness, and Minari data sets out and in."""

import dataclasses

import gymnasium
import minari
import numpy as np
import pytest
import torch

from steepest.core import Stream, train
from steepest.models.deterministic import DeterministicActor
from steepest.problems import offline
from steepest.problems.control import Pendulum, PointMass
from steepest.problems.offline import (
    MinariData,
    PendulumData,
    Stretched,
    from_minari,
    from_unit,
    join,
    log,
    make_graded,
    noisy,
    played,
    swing_up,
    to_minari,
    to_unit,
    uniform,
)
from steepest.systems.offline.td3_bc import td3_bc
from steepest.systems.on_policy.ppo import ppo

RNG = Stream(0, "test")


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))


# ---------------------------------------------------------------------------------------------- logs


def test_the_grades_earn_what_they_should():
    means = {g: float(make_graded(g, 8000, RNG).returns().mean()) for g in ("expert", "medium", "random")}
    assert means["expert"] == pytest.approx(offline.EXPERT, abs=60)  # 40 episodes
    assert means["random"] == pytest.approx(offline.RANDOM, abs=120)
    assert means["random"] < means["medium"] < means["expert"]


def test_mixtures_hold_the_shares_that_they_say():
    data = make_graded("mixed", 8000, RNG)
    assert len(data) == 8000
    good = data.returns() > -600
    assert int(good.sum()) == 2  # 1 episode of 20
    assert int((make_graded("medium-expert", 4000, RNG).returns() > -600).sum()) >= 10


def test_a_log_is_a_function_of_its_address():
    a, b, c = (make_graded("medium", 400, Stream(s)) for s in (1, 1, 2))
    assert torch.equal(a.obs, b.obs)
    assert torch.equal(a.act, b.act)
    assert not torch.equal(a.obs, c.obs)


def test_what_is_logged_is_what_happened():
    """Replayed in the environment, the logged actions give the logged rewards and successors."""
    data = log(Pendulum(), noisy, count=2, steps=200, rng=RNG)
    env = Pendulum().make(2)
    obs = env.reset(RNG / "reset")
    act = from_unit(data.act, Pendulum().action_space).view(2, 200, 1)
    for t in range(200):
        assert torch.equal(obs, data.obs.view(2, 200, 3)[:, t])
        out = env.step(act[:, t])
        assert torch.equal(out.reward, data.rew.view(2, 200)[:, t])
        assert torch.equal(out.next_obs, data.next_obs.view(2, 200, 3)[:, t])
        obs = out.obs


def test_an_episode_that_the_log_cuts_is_truncated():
    data = log(PointMass(limit=30), lambda obs, g: torch.zeros(len(obs), 2), count=3, steps=50, rng=RNG)
    assert torch.bincount(data.episode).tolist() == [30, 20] * 3
    assert data.truncated.view(3, 50).nonzero()[:, 1].tolist() == [29, 49] * 3
    assert data.returns().shape == (6,)


def test_actions_are_scaled_and_clipped():
    space = gymnasium.spaces.Box(np.array([-2.0, 0.0], np.float32), np.array([2.0, 10.0], np.float32))
    action = torch.tensor([[-2.0, 0.0], [1.0, 7.5], [9.0, -1.0]])
    assert to_unit(action, space).tolist() == [[-1, -1], [0.5, 0.5], [1, -1]]
    assert torch.equal(from_unit(to_unit(action[:2], space), space), action[:2])
    for space in (gymnasium.spaces.Discrete(3), gymnasium.spaces.Box(-np.inf, np.inf, (2,))):
        with pytest.raises(ValueError, match="has no bounds, so its actions cannot be scaled"):
            to_unit(action, space)


def test_the_scripted_expert_is_within_its_bounds():
    obs = torch.randn(500, 3, generator=RNG.torch())
    for behaviour in (swing_up, uniform, noisy):
        action = behaviour(obs, RNG.torch())
        assert action.shape == (500, 1)
        assert float(action.abs().max()) <= 2


def test_successors_follow_and_only_the_clock_ends():
    data = make_graded("random", 800, RNG)
    inside = ~data.truncated[:-1]
    assert torch.equal(data.next_obs[:-1][inside], data.obs[1:][inside])
    assert not data.terminated.any()
    assert int(data.truncated.sum()) == 4
    assert torch.bincount(data.episode).tolist() == [200] * 4


def test_unsound_data_are_refused_by_row():
    data = make_graded("random", 200, RNG)
    for field, value, message in (("rew", float("nan"), "row 3"), ("act", 1.5, "row 3")):
        x = getattr(data, field).clone()
        x[3] = value
        with pytest.raises(ValueError, match=message):
            dataclasses.replace(data, **{field: x})
    with pytest.raises(ValueError, match="empty"):
        data.rows(torch.arange(0))


def test_an_unknown_grade_or_too_few_steps_are_refused():
    with pytest.raises(ValueError, match="the grades are random, medium, expert"):
        make_graded("good", 800, RNG)
    with pytest.raises(ValueError, match="no whole episode of each part of 'mixed'"):
        make_graded("mixed", 800, RNG)


def test_joined_logs_keep_their_episodes_apart():
    parts = [make_graded("random", 400, RNG / i) for i in range(2)]
    both = join(*parts)
    assert both.episode.unique().tolist() == [0, 1, 2, 3]
    assert torch.equal(both.returns(), torch.cat([p.returns() for p in parts]))


def test_scores_of_random_and_expert():
    class Scripted:
        def __init__(self, behaviour):
            self.behaviour = behaviour

        def act(self, obs, generator, greedy=False):
            return to_unit(self.behaviour(obs, generator), Pendulum().action_space)

    got = {b.__name__: PendulumData().evaluate(Scripted(b), RNG) for b in (uniform, swing_up)}
    assert got["uniform"]["score"] == pytest.approx(0, abs=15)
    assert got["swing_up"]["score"] == pytest.approx(100, abs=15)
    assert got["swing_up"]["return"] == pytest.approx(offline.EXPERT, abs=80)


# -------------------------------------------------------------------------------------------- Minari


def test_a_minari_round_trip_is_bitwise(store):
    data = make_graded("medium", 600, RNG)
    ended = data.terminated.clone()
    ended[199] = True
    data = dataclasses.replace(data, terminated=ended, truncated=data.truncated & ~ended)
    told = {"author": "nobody", "author_email": "nobody@example.org", "code_permalink": "none", "description": "a test"}
    to_minari(data, "steepest/pendulum/medium-v0", gymnasium.make("Pendulum-v1"), algorithm="scripted", **told)
    back = from_minari("steepest/pendulum/medium-v0")
    for field in dataclasses.fields(data):
        assert torch.equal(getattr(back, field.name), getattr(data, field.name)), field.name
    assert MinariData(id="steepest/pendulum/medium-v0").data.terminated.sum() == 1


def test_others_read_actions_in_the_environments_units(store):
    data = make_graded("expert", 400, RNG)
    to_minari(data, "steepest/pendulum/expert-v0", gymnasium.make("Pendulum-v1"), algorithm="scripted")
    theirs = minari.load_dataset("steepest/pendulum/expert-v0")
    env = theirs.recover_environment()
    assert theirs.action_space == env.action_space
    assert theirs.storage.metadata["algorithm_name"] == "scripted"
    episode = next(iter(theirs.iterate_episodes()))
    assert len(episode.observations) == len(episode.actions) + 1 == 201
    env.reset(seed=0)
    cos, sin, speed = episode.observations[0]
    env.unwrapped.state = np.array([np.arctan2(sin, cos), speed])
    for t in range(20):
        obs, reward, *_ = env.step(episode.actions[t])
        np.testing.assert_allclose(obs, episode.observations[t + 1], atol=1e-3)
        assert reward == pytest.approx(float(episode.rewards[t]), abs=1e-3)


def test_data_of_the_librarys_own_agent_teach_an_offline_learner(store):
    """PPO meets the environment, its log becomes a data set, and td3_bc learns from what is read back."""
    agent = list(train(ppo(envs=4, horizon=100, epochs=1, minibatches=2), Pendulum(), steps=2))[-1].state.policy
    data = log(Pendulum(), played(agent), count=4, steps=200, rng=RNG)
    to_minari(data, "steepest/pendulum/ppo-v0", gymnasium.make("Pendulum-v1"), algorithm="ppo")
    problem = MinariData(id="steepest/pendulum/ppo-v0")
    assert torch.equal(problem.data.obs, data.obs)
    assert torch.allclose(problem.data.act, data.act, atol=1e-6)
    assert float(data.act.std()) > 0.1
    record = list(train(td3_bc(hidden=16, updates=20), problem, steps=2))[-1]
    got = problem.evaluate(record.state.policy, RNG)
    assert -2000 < got["return"] < 0
    assert got == problem.evaluate(record.state.policy, RNG)


def test_a_missing_data_set_says_how_to_get_it(store):
    problem = MinariData(id="steepest/pendulum/none-v0")
    for use in (lambda: problem.data, lambda: problem.evaluate(None, RNG)):
        with pytest.raises(FileNotFoundError, match=r"holds no Minari data set(.|\n)*minari download steepest/pendulum/none-v0"):
            use()


def test_a_minari_id_needs_a_namespace():
    data = make_graded("random", 200, RNG)
    for name in ("x-v0", "t/x-v0"):
        with pytest.raises(ValueError, match="namespace"):
            to_minari(data, name, None, algorithm="x")
    with pytest.raises(ValueError, match="namespace/name-vN"):
        from_minari("x-v0")


def test_a_stretched_policy_acts_in_the_units_of_the_box():
    with RNG.fork():
        policy = DeterministicActor(torch.zeros(3), torch.ones(3), 1, 8)
    obs = torch.randn(7, 3, generator=RNG.torch())
    stretched = Stretched(policy, Pendulum().action_space).act(obs, RNG.torch(), True)
    assert torch.allclose(stretched, 2 * policy.act(obs, RNG.torch(), True))
