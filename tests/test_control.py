"""The library's own environments are Gymnasium's; their state is complete; a cut episode is worth what lay ahead of it."""

import dataclasses
import math
import pickle

import gymnasium
import numpy as np
import pytest
import torch

from steepest.collectors.rollout import count_episodes, rollout
from steepest.core import State, Stream
from steepest.core.check import Failed, check_problem
from steepest.core.live import Live
from steepest.credit import gae
from steepest.engines.values import values
from steepest.models.build import actor_state
from steepest.problems.control import CartPole, Pendulum, PointMass, Sides

OWN = [CartPole(), Pendulum(), PointMass(), CartPole(limit=13)]


def actions(problem, count, generator):
    space = problem.action_space
    if hasattr(space, "n"):
        return torch.as_tensor(generator.integers(space.n, size=count))
    return torch.as_tensor(1.5 * generator.uniform(space.low, space.high, (count, *space.shape)), dtype=torch.float32)


# ---------------------------------------------------------------------------------- equal to Gymnasium's


@pytest.mark.parametrize(("problem", "name"), [(CartPole(), "CartPole-v1"), (Pendulum(), "Pendulum-v1")])
def test_trajectories_are_gymnasiums_from_the_same_states(problem, name):
    """64 trajectories until they end, each number of each step to 1e-6; actions leave the Box, to see the same clip."""
    generator, env = np.random.default_rng(0), gymnasium.make(name).unwrapped
    vector, compared = problem.make(64), 0
    vector.reset(Stream(1))
    starts = vector.state.copy()
    moves = torch.stack([actions(problem, 64, generator) for _ in range(60)])
    ours = [vector.step(move) for move in moves]
    for i in range(64):
        env.reset()
        env.state, env.steps_beyond_terminated = starts[i].copy(), None
        for t in range(60):
            act = int(moves[t, i]) if name == "CartPole-v1" else moves[t, i].numpy()
            obs, reward, terminated, _, _ = env.step(act)
            step = ours[t]
            assert np.allclose(step.next_obs[i], obs, atol=1e-6, rtol=1e-6)
            assert float(step.reward[i]) == pytest.approx(float(reward), abs=1e-5)
            assert bool(step.terminated[i]) == terminated
            compared += 1
            if terminated:
                break
    assert compared > 1000


@pytest.mark.parametrize("name", ["CartPole-v1", "Pendulum-v1"])
def test_spaces_and_clock_are_gymnasiums(name):
    problem, env = {"CartPole-v1": CartPole(), "Pendulum-v1": Pendulum()}[name], gymnasium.make(name)
    assert np.allclose(problem.observation_space.high, env.observation_space.high)
    assert problem.action_space == env.action_space or np.allclose(problem.action_space.high, env.action_space.high)
    assert problem.limit == env.spec.max_episode_steps


def test_a_point_mass_by_hand():
    place, reward, over = PointMass().move(np.array([[1.0, 0.0, 0.0, 2.0]]), np.array([[3.0, -0.5]], np.float32))
    assert np.allclose(place, [[1.05, 0.875, 0.1, 1.75]])  # the force is clipped to 1; speed 0.9 v + 0.1 f; place + 0.5 v
    assert reward == pytest.approx([-(1.05**2 + 0.875**2) - 0.01 * 1.25])
    assert not over.any()


def test_the_pendulum_reward_knows_the_shorter_way_round():
    _, reward, _ = Pendulum().move(np.array([[2 * math.pi - 0.1, 0.0], [0.1, 0.0]]), np.zeros((2, 1), np.float32))
    assert reward == pytest.approx([-0.01, -0.01])


# ---------------------------------------------------------------------------------- laws


@pytest.mark.parametrize("problem", OWN, ids=str)
def test_own_problems_conform(problem):
    assert len(check_problem(problem)) == 3
    assert pickle.loads(pickle.dumps(problem)) == problem


class Forgetful(Sides):
    """Loses the clock."""

    def set_state(self, state):
        super().set_state({**state, "clock": torch.zeros_like(state["clock"])})


class Bootless(Sides):
    """Shows the next episode's first observation where it should show the last one of this."""

    def step(self, action):
        step = super().step(action)
        return dataclasses.replace(step, next_obs=step.obs)


@dataclasses.dataclass(frozen=True)
class Broken(CartPole):
    kind: type = Forgetful

    def make(self, count):
        return self.kind(self, count)


def test_a_forgotten_clock_is_caught():
    with pytest.raises(Failed, match=r"after set_state\(get_state\(\)\)"):
        check_problem(Broken(limit=13))


def test_resets_are_addressed_by_environment_and_episode():
    alone, many = CartPole(limit=2).make(1), CartPole(limit=2).make(3)
    assert torch.equal(alone.reset(Stream(4)), many.reset(Stream(4))[:1])
    first = many.reset(Stream(4))
    for _ in range(2):
        step = many.step(torch.zeros(3, dtype=torch.long))
    assert step.truncated.all()
    assert not torch.isclose(step.obs, first).any()  # another episode begins elsewhere
    assert len({tuple(row) for row in step.obs.tolist()}) == 3
    assert not torch.equal(many.reset(Stream(5)), first)


@pytest.mark.parametrize("problem", [CartPole(limit=13), Pendulum(limit=13), PointMass(limit=13)], ids=str)
def test_state_comes_back_bitwise_in_the_middle_of_episodes_and_over_their_ends(problem):
    g, one, two = np.random.default_rng(0), problem.make(3), problem.make(3)
    one.reset(Stream(1))
    for _ in range(20):  # in the second episode of each, or a later one
        one.step(actions(problem, 3, g))
    kept = {name: x.clone() for name, x in one.get_state().items()}
    two.reset(Stream(2))
    two.step(actions(problem, 3, g))
    two.set_state(kept)
    ended = 0
    for _ in range(30):
        move = actions(problem, 3, g)
        a, b = one.step(move), two.step(move)
        for part in dataclasses.fields(a):
            assert torch.equal(getattr(a, part.name), getattr(b, part.name))
        ended += int((a.terminated | a.truncated).sum())
    assert ended >= 6
    one.set_state(kept)
    assert all(torch.equal(x, one.get_state()[name]) for name, x in kept.items())  # what was taken is a copy


def test_a_pole_that_falls_when_the_clock_ends_is_terminated_and_not_truncated():
    vector = CartPole(limit=3).make(2)
    vector.reset(Stream(0))
    for _ in range(2):
        vector.step(torch.tensor([0, 0]))
    vector.state[0] = [2.39, 3.0, 0.0, 0.0]  # over the edge with the next step
    step = vector.step(torch.tensor([0, 0]))
    assert step.terminated.tolist() == [True, False]
    assert step.truncated.tolist() == [False, True]


@pytest.mark.parametrize("kind", [CartPole, Pendulum, PointMass])
def test_sizes_that_make_no_sense(kind):
    with pytest.raises(ValueError, match="limit must be at least 1, not 0"):
        kind(limit=0)
    with pytest.raises(ValueError, match="episodes must be at least 1, not -1"):
        kind(episodes=-1)


def test_no_environment_and_no_step():
    with pytest.raises(ValueError, match="at least one environment"):
        CartPole().make(0)
    with pytest.raises(ValueError, match="horizon must be at least 1"):
        rollout(horizon=0)


# ---------------------------------------------------------------------------------- what a cut episode is worth


class Ramp(torch.nn.Module):
    """V(s) = 1 + |cart's place| + 10 |speed of the pole|: known, and different for every state."""

    def value(self, obs, action, mask):
        return 1 + obs[..., 0].abs() + 10 * obs[..., 3].abs()


def advantages(problem):
    """One rollout of CartPole cut after 5 steps, with gae at decay 0: r + 0.9 V(true successor) - V(s)."""
    state = actor_state(problem, Stream(0), lr=1e-3, envs=4)
    batch = rollout(envs=4, horizon=12)(state, problem, Stream(1))
    state.critic = Ramp()
    value, later, terminated, truncated = values(state, batch)
    return batch, gae(batch.reward, value, later, terminated, truncated, discount=0.9, decay=0.0), truncated


def test_truncation_bootstraps_from_the_true_final_observation():
    batch, got, truncated = advantages(CartPole(limit=5))
    assert truncated[:, [4, 9]].all()
    assert int(truncated.sum()) == 8
    v = Ramp().value
    expected = 1 + 0.9 * v(batch.info["next_obs"], None, None) - v(batch.obs, None, None)
    assert torch.allclose(got, expected, atol=1e-6)
    final = true_end(CartPole(limit=5), batch)
    assert torch.allclose(batch.info["next_obs"][:, 4], final, atol=1e-6)


def test_a_trace_that_stops_at_the_cut_by_hand():
    """5 steps at discount 0.9 and decay 0.8, backwards from the end of the first episode of each environment."""
    batch, _, truncated = advantages(CartPole(limit=5))
    v, seen, later = Ramp().value, batch.obs[:, :5].clone(), batch.info["next_obs"][:, :5].clone()
    running, expected = torch.zeros(4), []
    for t in reversed(range(5)):
        running = 1 + 0.9 * v(later[:, t], None, None) - v(seen[:, t], None, None) + 0.9 * 0.8 * running
        expected.insert(0, running)

    def judge(next_obs):
        terminated, values = batch.info["terminated"], [v(x, None, None) for x in (batch.obs, next_obs)]
        return gae(batch.reward, *values, terminated, truncated, discount=0.9, decay=0.8)[:, :5]

    expected = torch.stack(expected, 1)
    assert torch.allclose(judge(batch.info["next_obs"]), expected, atol=1e-5)
    first = batch.info["next_obs"].clone()
    first[:, :-1] = batch.obs[:, 1:]  # where to act next: at a cut, the first observation of another episode
    assert torch.equal(first[:, :4], batch.info["next_obs"][:, :4])
    away = (judge(first) - expected) / 0.72 ** torch.arange(4, -1, -1)
    wrong = 0.9 * (v(first[:, 4], None, None) - v(later[:, 4], None, None))
    assert (wrong.abs() > 0.1).all()
    assert torch.allclose(away, wrong[:, None].expand(4, 5), atol=1e-4)  # the error runs back through the whole episode


def true_end(problem, batch):
    """Where the fifth step really led, computed from the state that the fourth one showed."""
    after, _, _ = problem.move(batch.obs[:, 4].double().numpy(), batch.action[:, 4].numpy())
    return torch.from_numpy(problem.see(after))


def test_an_autoreset_observation_in_its_place_is_another_number_and_is_seen():
    right, wrong = advantages(CartPole(limit=5)), advantages(Broken(limit=5, kind=Bootless))
    cut = right[2]
    assert torch.equal(right[0].action, wrong[0].action)
    assert torch.allclose(right[1][~cut], wrong[1][~cut])
    assert ((right[1] - wrong[1]).abs()[cut] > 1e-3).all()
    final = true_end(CartPole(limit=5), wrong[0])
    assert not torch.isclose(wrong[0].info["next_obs"][:, 4], final, atol=1e-6).all(1).any()


def test_values_inside_an_episode_are_asked_for_once():
    """V(s') is V of what was seen next, so the critic looks at N T states and at the ends alone; the numbers are the same."""
    state = actor_state(CartPole(limit=5), Stream(0), lr=1e-3, envs=4, critic=True)
    batch = rollout(envs=4, horizon=12)(state, CartPole(limit=5), Stream(1))
    with torch.no_grad():
        plain = state.critic.value(batch.info["next_obs"], batch.action, batch.mask)
    before = {name: x.clone() for name, x in batch.info.items() if isinstance(x, torch.Tensor)}
    assert torch.allclose(values(state, batch)[1], plain, atol=1e-6)
    assert all(torch.equal(batch.info[name], x) for name, x in before.items())


def test_a_fallen_pole_is_worth_nothing_more():
    problem = CartPole(limit=500)
    state = actor_state(problem, Stream(0), lr=1e-3, envs=4)
    batch = rollout(envs=4, horizon=60)(state, problem, Stream(1))
    state.critic = Ramp()
    value, later, terminated, truncated = values(state, batch)
    assert terminated.any()
    assert not truncated.any()
    got = gae(batch.reward, value, later, terminated, truncated, discount=0.9, decay=0.95)
    assert torch.allclose(got[terminated], 1 - value[terminated])


# ---------------------------------------------------------------------------------- live environments


def test_a_rollout_goes_on_where_the_last_one_ended():
    problem = CartPole()
    state = actor_state(problem, Stream(0), lr=1e-3, envs=3)
    two = [rollout(envs=3, horizon=10)(state, problem, Stream(i)) for i in range(2)]
    over = (two[0].info["terminated"] | two[0].info["truncated"])[:, -1]
    assert torch.equal(two[1].obs[~over, 0], two[0].info["next_obs"][~over, -1])


def test_buffers_alone_decide_whatever_object_stands_in_the_cache():
    problem = CartPole(limit=9)
    one = State(policy=actor_state(problem, Stream(0), lr=1e-3, envs=3).policy, live=Live(problem, 3, Stream(7)))
    two = State(policy=one.policy, live=Live(problem, 3, Stream(8)))
    collect = rollout(envs=3, horizon=20)
    collect(one, problem, Stream(1))
    two.live.load_state_dict(one.live.state_dict())  # its object is in the middle of other episodes
    a, b = collect(one, problem, Stream(2)), collect(two, problem, Stream(2))
    assert torch.equal(a.obs, b.obs)
    assert torch.equal(a.reward, b.reward)
    assert torch.equal(one.live.score, two.live.score)
    assert pickle.loads(pickle.dumps(one.live))._live_cache is None


def test_a_state_without_environments_says_what_to_do():
    state = actor_state(CartPole(), Stream(0), lr=1e-3, envs=3)
    with pytest.raises(ValueError, match=r"a rollout of 4 environments needs them as `live` in State, which has 3"):
        rollout(envs=4, horizon=2)(state, CartPole(), Stream(1))
    with pytest.raises(ValueError, match=r"a rollout of 3 environments needs .* State, which has none: build it with"):
        rollout(envs=3, horizon=2)(State(policy=state.policy), CartPole(), Stream(1))


def test_what_episodes_earned_is_what_a_plain_loop_over_gymnasium_earns():
    """The actions of four rollouts, played again in Gymnasium's CartPole from the same starts."""
    problem = CartPole(limit=25)
    state = actor_state(problem, Stream(0), lr=1e-3, envs=3)
    starts, envs = state.live.obs.clone(), [gymnasium.make("CartPole-v1").unwrapped for _ in range(3)]
    score, length, ended = [0.0] * 3, [0] * 3, 0
    for env, start in zip(envs, starts, strict=True):
        env.reset()
        env.state = start.double().numpy()
    for i in range(4):
        batch, earned, lasted = rollout(envs=3, horizon=17)(state, problem, Stream(i)), [], []
        for n, env in enumerate(envs):
            for t in range(17):
                _, reward, terminated, _, _ = env.step(int(batch.action[n, t]))
                score[n] += float(reward)
                length[n] += 1
                over = bool(terminated) or length[n] == 25
                assert over == bool((batch.info["terminated"] | batch.info["truncated"])[n, t])
                if over:
                    earned.append(score[n])
                    lasted.append(length[n])
                    score[n], length[n] = 0.0, 0
                    again = batch.obs[n, t + 1] if t < 16 else state.live.obs[n]
                    env.reset()
                    env.state = again.double().numpy()
        assert batch.info.get("episodes", 0) == len(earned)
        if earned:
            assert batch.info["return"] == pytest.approx(np.mean(earned))
            assert batch.info["episode_length"] == pytest.approx(np.mean(lasted))
        assert state.live.score.tolist() == score
        assert state.live.length.tolist() == length
        ended += len(earned)
    assert ended > 5


def test_episodes_are_counted_across_collections():
    g = torch.Generator().manual_seed(0)
    problem = CartPole()
    live = Live(problem, 4, Stream(0))
    running, lengths, seen = [0.0] * 4, [0] * 4, []
    for _ in range(30):
        reward, over = torch.randn(4, 7, generator=g), torch.rand(4, 7, generator=g) < 0.15
        told = count_episodes(live, reward, over)
        ended = []
        for n in range(4):
            for t in range(7):
                running[n] += float(reward[n, t])
                lengths[n] += 1
                if over[n, t]:
                    ended.append((running[n], lengths[n]))
                    running[n], lengths[n] = 0.0, 0
        assert torch.allclose(live.score, torch.tensor(running).double())
        assert live.length.tolist() == lengths
        assert told.get("episodes", 0) == len(ended)
        if ended:
            assert told["return"] == pytest.approx(np.mean([score for score, _ in ended]))
            assert told["episode_length"] == pytest.approx(np.mean([length for _, length in ended]))
        seen += ended
    assert len(seen) > 50


def test_an_evaluation_counts_the_first_episode_of_each_environment():
    class Right(torch.nn.Module):
        def act(self, obs, generator, greedy=False):
            return torch.ones(len(obs), dtype=torch.long)

    told = CartPole(episodes=7).evaluate(Right(), Stream(3))
    vector, lengths = CartPole().make(7), [0] * 7
    vector.reset(Stream(3) / "reset")
    open_ = [True] * 7
    while any(open_):
        step = vector.step(torch.ones(7, dtype=torch.long))
        lengths = [n + o for n, o in zip(lengths, open_, strict=True)]
        open_ = [o and not e for o, e in zip(open_, step.terminated.tolist(), strict=True)]
    assert told["return"] == pytest.approx(np.mean(lengths))
    assert told["length"] == pytest.approx(np.mean(lengths))
    assert told["return_std"] == pytest.approx(np.std(lengths))
