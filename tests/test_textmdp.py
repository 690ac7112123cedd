import itertools
from dataclasses import dataclass

import pytest
import torch

from steepest.core import Stream
from steepest.memory.trajectories import TrajectoryStore
from steepest.problems.textmdp import Chain, Maze

PROBLEMS = [Chain(), Chain(distractors=1), Chain(hint=False), Maze(), Chain(length=3, goal=0, horizon=3)]


@pytest.fixture(params=PROBLEMS, ids=str)
def problem(request):
    return request.param


def all_states(problem):
    return torch.tensor(list(itertools.product(*map(range, problem.sizes))))


@dataclass
class Fixed:
    """Acts by a rule on the state."""

    rule: object

    def act(self, obs, generator, greedy=False):
        return torch.tensor([self.rule(*row) for row in obs.long().tolist()])


def test_what_is_written_reads_back_exactly(problem):
    for cells in map(tuple, all_states(problem).tolist()):
        assert problem.read_state(problem.write_state(cells)) == cells
    for action in range(len(problem.actions)):
        assert problem.read_action(problem.write_action(action)) == action
    for reward in (0.0, 1.0, -1.0, 0.1, 1 / 3, 1e-9, -12345.678, 3e20):
        assert problem.read_reward(problem.write_reward(reward)) == reward
    for ended in (False, True):
        assert problem.read_end(problem.write_end(ended)) is ended


@pytest.mark.parametrize(
    "text",
    ["", "state:", "state: 8, not at the goal", "state: 4, not at the goal", "state: 1", "state: 1 2, at the goal", "action: left"],
)
def test_an_invalid_state_is_not_read(text):
    assert Chain().read_state(text) is None


@pytest.mark.parametrize("text", ["", "action: jump", "action: left ", "left", "reward: 1"])
def test_an_invalid_action_is_not_read(text):
    assert Chain().read_action(text) is None
    assert Chain().read_end(text) is None


@pytest.mark.parametrize("text", ["reward: yes", "reward: 1.0.0", "reward: nan", "1.0", "reward: inf"])
def test_an_invalid_reward_is_not_read(text):
    assert Chain().read_reward(text) is None


def test_a_stop_mark_inside_a_state_is_refused():
    class Broken(Chain):
        def remark(self, cells):
            return "two\nlines"

    with pytest.raises(ValueError, match="stop mark"):
        Broken().write_state((1,))


def test_states_are_numbered_once(problem):
    assert sorted(problem.index(all_states(problem)).tolist()) == list(range(problem.states))


def test_the_optimum_is_the_best_of_all_plans(problem):
    """Dynamic programming over the clock, on the transition function alone."""
    states = all_states(problem)
    free = problem.optimum(states) <= 1  # a wall has no optimum
    generator, value = torch.Generator(), torch.zeros(len(states))
    for _ in range(problem.horizon):
        q = []
        for action in range(len(problem.actions)):
            after, reward, ended = problem.move(states, torch.full((len(states),), action), generator)
            q.append(reward + problem.gamma * torch.where(ended, 0.0, value[problem.index(after)]))
        value = torch.stack(q).amax(0)
    possible = torch.zeros(len(states), dtype=torch.bool)
    possible[problem.index(problem.start(2000, generator))] = True
    assert bool((possible <= free).all())
    torch.testing.assert_close(value[possible], problem.optimum(states[possible]).float())


def test_a_known_policy_earns_what_it_must():
    chain = Chain()
    best = Fixed(lambda x: 1 if x == 4 else 2 * (x < 4))
    assert chain.evaluate(best, Stream(0))["regret"] == pytest.approx(0, abs=1e-6)
    batch = chain.play(Fixed(lambda x: 0), 5, Stream(1), greedy=True).check()
    assert batch.mask.sum(1).tolist() == [8] * 5
    assert not batch.info["terminated"].any()
    assert batch.info["truncated"][:, -1].all()
    tried = chain.play(Fixed(lambda x: 1), 64, Stream(2), greedy=True)
    assert tried.mask[:, 0].all()
    assert not tried.mask[:, 1:].any()
    assert torch.equal(tried.reward[:, 0], (tried.obs[:, 0, 0] == 4).float())
    assert chain.figures(tried)["return"] == pytest.approx(float(tried.reward[:, 0].mean()))


def test_play_is_a_function_of_its_address(problem):
    policy = Fixed(lambda *cells: sum(cells) % len(problem.actions))
    one, two, other = (problem.play(policy, 4, Stream(k), greedy=True) for k in (0, 0, 1))
    assert torch.equal(one.obs, two.obs)
    assert torch.equal(one.reward, two.reward)
    assert not torch.equal(one.obs, other.obs)


def test_environments_obey_the_contract(problem):
    check = pytest.importorskip("steepest.core.check")
    check.check_problem(problem)


def test_walls_and_borders_stop():
    maze = Maze()
    after, _, _ = maze.move(torch.tensor([[0, 0], [0, 1], [1, 2]]), torch.tensor([0, 3, 3]), torch.Generator())
    assert after.tolist() == [[0, 0], [0, 1], [1, 3]]
    _, reward, ended = maze.move(torch.tensor([[0, 0], [2, 0]]), torch.tensor([1, 0]), torch.Generator())
    assert reward.tolist() == [1.0, 1.0]
    assert ended.all()


@pytest.mark.parametrize(
    "make",
    [
        lambda: Chain(goal=8),
        lambda: Chain(distractors=-1),
        lambda: Chain(horizon=4),
        lambda: Maze(rows=("..",)),
        lambda: Maze(rows=("G.", "...")),
        lambda: Maze(rows=("G#.",)),
        lambda: Maze(rows=("G....",), horizon=3),
        lambda: Chain().make(0),
    ],
)
def test_impossible_problems_are_refused(make):
    with pytest.raises(ValueError, match=r"goal|horizon|maze|reach|at least one"):
        make()


def test_the_store_keeps_the_last_trajectories_in_order():
    store = TrajectoryStore(3, 2, obs=torch.zeros(1), action=torch.zeros((), dtype=torch.long))
    assert len(store.read()["obs"]) == 0

    def rows(k):
        x = torch.full((1, 2), float(k))
        return dict(obs=x[..., None], next_obs=x[..., None] + 1, action=x.long(), reward=x, mask=torch.ones(1, 2), terminated=x > 2)

    for k in range(5):
        store.write(**rows(k))
        assert store.read()["reward"][:, 0].tolist() == list(range(max(0, k - 2), k + 1))
    copy = TrajectoryStore(3, 2, obs=torch.zeros(1), action=torch.zeros((), dtype=torch.long))
    copy.load_state_dict(store.state_dict())
    assert all(torch.equal(x, copy.read()[name]) for name, x in store.read().items())
    with pytest.raises(ValueError, match="at least one step"):
        TrajectoryStore(3, 0, obs=torch.zeros(1), action=torch.zeros(()))
