"""The engines behind Gymnasium's ids: spaces as flat rows, true final observations, robots to the bit, workers that fail."""

import contextlib
import dataclasses
import os
import pickle
import sys
import time
from functools import partial

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from steepest.app.names import find_problem, problem_name
from steepest.collectors.rollout import rollout, stepped
from steepest.core import Stream, begin, native, train
from steepest.core.check import Failed, check_control, check_problem, check_system
from steepest.core.problem import Control, Vector, flat_size
from steepest.core.save import restore, save
from steepest.models.build import actor_state
from steepest.models.control import control_policy
from steepest.problems import robots
from steepest.problems.control import greedy
from steepest.problems.gym import Gym, MiniGrid
from steepest.problems.pools import Atari, EnvPool
from steepest.problems.robots import ROBOTS, Mujoco
from steepest.systems.on_policy.ppo import ppo

kernels = pytest.mark.skipif(native.library is None, reason="the kernels were not built")


@pytest.fixture
def two_threads():
    """Torch with two threads, and as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def first(path):
    """Whether nobody was here before; asked by two workers at once, one of them is told so."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


class Odd(gymnasium.Env):
    """Shows samples of any space, remembers them and what it was told to do; and fails in the way that is asked for."""

    def __init__(self, shows=None, takes=None, how="", when=3, once=None):
        self.observation_space, self.action_space = shows or spaces.Box(-9, 9, (2,)), takes or spaces.Discrete(2)
        self.how, self.when, self.once, self.at, self.seen, self.got = how, when, once, 0, [], []

    def show(self):
        self.seen.append(self.observation_space.sample())
        return self.seen[-1]

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        self.at = 0
        return self.show(), {}

    def step(self, action):
        self.at += 1
        self.got.append(action)
        if self.how and self.at == self.when and (self.once is None or first(self.once)):
            if self.how == "die":
                os._exit(3)
            if self.how == "hang":
                time.sleep(1000)
            if self.how == "raise":
                raise RuntimeError("out of order")
        reward = np.nan if self.how == "nan" and self.at == self.when else 1.0
        return self.show(), reward, False, False, {}


SPACES = {
    "Box": spaces.Box(-1, 1, (2, 3)), "Image": spaces.Box(0, 255, (4, 4, 3), np.uint8), "Discrete": spaces.Discrete(4, start=-2),
    "Many": spaces.MultiDiscrete([3, 2, 4], start=[0, 5, -1]), "Table": spaces.MultiDiscrete([[3, 2], [2, 4]]),
    "Bits": spaces.MultiBinary(5), "BitTable": spaces.MultiBinary((2, 3)),
    "Dict": spaces.Dict(b=spaces.Box(0, 255, (2, 2), np.uint8), a=spaces.Discrete(3)),
    "Tuple": spaces.Tuple((spaces.Discrete(3), spaces.Box(-1, 1, (2,)), spaces.MultiBinary(2))),
    "Nested": spaces.Dict(
        x=spaces.Tuple((spaces.Discrete(2), spaces.Dict(y=spaces.MultiDiscrete([2, 3])))), a=spaces.Box(-1, 1, (1,))
    ),
}  # fmt: skip
for name, space in SPACES.items():
    gymnasium.register(f"OddSees{name}-v0", entry_point=f"{__name__}:Odd", kwargs={"shows": space}, max_episode_steps=5)
    if not isinstance(space, (spaces.Dict, spaces.Tuple)):
        gymnasium.register(f"OddTakes{name}-v0", entry_point=f"{__name__}:Odd", kwargs={"takes": space}, max_episode_steps=5)
gymnasium.register("Odd-v0", entry_point=f"{__name__}:Odd", max_episode_steps=8)
gymnasium.register("OddEndless-v0", entry_point=f"{__name__}:Odd")


# ---------------------------------------------------------------------------------- spaces


@pytest.mark.parametrize("name", SPACES)
def test_an_observation_of_any_space_is_what_gymnasium_flattens_it_to(name):
    problem, space = Gym(f"OddSees{name}-v0"), SPACES[name]
    assert problem.observation_space == space  # the true one
    vector = problem.make(2)
    rows = [vector.reset(Stream(0))]
    rows += [step.obs for step in (vector.step(torch.zeros(2, dtype=torch.long)) for _ in range(4))]
    assert rows[0].dtype == (torch.uint8 if name == "Image" else torch.float32)
    assert rows[0].shape == (2, flat_size(space)) == (2, spaces.flatdim(space))
    for i, env in enumerate(vector.envs):
        for row, seen in zip(rows, env.unwrapped.seen, strict=True):
            assert np.array_equal(row[i].numpy(), spaces.flatten(space, seen).astype(row.numpy().dtype))
    assert len(check_problem(problem)) == 2


ACTIONS = {
    "Box": ([0.5, -3, 0, 2, 0.25, 1], np.array([[0.5, -1, 0], [1, 0.25, 1]], np.float32)),
    "Image": ([300.0] + [7.9] * 47, np.array([255] + [7] * 47, np.uint8).reshape(4, 4, 3)),
    "Discrete": (3, 1), "Many": ([2, 0, 3], np.array([2, 5, 2])), "Table": ([2, 1, 0, 3], np.array([[2, 1], [0, 3]])),
    "Bits": ([1, 0, 0, 1, 1], np.array([1, 0, 0, 1, 1], np.int8)),
    "BitTable": ([1, 0, 0, 1, 1, 0], np.array([[1, 0, 0], [1, 1, 0]], np.int8)),
}  # fmt: skip


@pytest.mark.parametrize("name", ACTIONS)
def test_actions_of_any_space_reach_the_environment_in_its_shape_and_type(name):
    given, expected = ACTIONS[name]
    problem = Gym(f"OddTakes{name}-v0")
    vector = problem.make(2)
    vector.reset(Stream(0))
    vector.step(torch.tensor([given, given]))
    got = vector.envs[1].unwrapped.got[0]
    assert np.array_equal(got, expected)
    assert np.asarray(got).dtype == np.asarray(expected).dtype
    assert vector.envs[0].action_space.contains(got)
    assert np.shape(given) == problem.action_space.shape
    assert len(check_problem(problem)) == 2


class Folded(Gym):
    """An image that was not made flat."""

    def make(self, count):
        vector = super().make(count)
        step, reset = vector.step, vector.reset

        def fold(x):
            return x.view(count, 4, 4, 3)

        vector.reset = lambda rng: fold(reset(rng))
        vector.step = lambda action: dataclasses.replace(s := step(action), obs=fold(s.obs), next_obs=fold(s.next_obs))
        return vector


def test_an_observation_that_is_not_a_flat_row_is_caught():
    with pytest.raises(Failed, match=r"observations are \[3, 4, 4, 3\] of torch.uint8, and not one flat row each"):
        check_problem(Folded("OddSeesImage-v0"))


def test_a_policy_learns_from_any_of_them():
    for name in ("Dict", "Many", "Tuple"):
        problem = Gym(f"OddSees{name}-v0")
        state = actor_state(problem, Stream(0), lr=1e-3, envs=2, critic=True)
        batch = rollout(envs=2, horizon=7)(state, problem, Stream(1))
        assert batch.obs.shape == (2, 7, flat_size(SPACES[name]))
        assert torch.isfinite(state.policy.logp(batch.obs, batch.action, batch.mask)).all()


# ---------------------------------------------------------------------------------- the true final observation, in each engine


class Hasty(Control):
    """An engine that shows the next episode's first observation where it should show the last one of this."""

    def __init__(self, problem):
        self.problem = problem

    def evaluate(self, policy, rng):
        raise NotImplementedError

    def make(self, count):
        vector = self.problem.make(count)
        step = vector.step
        vector.step = lambda action: dataclasses.replace(s := step(action), next_obs=s.obs)
        return vector


def ends_truly(cut, whole, act, at):
    """Whether an episode that the clock cuts `at` step shows there what the same episode shows when it goes on."""
    one, other = cut.make(2), whole.make(2)
    one.reset(Stream(5))
    other.reset(Stream(5))
    g = torch.Generator().manual_seed(0)
    for t in range(1, at + 1):
        action = act(g)
        a, b = one.step(action), other.step(action)
        assert a.truncated.tolist() == [t == at] * 2
        assert not (a.terminated | b.terminated | b.truncated).any()
    assert not torch.equal(a.obs, b.obs)  # another episode has begun
    follow = one.step(act(g))
    assert not (follow.terminated | follow.truncated).any()  # no step is lost on the reset
    return torch.equal(a.next_obs, b.next_obs)


def robot(g):
    return torch.rand(2, 6, generator=g) * 2 - 1


def button(count):
    return lambda g: torch.randint(count, (2,), generator=g)


def made(kind, name, word, short, long, **more):
    return partial(kind, name, {word: short}, **more), partial(kind, name, {word: long}, **more)


ENGINES = {
    "Gym": (*made(Gym, "HalfCheetah-v5", "max_episode_steps", 9, 90), robot, 9, ()),
    "workers": (*made(Gym, "HalfCheetah-v5", "max_episode_steps", 9, 90, workers=2), robot, 9, ()),
    "Mujoco": (*made(Mujoco, "HalfCheetah-v5", "max_episode_steps", 9, 90), robot, 9, ()),
    "EnvPool": (*made(EnvPool, "HalfCheetah-v5", "max_episode_steps", 9, 90), robot, 9, ("envpool",)),
    "MiniGrid": (*made(MiniGrid, "MiniGrid-Empty-Random-6x6-v0", "max_episode_steps", 9, 90), button(2), 9, ("minigrid",)),
    "Atari": (partial(Atari, "ALE/Breakout-v5", limit=9), partial(Atari, "ALE/Breakout-v5", limit=90), button(4), 9, ("ale_py",)),
}


@pytest.mark.parametrize("name", ENGINES)
def test_truncation_shows_the_true_final_observation_and_a_reset_one_is_caught(name):
    cut, whole, act, at, needed = ENGINES[name]
    for package in needed:
        pytest.importorskip(package)
    assert ends_truly(cut(), whole(), act, at)
    assert not ends_truly(Hasty(cut()), whole(), act, at)


@pytest.mark.parametrize("name", [n for n in ENGINES if n != "Gym"])
def test_engines_conform(name):
    cut, *_, needed = ENGINES[name]
    for package in needed:
        pytest.importorskip(package)
    problem = cut()
    assert len(check_control(problem, count=2, steps=40)) == 2 + (name in ("workers", "Mujoco"))
    assert pickle.loads(pickle.dumps(problem)) == problem


# ---------------------------------------------------------------------------------- robots


def compare(name, options, steps, envs=2, threads=1):
    """Every number that Gymnasium's own environment gives, against the batch's; how many episodes ended."""
    problem = Mujoco(name, options, threads=threads)
    vector, own = problem.make(envs), [gymnasium.make(name, **options) for _ in range(envs)]
    episode, over, root = [0] * envs, 0, Stream(Stream(3).seed)

    def begin(i):
        episode[i] += 1
        return own[i].reset(seed=(root / i / (episode[i] - 1)).seed % 2**31)[0]

    obs, g = vector.reset(Stream(3)), np.random.default_rng(0)
    assert np.array_equal(obs.numpy(), np.array([begin(i) for i in range(envs)], np.float32))
    for _ in range(steps):
        action = g.normal(size=(envs, *problem.action_space.shape)).astype(np.float32)  # also beyond the Box: it is clipped
        step = vector.step(torch.from_numpy(action))
        for i, env in enumerate(own):
            seen, reward, ended, cut, _ = env.step(action[i].clip(env.action_space.low, env.action_space.high))
            data = env.unwrapped.data
            assert np.array_equal(step.next_obs[i].numpy(), seen.astype(np.float32))
            assert float(step.reward[i]) == float(np.float32(reward))
            assert (bool(step.terminated[i]), bool(step.truncated[i])) == (ended, cut and not ended)
            if ended or cut:
                over += 1
                seen = begin(i)
                assert np.array_equal(step.obs[i].numpy(), seen.astype(np.float32))
            assert np.array_equal(vector.qpos[i], data.qpos)  # in double precision
            assert np.array_equal(vector.qvel[i], data.qvel)
    return over


@pytest.mark.parametrize("name", dict(ROBOTS))
def test_robots_are_gymnasiums_to_the_bit(name):
    assert compare(name, {"max_episode_steps": 130}, 310) >= 4


OTHERWISE = {
    "HalfCheetah-v5": {"reset_noise_scale": 0.3, "forward_reward_weight": 2.0, "ctrl_cost_weight": 0.3, "frame_skip": 2},
    "Hopper-v5": {"healthy_z_range": (0.9, 1.6), "healthy_reward": 0.3, "healthy_state_range": (-3.0, 3.0)},
    "Walker2d-v5": {"terminate_when_unhealthy": False, "healthy_angle_range": (-0.5, 0.4)},
    "Ant-v5": {"contact_cost_weight": 0.1, "contact_force_range": (-0.5, 2.0), "main_body": 3, "healthy_z_range": (0.3, 0.9)},
    "Humanoid-v5": {"contact_cost_range": (0.0, 1e-3), "include_cvel_in_observation": False, "forward_reward_weight": 3.0},
    "Swimmer-v5": {"ctrl_cost_weight": 0.1},
}


@pytest.mark.parametrize("name", OTHERWISE)
def test_robots_with_other_options_are_gymnasiums_to_the_bit(name):
    options = {"exclude_current_positions_from_observation": False, "max_episode_steps": 40, **OTHERWISE[name]}
    assert compare(name, options, 100) >= 4


def test_robots_without_contact_forces_and_inertia():
    compare("Ant-v5", {"include_cfrc_ext_in_observation": False}, 60)
    none = dict.fromkeys((f"include_{x}_in_observation" for x in ("cinert", "cvel", "qfrc_actuator", "cfrc_ext")), False)
    compare("Humanoid-v5", none, 60)


@pytest.mark.parametrize("name", ["HalfCheetah-v5", "Ant-v5"])
def test_threads_change_nothing(name):
    compare(name, {"max_episode_steps": 20}, 50, envs=3, threads=2)


PLAIN = {
    "HalfCheetah-v5": {}, "Swimmer-v5": {"exclude_current_positions_from_observation": False}, "Walker2d-v5": {},
    "Hopper-v5": OTHERWISE["Hopper-v5"],
}  # fmt: skip


@kernels
@pytest.mark.parametrize("name", [*PLAIN, "Walker2d-v5 unhealthy"])
def test_a_policy_acts_in_robots_in_one_call_as_step_by_step(name):
    """Bitwise, whatever the number of threads: also over resets, and with actions outside the Box."""
    name, _, more = name.partition(" ")
    options = OTHERWISE[name] if more else PLAIN[name]
    problem = Mujoco(name, {"max_episode_steps": 37, **options}, threads=1)
    policy = control_policy(problem, Stream(0), width=16, normalize=True)
    made = [dataclasses.replace(problem, threads=threads).make(5) for threads in (1, 1, 2)]
    obs = [vector.reset(Stream(1)) for vector in made]
    policy.norm.write(torch.randn(50, obs[0].shape[1], generator=torch.Generator().manual_seed(0)))
    over = 0
    for part in range(2):
        g = [Stream(2, part).torch() for _ in made]
        steps = stepped(made[0], policy, obs[0], g[0], 50)
        for vector, generator, at in zip(made[1:], g[1:], obs[1:], strict=True):
            whole = vector.roll(policy, at, generator, 50)
            assert torch.equal(generator.get_state(), g[0].get_state())
            assert torch.equal(whole.obs, steps.obs)
            assert all(torch.equal(a, b) for a, b in zip(whole.columns, steps.columns, strict=True))
            assert all(torch.equal(a, vector.get_state()[key]) for key, a in made[0].get_state().items())
        over += int((steps.columns[5] | steps.columns[6]).sum())
        obs = [steps.obs] * 3
    assert (steps.columns[1].abs() > 1).any()
    assert over >= 5


@kernels
def test_numbers_that_are_none_are_found_where_a_policy_acts_in_one_call():
    problem = Mujoco("HalfCheetah-v5")
    state = actor_state(problem, Stream(0), lr=1e-3, envs=2)
    with torch.no_grad():
        state.policy.net.theta.fill_(torch.nan)
    with pytest.raises(ValueError, match=r"HalfCheetah-v5, environment 0, gave the reward nan at step 1 of its episode 1"):
        rollout(envs=2, horizon=4)(state, problem, Stream(0))


@kernels
def test_robots_that_are_changed_are_stepped_as_they_say(monkeypatch):
    class Proud(dict(ROBOTS)["HalfCheetah-v5"]):
        def move(self, action):
            seen, reward, *ends = super().move(action)
            return seen, reward + 100, *ends

    problem = Mujoco("HalfCheetah-v5")
    state = actor_state(problem, Stream(0), lr=1e-3, envs=2)
    monkeypatch.setattr(Mujoco, "make", lambda self, count: Proud(self, count))
    assert (rollout(envs=2, horizon=4)(actor_state(problem, Stream(0), lr=1e-3, envs=2), problem, Stream(0)).reward > 50).all()
    assert (rollout(envs=2, horizon=4)(state, problem, Stream(0)).reward < 50).all()


@pytest.mark.parametrize("lost", ["library", "engine"])
def test_robots_step_one_by_one_where_there_are_no_kernels(monkeypatch, lost):
    problem = Mujoco("Hopper-v5", {"max_episode_steps": 30})
    state = actor_state(problem, Stream(0), lr=1e-3, envs=2)
    policy, vector = state.policy, problem.make(2)
    obs = vector.reset(Stream(0))
    assert native.library is None or vector.roll(policy, obs, Stream(0).torch(), 3) is not None
    monkeypatch.setattr(*((native, "library", None) if lost == "library" else (robots, "engine", lambda: None)))
    assert vector.roll(policy, obs, Stream(0).torch(), 3) is None
    assert rollout(envs=2, horizon=40)(state, problem, Stream(0)).info["episodes"] >= 2


@pytest.mark.parametrize("name", ["Hopper-v5", "Ant-v5", "Humanoid-v5"])
def test_robots_in_the_middle_of_episodes_are_taken_apart_and_put_together(name):
    assert len(check_problem(Mujoco(name, {"max_episode_steps": 70}))) == 3


def test_a_state_without_the_place_is_caught(monkeypatch):
    monkeypatch.setattr(Mujoco, "make", (lambda make: lambda self, count: spoilt(make(self, count)))(Mujoco.make))
    with pytest.raises(Failed, match=r"`reward` differs after set_state"):
        check_problem(Mujoco("Ant-v5"))


def spoilt(vector):
    give = vector.set_state
    vector.set_state = lambda state: give({**state, "place": torch.zeros_like(state["place"])})
    return vector


def test_a_run_on_robots_resumes_to_the_bit():
    make = partial(ppo, envs=3, horizon=16, minibatches=2, epochs=1)
    assert check_system(make, partial(Mujoco, "Hopper-v5"))[-1] == "resume is bitwise in a fresh process"


def test_a_run_in_two_threads_is_that_in_one_and_resumes(two_threads, tmp_path):
    """To the bit: environments are shared out between them, and policy and critic."""
    system = ppo(envs=3, horizon=40, minibatches=4, epochs=2, value_clip=0.2)
    problem = Mujoco("Hopper-v5", {"max_episode_steps": 30})
    ends = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        for record in train(system, problem, steps=3, seed=5):
            if record.step == 1 and threads == 2:
                save(tmp_path / "first", record.state, {})
        ends.append((record.state, record.metrics))
    state = begin(system, problem, seed=5)
    restore(state, tmp_path / "first")
    again = list(train(system, problem, steps=3, seed=5, state=state))[-1]
    for other, metrics in (ends[1], (again.state, again.metrics)):
        assert metrics == ends[0][1]
        assert all(torch.equal(x, other.state_dict()[name]) for name, x in ends[0][0].state_dict().items() if torch.is_tensor(x))


# ---------------------------------------------------------------------------------- workers


def trouble(how, **more):
    options = {"how": how, **more.pop("options", {})}
    return Gym("Odd-v0", options, **{"workers": 2, "patience": 1.0, **more})


def walk(vector, steps):
    return [vector.step(torch.zeros(vector.count, dtype=torch.long)) for _ in range(steps)]


def test_workers_give_what_one_process_gives():
    one, many = Gym("Hopper-v5").make(5), Gym("Hopper-v5", workers=2).make(5)
    assert torch.equal(one.reset(Stream(1)), many.reset(Stream(1)))
    g, over = torch.Generator().manual_seed(0), 0
    for t in range(60):
        if t == 30:  # the state of one is that of the other
            assert all(torch.equal(x, many.get_state()[name]) for name, x in one.get_state().items())
            many = Gym("Hopper-v5", workers=3).make(5)
            many.set_state(one.get_state() | {"seen": torch.zeros(5, 11)})
        action = torch.randn(5, 3, generator=g)
        a, b = one.step(action), many.step(action)
        over += int(a.terminated.sum())
        assert all(torch.equal(getattr(a, part.name), getattr(b, part.name)) for part in dataclasses.fields(a))
    assert over > 5


@pytest.mark.parametrize("how", ["die", "hang", "raise"])
def test_a_worker_that_fails_once_begins_anew_and_its_episodes_are_truncated(how, tmp_path):
    vector = trouble(how, options={"once": str(tmp_path / "happened")}).make(3)  # environment 0, and 1 and 2
    vector.reset(Stream(0))
    _, before, step, after = walk(vector, 4)
    lost = step.truncated
    assert lost.tolist() in ([True, False, False], [False, True, True])
    assert torch.equal(step.next_obs[lost], before.obs[lost])  # the last that was seen of them
    assert step.reward.tolist() == [0.0 if gone else 1.0 for gone in lost.tolist()]
    assert not torch.equal(step.obs[lost], step.next_obs[lost])
    assert not after.truncated.any()
    assert vector.metrics() == {"worker_restarts": 1.0}
    assert vector.metrics() == {"worker_restarts": 0.0}
    ends = [s.truncated.tolist() for s in walk(vector, 7)]  # the clocks of the others went on; those began anew
    assert [column.index(True) for column in zip(*ends, strict=True)] == [6 if gone else 3 for gone in lost.tolist()]


def test_restarts_are_among_the_metrics_of_a_collection(tmp_path):
    problem = trouble("die", options={"once": str(tmp_path / "happened")})
    state = actor_state(problem, Stream(0), lr=1e-3, envs=2)
    told = rollout(envs=2, horizon=6)(state, problem, Stream(1)).info
    assert told["worker_restarts"] == 1.0
    assert told["episodes"] == 1.0


@pytest.mark.parametrize(("how", "why"), [("die", r"it died \(exit code 3\)"), ("raise", "it raised RuntimeError: out of order")])
def test_a_worker_that_fails_whatever_is_done_ends_the_run(how, why):
    vector = trouble(how, options={"when": 1}, patience=20.0).make(2)
    vector.reset(Stream(0))
    with pytest.raises(RuntimeError, match=rf"Odd-v0: the worker of environments \d to \d failed 3 times in a .*{why}.*workers=0"):
        walk(vector, 5)


def test_failures_that_are_not_in_a_row_do_not_end_it():
    vector = trouble("raise", options={"when": 2}, patience=20.0).make(1)
    vector.reset(Stream(0))
    assert [bool(step.truncated) for step in walk(vector, 8)] == [False, True] * 4
    assert vector.metrics() == {"worker_restarts": 4.0}


def test_numbers_that_are_none_end_the_run_and_name_environment_and_step():
    vector = trouble("nan").make(3)
    vector.reset(Stream(0))
    with pytest.raises(ValueError, match=r"Odd-v0, environment [01], gave the reward nan at step 3 of its episode 1"):
        walk(vector, 3)


def test_workers_end_with_what_they_worked_for():
    vector = trouble("").make(2)
    processes = list(vector.processes)
    assert all(process.is_alive() for process in processes)
    del vector
    assert not any(process.is_alive() for process in processes)


@pytest.mark.slow
def test_a_run_with_workers_resumes_to_the_bit():
    make = partial(ppo, envs=3, horizon=8, minibatches=2, epochs=1)
    assert check_system(make, partial(Gym, "CartPole-v1", workers=2))[-1] == "resume is bitwise in a fresh process"


# ---------------------------------------------------------------------------------- names, and bad input


def test_an_id_stands_for_the_fastest_engine_that_changes_nothing():
    assert find_problem("HalfCheetah-v5").func is Mujoco
    assert find_problem("HalfCheetah-v4").func is Gym
    assert find_problem("CartPole-v1").func is Gym
    assert problem_name(partial(Mujoco, id="Ant-v5")) == "Ant-v5"
    assert problem_name(partial(Gym, id="Ant-v5")) == "Gym"
    assert find_problem("Gym") is Gym
    for package, name, kind in (("minigrid", "MiniGrid-Empty-5x5-v0", MiniGrid), ("ale_py", "ALE/Pong-v5", Atari)):
        with contextlib.suppress(ImportError):
            __import__(package)
            assert find_problem(name).func is kind


@pytest.mark.parametrize(
    ("package", "name", "extra"),
    [
        ("ale_py", "ALE/Pong-v5", "atari"), ("minigrid", "MiniGrid-Empty-5x5-v0", "minigrid"),
        ("minigrid", "BabyAI-GoToObj-v0", "minigrid"),
    ],
)
def test_a_missing_package_is_named_with_its_extra(package, name, extra, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ValueError, match=rf"{name} needs the package {package}.*pip install 'steepest\[{extra}\]'"):
        find_problem(name)


def test_a_missing_envpool_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "envpool", None)
    with pytest.raises(ValueError, match=r"EnvPool\('Pong-v5'\) needs the package envpool.*pip install 'steepest\[envpool\]'"):
        EnvPool("Pong-v5")


def test_what_makes_no_sense_is_said_before_any_work():
    for kind, words, match in (
        (Gym, {"id": "CartPole-v1", "workers": -1}, "workers must be at least 0"),
        (Gym, {"id": "CartPole-v1", "patience": 0.0}, "patience must be positive"),
        (Mujoco, {"id": "HalfCheetah-v5", "threads": -1}, "threads must be at least 0"),
        (Mujoco, {"id": "Reacher-v5"}, "batches of MuJoCo step HalfCheetah-v5, .*not 'Reacher-v5': name it as a Gym"),
        (Mujoco, {"id": "Ant-v5", "episodes": 0}, "episodes must be at least 1"),
    ):
        with pytest.raises(ValueError, match=match):
            kind(**words)
    for problem in (Gym("CartPole-v1", workers=2), Mujoco("Ant-v5")):
        with pytest.raises(ValueError, match="at least one environment is needed, not 0"):
            problem.make(0)
    with pytest.raises(ValueError, match="Ant-v5 does not take the options"):
        Mujoco("Ant-v5", {"legs": 6}).make(1)


def test_atari_options_are_checked():
    pytest.importorskip("ale_py")
    for words, match in (({"sticky": 1.0}, "sticky is a probability"), ({"frames": 0}, "frames must be at least 1")):
        with pytest.raises(ValueError, match=match):
            Atari("ALE/Pong-v5", **words)
    with pytest.raises(ValueError, match="CartPole-v1 is no game"):
        Atari("CartPole-v1")
    with pytest.raises(ValueError, match="does not take the options"):
        Atari("ALE/Pong-v5", {"paddles": 3}).make(1)


def test_atari_threads_change_nothing_and_sticky_actions_are_on():
    pytest.importorskip("ale_py")
    one, two = (Atari("ALE/Pong-v5", threads=n).make(3) for n in (1, 2))
    assert torch.equal(one.reset(Stream(0)), two.reset(Stream(0)))
    g = torch.Generator().manual_seed(0)
    for _ in range(20):
        action = torch.randint(6, (3,), generator=g)
        assert torch.equal(one.step(action).obs, two.step(action).obs)
    seen = Atari("ALE/Pong-v5", sticky=0.0).make(1), Atari("ALE/Pong-v5", sticky=0.9).make(1)
    rows = []
    for vector in seen:
        vector.reset(Stream(0))
        rows.append([vector.step(torch.tensor([2 + i % 2])).obs for i in range(20)])
    assert not all(torch.equal(a, b) for a, b in zip(*rows, strict=True))


class Still(torch.nn.Module):
    def act(self, obs, generator, greedy=False):
        return torch.zeros(len(obs), dtype=torch.long)


def test_an_evaluation_without_a_time_limit_ends_and_says_so():
    with pytest.warns(UserWarning, match="2 of 2 episodes of .*OddEndless-v0.* had not ended after 30 steps"):
        told = greedy(Gym("OddEndless-v0"), Still(), 2, Stream(0), longest=30)
    assert told == {"return": 30.0, "return_std": 0.0, "length": 30.0, "unfinished": 2.0}
    assert "unfinished" not in greedy(Gym("Odd-v0"), Still(), 2, Stream(0), longest=30)


def test_the_vector_of_an_engine_without_news_reports_none():
    assert Vector.metrics(Gym("CartPole-v1").make(1)) == {}
