"""Karel: the language reads back what it writes, programs do what they say and end, tasks pay for progress; HPRL and LEAPS."""

from functools import partial

import numpy as np
import pytest
import torch

from steepest.core import Stream, begin, train
from steepest.core.check import check_problem, check_system
from steepest.evidence.claim import Run
from steepest.evidence.on_policy.hprl import claim
from steepest.problems.control import CartPole
from steepest.problems.karel import SIDE, CleanHouse, FourCorners, Harvester, Maze
from steepest.problems.programs import ACTIONS, SENSES, World, library, parse
from steepest.systems.on_policy.hprl import hprl
from steepest.systems.on_policy.leaps import leaps
from steepest.systems.on_policy.ppo import ppo

TASKS = (FourCorners, Harvester, CleanHouse, Maze)
small_hprl = partial(hprl, epochs=2, minibatches=2, envs=3, horizon=8, width=8)
SMALL = partial(FourCorners, size=20, tokens=12, limit=20, episodes=4)


def world(pose=(2, 2, 1), limit=1000, markers=(), walls=(), judge=lambda world: False):
    grids = [[[0] * SIDE for _ in range(SIDE)] for _ in range(2)]
    for grid, cells in zip(grids, (markers, walls), strict=True):
        for row, column in cells:
            grid[row][column] = 1
    return World(pose, *grids, limit, judge)


def told(text):
    return parse(f"DEF run m( {text} m)")


def after(text, **options):
    found = world(**options)
    found.run(told(text))
    return found


def place(found):
    return found.row, found.column, found.facing


# ---------------------------------------------------------------------------------- the language


def test_every_program_of_a_library_reads_back_as_itself():
    found = library(150, 20, np.random.default_rng(0))
    assert len(set(map(str, found))) == 150
    assert all(parse(str(program)) == program for program in found)
    assert all(len(program.words()) <= 20 for program in found)
    words = {word for program in found for word in program.words()}
    assert {*ACTIONS, *SENSES, "WHILE", "REPEAT", "IF", "IFELSE", "not"} <= words


@pytest.mark.parametrize(
    ("text", "index", "wanted"),
    [
        ("DEF run m( m)", 3, "move"),
        ("run m( move m)", 0, "DEF"),
        ("DEF run m( move", 4, "move"),
        ("DEF run m( move m) move", 5, "the end"),
        ("DEF run m( jump m)", 3, "move"),
        ("DEF run m( REPEAT R=20 r( move r) m)", 4, "R=19"),
        ("DEF run m( WHILE c( move c) w( move w) m)", 5, "frontIsClear"),
        ("DEF run m( IFELSE c( frontIsClear c) i( move i) m)", 10, "ELSE"),
        ("DEF run m( IF c( not c( leftIsClear c) i( move i) m)", 9, "'c\\)'"),
    ],
)
def test_what_is_no_program_is_refused_with_the_token(text, index, wanted):
    with pytest.raises(ValueError, match=f"token {index} of the program .*{wanted}"):
        parse(text)


def test_a_library_that_cannot_be_filled_is_refused():
    with pytest.raises(ValueError, match="different programs of at most 5 tokens"):
        library(20, 5, np.random.default_rng(0))


# ---------------------------------------------------------------------------------- what programs do


def test_actions_and_perceptions():
    assert place(after("move")) == (2, 3, 1)
    assert place(after("turnLeft move")) == (1, 2, 0)
    assert place(after("turnRight move")) == (3, 2, 2)
    assert place(after("move", walls=[(2, 3)])) == (2, 2, 3)  # blocked: it turns round
    assert place(after("move", pose=(0, 5, 1))) == (0, 5, 3)
    assert after("putMarker").markers[2][2] == 1
    assert after("pickMarker", markers=[(2, 2)]).markers[2][2] == 0
    seen = world(pose=(0, 2, 1), walls=[(0, 3)], markers=[(0, 2)])
    assert {name for name in SENSES if seen.test(name)} == {"rightIsClear", "markersPresent"}


def test_control_flow():
    assert place(after("REPEAT R=3 r( move r)")) == (2, 5, 1)
    assert place(after("WHILE c( frontIsClear c) w( move w)")) == (2, 5, 1)
    assert place(after("WHILE c( not c( markersPresent c) c) w( move w)", markers=[(2, 4)])) == (2, 4, 1)
    assert place(after("IF c( markersPresent c) i( move i) turnLeft")) == (2, 2, 0)
    assert place(after("IFELSE c( markersPresent c) i( move i) ELSE e( turnRight e)")) == (2, 2, 2)


@pytest.mark.parametrize("text", ["REPEAT R=0 r( move r)", "WHILE c( markersPresent c) w( move w)"])
def test_no_repetition_and_a_false_guard_do_nothing(text):
    found = after(text)
    assert place(found) == (2, 2, 1)
    assert not found.late
    assert not any(map(sum, found.markers))


@pytest.mark.parametrize(
    "text",
    ["WHILE c( noMarkersPresent c) w( turnLeft w)", "WHILE c( noMarkersPresent c) w( WHILE c( markersPresent c) w( move w) w)"],
)
def test_the_limit_ends_what_would_never_end_and_says_so(text):
    found = after(text, limit=30)
    assert found.late
    assert found.left == 0
    assert not after("move move", limit=2).late


def test_a_task_that_is_over_stops_its_program():
    found = after("move move move", judge=lambda world: world.column == 4)
    assert found.over
    assert place(found) == (2, 4, 1)


# ---------------------------------------------------------------------------------- tasks


@pytest.mark.parametrize("task", TASKS)
def test_tasks_conform(task):
    check_problem(task(size=30, programs=4))


def ran(problem, *texts, seed=0):
    """Rewards of programs that follow one another in one world, and how it ended."""
    vector = problem.make(1)
    vector.reset(Stream(seed))
    found = [vector.run(0, told(text)) for text in texts]
    return [reward for reward, _ in found], found[-1][1]


def test_four_corners_pays_a_quarter_for_each_and_stops_at_a_marker_elsewhere():
    corner = "WHILE c( frontIsClear c) w( move w) putMarker turnLeft"
    rewards, over = ran(FourCorners(), corner, corner, "turnRight turnLeft", corner, corner)
    assert rewards == [0.25, 0.25, 0.0, 0.25, 0.25]
    assert over
    assert ran(FourCorners(), corner, "move putMarker") == ([0.25, 0.0], True)
    assert ran(FourCorners(), corner, "pickMarker") == ([0.25, -0.25], False)


def test_harvester_pays_for_every_marker_that_is_gone():
    row = "WHILE c( markersPresent c) w( pickMarker move w)"
    rewards, over = ran(Harvester(), row, "turnLeft turnLeft putMarker")
    assert rewards[0] == pytest.approx(SIDE / SIDE**2)
    assert rewards[1] == pytest.approx(-1 / SIDE**2)
    assert not over


@pytest.mark.parametrize("task", TASKS)
def test_first_worlds_make_sense(task):
    """The robot and every marker stand on open cells that can be reached from one another."""
    for seed in range(20):
        (row, column, facing), markers, walls = task().start(np.random.default_rng(seed))
        assert 0 <= facing < 4
        reached, edge = {(row, column)}, [(row, column)]
        while edge:
            r, c = edge.pop()
            for near in ((r + 1, c), (r - 1, c), (r, c + 1), (r, c - 1)):
                if near not in reached and 0 <= near[0] < SIDE and 0 <= near[1] < SIDE and not walls[near]:
                    reached.add(near)
                    edge.append(near)
        assert not walls[row, column]
        assert all((r, c) in reached for r, c in zip(*markers.nonzero(), strict=True))
        assert int(markers.sum()) == {FourCorners: 0, Harvester: SIDE**2, CleanHouse: 4, Maze: 1}[task]


def test_an_episode_is_as_many_programs_as_it_says_and_rewards_add_up_to_the_progress():
    problem = Harvester(size=30, programs=3)
    vector = problem.make(2)
    obs = vector.reset(Stream(0))
    total = torch.zeros(2)
    for left in (1, 2 / 3, 1 / 3):
        assert obs[:, -1].tolist() == pytest.approx([left] * 2)
        step = vector.step(torch.tensor([7, 11]))
        total += step.reward
        obs = step.obs
    assert step.truncated.all()
    assert not step.terminated.any()
    gone = 1 - step.next_obs[:, : SIDE**2].mean(1)
    assert torch.allclose(total, gone, atol=1e-6)
    assert (obs[:, : SIDE**2] == 1).all()


# ---------------------------------------------------------------------------------- systems


@pytest.mark.parametrize(("make", "fresh"), [(small_hprl, True), (partial(leaps, worlds=2), False)], ids=["hprl", "leaps"])
def test_systems_conform(make, fresh):
    assert check_system(make, SMALL, fresh=fresh)[-1].startswith("resume is bitwise")


def test_hprl_is_ppo_with_programs_for_actions():
    options = {"entropy_weight": 0.05, "lr": 1e-3, "epochs": 2, "minibatches": 2, "envs": 3, "horizon": 8, "width": 8}
    moved = []
    for system in (hprl(**options), ppo(**options)):
        *_, record = train(system, SMALL(), steps=2)
        moved.append(record.state.policy.net.theta.detach().clone())
    assert torch.equal(*moved)


def test_with_one_program_the_best_policy_in_the_mean_is_the_best_program():
    """Horizon 1 has the decisions that LEAPS has: no choice of a program for each world can be worse than one for all."""
    problem = SMALL(programs=1)
    record = list(train(leaps(worlds=8), problem, steps=2))[-1]
    policy = record.state.policy
    returns = policy.earned / policy.tried
    assert record.metrics["return"] == pytest.approx(float(returns.max()))
    assert problem.action_space.n == SMALL(programs=5).action_space.n == len(returns)
    vector = problem.make(8)
    vector.reset(Stream(0, 1) / "collect" / "worlds")
    best = int(returns.argmax())
    second = float(vector.step(torch.full((8,), best)).reward.mean())
    assert float(returns[best]) == pytest.approx((second + float(first_mean(problem, best))) / 2)


def first_mean(problem, program):
    vector = problem.make(8)
    vector.reset(Stream(0, 0) / "collect" / "worlds")
    return vector.step(torch.full((8,), program)).reward.mean()


def test_leaps_does_nothing_after_its_program():
    problem = SMALL(programs=3)
    *_, record = train(leaps(worlds=4), problem, steps=1)
    best = int(record.metrics["program"])
    vector = problem.make(2)
    obs, acts = vector.reset(Stream(0)), []
    for _ in range(3):
        acts.append(record.state.policy.act(obs, Stream(0).torch(), True))
        step = vector.step(acts[-1])
        before, obs = obs, step.obs
    assert [a.tolist() for a in acts] == [[best] * 2, [0, 0], [0, 0]]
    assert torch.equal(step.next_obs[:, :-1], before[:, :-1])


def test_bad_input_is_refused():
    with pytest.raises(TypeError, match="composes programs"):
        begin(small_hprl(), CartPole())
    with pytest.raises(ValueError, match="programs must be at least 1"):
        FourCorners(programs=0)
    with pytest.raises(ValueError, match="at least one world"):
        leaps(worlds=0)


def test_the_claim_runs():
    problem = claim.problem(seed=100, size=20, episodes=2)
    for arm in (partial(claim.ours, envs=2, horizon=8), partial(claim.baseline, worlds=1)):
        steps = list(train(arm(), problem, steps=1, seed=100))
        assert -1 <= claim.measure(Run(100, [r.metrics for r in steps], steps[-1].state, problem)) <= 1
