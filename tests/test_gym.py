"""Any environment of Gymnasium: flat spaces, true final observations, state taken and given back, and bad ones refused."""

import dataclasses
import pickle

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from steepest.collectors.rollout import rollout
from steepest.core import Stream
from steepest.core.check import Failed, check_control, check_problem
from steepest.core.live import Live
from steepest.credit import gae
from steepest.engines.values import values
from steepest.models.build import actor_state
from steepest.problems.gym import Envs, Gym
from steepest.problems.keepers import Physics


class Line(gymnasium.Env):
    """Counts its steps; what it shows, pays and takes is said when it is made."""

    def __init__(self, shows=None, takes=None, bad=None, ends=None):
        self.observation_space = shows or spaces.Box(-9, 9, (2, 3))
        self.action_space = takes or spaces.Discrete(2)
        self.bad, self.ends, self.at, self.got, self.lives = bad, ends, 0, [], 0

    def show(self):
        if isinstance(self.observation_space, spaces.Discrete):
            return int(self.observation_space.start) + self.at % int(self.observation_space.n)
        seen = np.arange(6, dtype=np.float32).reshape(2, 3) + 10 * self.at
        bad = (self.bad == "obs" and self.at == 3) or (self.bad == "second" and self.lives == 2)
        return seen * np.nan if bad else seen

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.at = 0
        self.lives += 1
        return self.show(), {}

    def step(self, action):
        self.at += 1
        self.got.append(action)
        reward = np.inf if self.bad == "reward" and self.at == 3 else float(self.at)
        return self.show(), reward, self.at == self.ends, self.at == self.ends, {}


for name, options in {
    "Plain": {}, "NaN": {"bad": "obs"}, "Inf": {"bad": "reward"}, "Words": {"shows": spaces.Dict(a=spaces.Text(9))},
    "Pair": {"takes": spaces.Tuple((spaces.Discrete(2), spaces.Discrete(2)))}, "Shifted": {"takes": spaces.Discrete(3, start=5)},
    "Numbers": {"shows": spaces.Discrete(4, start=2)}, "Matrix": {"takes": spaces.Box(-1, 1, (2, 2))},
    "Bytes": {"takes": spaces.Box(0, 200, (2,), np.uint8)}, "Unborn": {"bad": "second"}, "Both": {"ends": 4}, "Last": {"ends": 6},
}.items():  # fmt: skip
    gymnasium.register(f"Line{name}-v0", entry_point=f"{__name__}:Line", kwargs=options, max_episode_steps=6)


# ---------------------------------------------------------------------------------- conformance


CONFORM = (
    "CartPole-v1", "Pendulum-v1", "Acrobot-v1", "HalfCheetah-v5", "Hopper-v5", "FrozenLake-v1", "LinePlain-v0", "LineBoth-v0",
)  # fmt: skip


@pytest.mark.parametrize("name", CONFORM)
def test_environments_conform(name):
    problem = Gym(name)
    assert problem.make(1).resumes == (not name.startswith(("Line", "FrozenLake")))
    assert len(check_problem(problem)) == 2 + problem.make(1).resumes


MORE = (
    "Ant-v5", "Walker2d-v5", "Swimmer-v5", "Reacher-v5", "Pusher-v5", "Humanoid-v5", "HumanoidStandup-v5", "InvertedPendulum-v5",
    "InvertedDoublePendulum-v5", "MountainCar-v0", "MountainCarContinuous-v0",
)  # fmt: skip


@pytest.mark.parametrize("name", MORE)
@pytest.mark.slow
def test_more_environments_conform(name):
    assert len(check_problem(Gym(name))) == 3


def test_the_state_of_ant_is_complete():
    assert len(check_control(Gym("Ant-v5"), count=2, steps=40)) == 3


class Positions(Physics):
    """Keeps positions and speeds alone, as so many do."""

    @staticmethod
    def take(env):
        return {"state": np.concatenate([env.data.qpos, env.data.qvel])}

    @staticmethod
    def give(env, parts):
        env.set_state(*np.split(parts["state"], [env.model.nq]))


def test_a_state_that_lacks_what_physics_warms_up_from_is_caught(monkeypatch):
    monkeypatch.setattr("steepest.problems.gym.KEEPERS", (("gymnasium.envs.mujoco", Positions),))
    with pytest.raises(Failed, match=r"after set_state\(get_state\(\)\)"):
        check_control(Gym("Ant-v5"), count=2, steps=40)


@pytest.mark.parametrize("limit", [None, 15])
@pytest.mark.parametrize("name", ["CartPole-v1", "HalfCheetah-v5"])
def test_state_comes_back_bitwise_into_a_new_object(name, limit):
    """In the middle of the first episode, or of the second; with the limit, over the ends of two more."""
    problem, g = Gym(name, {"max_episode_steps": limit} if limit else {}), np.random.default_rng(0)
    one = problem.make(2)
    one.reset(Stream(1))
    discrete = hasattr(problem.action_space, "n")
    moves = [torch.as_tensor(g.integers(2, size=2) if discrete else g.uniform(-1, 1, (2, 6)).astype("f")) for _ in range(40)]
    for move in moves[:20]:
        one.step(move)
    kept = {k: v.clone() for k, v in one.get_state().items()}
    two = problem.make(2)
    two.reset(Stream(2))
    two.set_state(kept)
    assert all(torch.equal(x, two.get_state()[k]) for k, x in kept.items())
    for move in moves[20:]:
        a, b = one.step(move), two.step(move)
        for part in dataclasses.fields(a):
            assert torch.equal(getattr(a, part.name), getattr(b, part.name))
    assert limit is None or int(one.episode.min()) >= 3


@pytest.mark.parametrize("name", ["CartPole-v1", "HalfCheetah-v5"])
def test_resets_are_addressed_by_environment_and_episode(name):
    alone, many = Gym(name, {"max_episode_steps": 2}).make(1), Gym(name, {"max_episode_steps": 2}).make(3)
    first, still = many.reset(Stream(4)), torch.zeros(3, *many.problem.action_space.shape)
    still = still.long() if name == "CartPole-v1" else still
    assert torch.equal(alone.reset(Stream(4)), first[:1])
    assert len({tuple(row) for row in first.tolist()}) == 3
    two = [many.step(still) for _ in range(2)][1]
    assert two.truncated.all()
    assert not torch.isclose(two.obs, first).all(1).any()  # another episode begins elsewhere
    assert torch.equal(many.reset(Stream(4)), first)  # whatever happened in between
    assert torch.equal(torch.stack([many.step(still).obs for _ in range(2)])[1], two.obs)
    assert not torch.isclose(many.reset(Stream(5)), first).all(1).any()


def test_it_is_gymnasiums_own_trajectory():
    env, vector = gymnasium.make("HalfCheetah-v5"), Gym("HalfCheetah-v5").make(1)
    obs = vector.reset(Stream(3))
    seen, _ = env.reset(seed=Stream(Stream(3).seed, 0, 0).seed % 2**31)
    assert np.allclose(obs[0], seen)
    g = np.random.default_rng(0)
    for _ in range(30):
        act = 2 * g.standard_normal(6).astype("f")  # beyond the Box: the environment receives it clipped
        step = vector.step(torch.from_numpy(act)[None])
        seen, reward, *_ = env.step(act.clip(-1, 1))
        assert np.allclose(step.next_obs[0], seen, atol=1e-6)
        assert float(step.reward[0]) == pytest.approx(reward, rel=1e-5, abs=1e-6)


# ---------------------------------------------------------------------------------- truncation


class Shown(torch.nn.Module):
    def value(self, obs, action, mask):
        return obs[..., 0]


class Autoreset(Envs):
    """Shows the next episode's first observation where it should show the last one of this."""

    def step(self, action):
        step = super().step(action)
        return type(step)(step.obs, step.obs, step.reward, step.terminated, step.truncated)


def cut(problem):
    state = actor_state(problem, Stream(0), lr=1e-3, envs=2)
    batch = rollout(envs=2, horizon=8)(state, problem, Stream(1))
    state.critic = Shown()
    return gae(batch.reward, *values(state, batch), discount=0.5, decay=0.0), batch


def test_truncation_bootstraps_from_the_true_final_observation():
    """Line shows 10 t and pays t + 1 at step t; its clock ends it at 6, where it shows 60."""
    got, batch = cut(Gym("LinePlain-v0"))
    t = torch.arange(8) % 6
    assert torch.equal(batch.info["truncated"], (t == 5).expand(2, 8))
    assert torch.equal(got, (t + 1 + 0.5 * 10 * (t + 1) - 10 * t).float().expand(2, 8))


def test_an_autoreset_observation_in_its_place_gives_another_number(monkeypatch):
    right, _ = cut(Gym("LinePlain-v0"))
    monkeypatch.setattr(Gym, "make", lambda self, count: Autoreset(self, count))
    wrong, batch = cut(Gym("LinePlain-v0"))
    assert ((right - wrong) * ~batch.info["truncated"] == 0).all()
    assert torch.equal((right - wrong)[batch.info["truncated"]], torch.full((2,), 30.0))


@pytest.mark.parametrize(("name", "end"), [("LineBoth-v0", 4), ("LineLast-v0", 6)])
def test_an_environment_that_says_terminated_and_truncated_has_terminated(name, end):
    """Line says both at once; at step 6 the clock ends too."""
    vector = Gym(name).make(2)
    vector.reset(Stream(0))
    steps = [vector.step(torch.zeros(2, dtype=torch.long)) for _ in range(2 * end)]
    assert [bool(step.terminated.all()) for step in steps] == [i % end == end - 1 for i in range(2 * end)]
    assert not any(step.truncated.any() for step in steps)


def test_a_trace_that_stops_at_the_cut_by_hand():
    """As above at decay 1/2: d = 6 (t + 1) - 10 t, and a quarter of the advantage of the next step, but none after the cut."""
    state = actor_state(Gym("LinePlain-v0"), Stream(0), lr=1e-3, envs=2)
    batch = rollout(envs=2, horizon=6)(state, Gym("LinePlain-v0"), Stream(1))
    state.critic = Shown()
    got, expected = gae(batch.reward, *values(state, batch), discount=0.5, decay=0.5), [6 + 30 - 50]
    for t in (4, 3, 2, 1, 0):
        expected.insert(0, (t + 1) + 5 * (t + 1) - 10 * t + 0.25 * expected[0])
    assert torch.equal(got, torch.tensor(expected).expand(2, 6))


def test_cartpole_is_cut_by_the_clock_where_gymnasium_cuts_it():
    vector = Gym("CartPole-v1", {"max_episode_steps": 4}).make(2)
    vector.reset(Stream(0))
    cuts = [vector.step(torch.tensor([i % 2, 1 - i % 2])) for i in range(8)]
    assert [bool(step.truncated.all()) for step in cuts] == [i % 4 == 3 for i in range(8)]
    assert not torch.equal(cuts[3].obs, cuts[3].next_obs)


# ---------------------------------------------------------------------------------- spaces


def test_discrete_observations_are_one_hot():
    problem = Gym("FrozenLake-v1")
    assert problem.observation_space == spaces.Discrete(16)
    vector = problem.make(3)
    obs = vector.reset(Stream(0))
    assert torch.equal(obs, torch.eye(16)[[0, 0, 0]])
    for _ in range(20):
        step = vector.step(torch.randint(4, (3,), generator=Stream(1).torch()))
        assert torch.equal(step.next_obs.sum(1), torch.ones(3))
    shifted = Gym("LineNumbers-v0").make(1)
    assert torch.equal(shifted.reset(Stream(0)), torch.eye(4)[:1])
    assert torch.equal(shifted.step(torch.zeros(1, dtype=torch.long)).obs, torch.eye(4)[1:2])


def test_boxes_are_flattened_and_actions_get_their_shape_back():
    problem = Gym("LineMatrix-v0")
    assert problem.observation_space.shape == (2, 3)
    assert problem.action_space.shape == (4,)
    vector = problem.make(1)
    assert vector.reset(Stream(0)).tolist() == [[0, 1, 2, 3, 4, 5]]
    vector.step(torch.tensor([[0.5, -3.0, 0.0, 2.0]]))
    assert vector.envs[0].unwrapped.got[0].tolist() == [[0.5, -1.0], [0.0, 1.0]]


def test_actions_are_clipped_before_they_become_whole_numbers():
    vector = Gym("LineBytes-v0").make(1)
    vector.reset(Stream(0))
    for pair in ([-1.5, 300.0], [7.0, 199.9]):
        vector.step(torch.tensor([pair]))
    assert [row.tolist() for row in vector.envs[0].unwrapped.got] == [[0, 200], [7, 199]]
    assert vector.envs[0].unwrapped.got[0].dtype == np.uint8


def test_a_discrete_action_that_does_not_start_at_0():
    vector = Gym("LineShifted-v0").make(2)
    vector.reset(Stream(0))
    vector.step(torch.tensor([0, 2]))
    assert [env.unwrapped.got for env in vector.envs] == [[5], [7]]


# ---------------------------------------------------------------------------------- bad input


def test_a_robot_is_built_without_a_word(capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Gym("HalfCheetah-v5").make(2)
    assert capfd.readouterr() == ("", "")
    assert not list(tmp_path.iterdir())  # MuJoCo would have left a log


def test_what_cannot_be_run_is_said_before_any_work():
    with pytest.raises(ValueError, match=r"Gymnasium cannot find 'CartPool-v1'.*; nearest: CartPole-v1"):
        Gym("CartPool-v1")
    with pytest.raises(ValueError, match="does not take the options"):
        Gym("CartPole-v1", {"wheels": 3}).make(1)
    with pytest.raises(TypeError, match=r"observations in Text.* have no fixed number of numbers"):
        _ = Gym("LineWords-v0").observation_space
    with pytest.raises(TypeError, match=r"LinePair-v0 takes actions in Tuple.*TransformAction"):
        _ = Gym("LinePair-v0").action_space
    with pytest.raises(ValueError, match="episodes must be at least 1"):
        Gym("CartPole-v1", episodes=0)
    with pytest.raises(ValueError, match="at least one environment"):
        Gym("CartPole-v1").make(0)
    with pytest.raises(ValueError, match=r"max_episode_steps.* positive, actually: 0"):
        Gym("CartPole-v1", {"max_episode_steps": 0}).make(1)


@pytest.mark.parametrize(("name", "what"), [("LineNaN-v0", "an observation that is not finite"), ("LineInf-v0", "the reward inf")])
def test_numbers_that_are_none_name_environment_and_step(name, what):
    vector = Gym(name).make(2)
    vector.reset(Stream(0))
    vector.envs[0].unwrapped.at = -5  # only the second one gets there
    for _ in range(2):
        vector.step(torch.zeros(2, dtype=torch.long))
    with pytest.raises(ValueError, match=rf"{name}, environment 1, gave {what} at step 3 of its episode 1"):
        vector.step(torch.zeros(2, dtype=torch.long))


def test_a_first_observation_that_is_none_is_step_0_of_its_episode():
    vector = Gym("LineUnborn-v0").make(2)
    vector.reset(Stream(0))
    vector.envs[0].unwrapped.lives = 5  # only the second one gets there
    for _ in range(5):
        vector.step(torch.zeros(2, dtype=torch.long))
    with pytest.raises(ValueError, match=r"environment 1, gave an observation that is not finite at step 0 of its episode 2"):
        vector.step(torch.zeros(2, dtype=torch.long))


def test_large_numbers_whose_sum_overflows_are_numbers(monkeypatch):
    monkeypatch.setattr(Line, "show", lambda self: np.full((2, 3), 3e38, np.float32))
    vector = Gym("LinePlain-v0").make(2)
    vector.reset(Stream(0))
    with np.errstate(over="ignore"):
        assert torch.isfinite(vector.step(torch.zeros(2, dtype=torch.long)).next_obs).all()


def test_a_frozen_lake_says_that_it_cannot_resume_and_begins_anew_with_a_warning():
    problem = Gym("FrozenLake-v1")
    assert not problem.make(1).resumes
    live = Live(problem, 2, Stream(0))
    live.score.fill_(3)
    live.length.fill_(2)
    live._live_cache.step(torch.tensor([1, 1]))
    live.leave(live._live_cache, torch.eye(16)[[4, 4]])
    assert live.resume(problem, Stream(1))[0] is live._live_cache  # the object is there: it goes on
    again = pickle.loads(pickle.dumps(live))
    with pytest.warns(UserWarning, match="FrozenLake-v1.* cannot be given a state: its episodes begin anew"):
        _, obs = again.resume(problem, Stream(1))
    assert torch.equal(obs, torch.eye(16)[[0, 0]])
    assert again.score.tolist() == again.length.tolist() == [0, 0]
    assert live.score.tolist() == [3, 3]


def test_an_environment_that_cannot_give_its_state_begins_anew_with_a_warning():
    problem = Gym("LinePlain-v0")
    state = actor_state(problem, Stream(0), lr=1e-3, envs=2)
    rollout(envs=2, horizon=4)(state, problem, Stream(1))
    with pytest.raises(NotImplementedError, match="cannot give its state"):
        problem.make(1).get_state()
    again = pickle.loads(pickle.dumps(state))
    with pytest.warns(UserWarning, match="cannot be given a state: its episodes begin anew"):
        batch = rollout(envs=2, horizon=4)(again, problem, Stream(2))
    assert batch.obs[:, 0, 0].tolist() == [0, 0]
    assert rollout(envs=2, horizon=4)(state, problem, Stream(2)).obs[:, 0, 0].tolist() == [40, 40]  # the object itself goes on
