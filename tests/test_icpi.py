import itertools
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import pytest
import torch

from steepest.core import Stream, begin, train
from steepest.models.chat import BadEndpoint, BudgetExceeded
from steepest.problems.scripted import MODEL, Brain, InductionBrain, ScriptedServer
from steepest.problems.textmdp import Chain, Maze
from steepest.systems.agents.icpi import icpi
from steepest.systems.agents.q_learning import q_learning

PERFECT = {"noise": 0.0, "temperature": 0.0, "prompt_size": 10_000}
HORIZON = 8


@dataclass(frozen=True)
class Spy(Brain):
    """Answers as another brain does and remembers the prompts."""

    brain: Brain = InductionBrain()  # noqa: RUF009 (frozen)
    prompts: list = field(default_factory=list, compare=False)

    def reply(self, messages, options, rng):
        self.prompts.append(messages[0]["content"])
        return self.brain.reply(messages, options, rng)


@dataclass(frozen=True)
class Babble(Brain):
    """Never says anything valid."""

    def reply(self, messages, options, rng):
        return "well, it depends"


def live(problem, state, actions):
    """The trajectory from `state` that takes `actions` (or follows a rule), as a row for the memory."""
    columns = {name: [] for name in ("obs", "next_obs", "action", "reward", "terminated", "mask")}
    cells, alive = torch.tensor([state]), True
    for t in range(problem.horizon):
        action = torch.tensor([actions(t, *cells[0].tolist())])
        after, reward, ended = problem.move(cells, action, torch.Generator())
        now = (cells[0].float(), after[0].float(), action[0], reward[0], ended[0], torch.tensor(float(alive)))
        for name, x in zip(columns, now, strict=True):
            columns[name].append(x if alive else torch.zeros_like(x))
        cells, alive = after, alive and not bool(ended)
    return {name: torch.stack(rows)[None] for name, rows in columns.items()}


def full(problem, rule, **options):
    """A State whose memory holds every state and action, then the trajectories of `rule` from every state."""
    starts = [(x,) for x in range(problem.length)]
    state = begin(icpi(recent=len(starts), **PERFECT, **options), problem)
    for start in starts:
        for first in range(3):
            state.policy.memory.write(**live(problem, start, lambda t, x, first=first: rule(x) if t else first))
    for start in starts:
        state.policy.memory.write(**live(problem, start, lambda t, x: rule(x)))
    return state


def values(state, obs, seed=0):
    policy = state.policy
    return policy.past().values([policy.problem.write_state(tuple(row)) for row in obs.long().tolist()], Stream(seed))


RULES = {
    "walks to the goal and tries": (lambda x: 1 if x == 4 else 2 * (x < 4), lambda x: 0.8 ** abs(x - 4), 0.0),
    "tries where it stands": (lambda x: 1, lambda x: float(x == 4), -1.0),
}


@pytest.mark.parametrize("name", RULES)
def test_with_a_perfect_model_q_is_the_rollout_policys_return(name):
    rule, worth, threshold = RULES[name]
    problem = Chain()
    state = full(problem, rule, threshold=threshold)
    obs = torch.arange(8.0)[:, None]
    expected = [[0.8 * worth(max(x - 1, 0)), float(x == 4), 0.8 * worth(min(x + 1, 7))] for x in range(8)]
    np.testing.assert_allclose(values(state, obs), expected, atol=1e-12)
    action = state.policy.act(obs, torch.Generator().manual_seed(0), greedy=True)
    assert all(expected[x][a] == max(expected[x]) for x, a in enumerate(action.tolist()))


def test_without_argmax_it_acts_as_the_rollout_policy():
    state = full(Chain(), lambda x: 1, threshold=-1.0, argmax=False)
    action = state.policy.act(torch.arange(8.0)[:, None], torch.Generator().manual_seed(0), greedy=True)
    assert action.tolist() == [1] * 8


def test_values_of_text_are_values_of_numbers():
    problem = Chain()
    past = full(problem, lambda x: 1 if x == 4 else 2 * (x < 4)).policy.past()
    columns = full(problem, lambda x: 1 if x == 4 else 2 * (x < 4)).policy.memory.read()
    episodes = past.tell(columns)
    discount = problem.gamma ** torch.arange(HORIZON, dtype=torch.float64)
    for episode, reward in zip(episodes, columns["reward"], strict=True):
        told = sum(problem.gamma**t * problem.read_reward(step.reward) for t, step in enumerate(episode))
        assert told == past.value(episode) == pytest.approx(float((discount * reward).sum()))


def test_no_prompt_contains_a_transition_that_was_not_lived_before():
    problem, spy = Chain(distractors=3), Spy()
    with ScriptedServer(spy) as server:
        system = icpi(endpoint=server.url, model=MODEL, min_successes=0)
        state = begin(system, problem)
        act, asked = state.policy.act, 0

        def watched(obs, generator, greedy=False):
            nonlocal asked
            spy.prompts.clear()
            action = act(obs, generator, greedy)
            told = state.policy.memory.read()
            lived = torch.cat([told["obs"][told["mask"] > 0], told["next_obs"][told["mask"] > 0], obs]).long().tolist()
            known = {problem.write_state(tuple(row)) for row in lived}
            asked += len(spy.prompts)
            for prompt in spy.prompts:
                assert {line for line in prompt.split("\n") if line.startswith("state")} <= known
            return action

        state.policy.act = watched
        for record in train(system, problem, steps=30, state=state):
            assert record.metrics["calls"] == int(state.policy.meter.spent[0])
    assert asked > 100


def test_world_prompts_hold_one_action_and_balance_what_they_teach():
    state = full(Chain(), lambda x: 1 if x == 4 else 2 * (x < 4))
    past = state.policy.past()
    draw = np.random.default_rng(0)
    for line, answers in (("end", ["ended: yes"]), ("reward", ["reward: 0.0", "reward: 1.0"])):
        *examples, query = past.question(line, "state: 4, at the goal", 1).prompt(draw).split("\n\n")
        assert query == "state: 4, at the goal\naction: try\n"
        assert {example.split("\n")[1] for example in examples} == {"action: try"}
        assert sorted({example.split("\n")[2] for example in examples}) == answers
        counts = [sum(example.endswith(answer) for example in examples) for answer in answers]
        assert len(set(counts)) == 1
    small = begin(icpi(prompt_size=6), Chain())
    small.policy.memory.load_state_dict(state.policy.memory.state_dict())
    prompt = small.policy.past().question("reward", "state: 4, at the goal", 1).prompt(draw)
    assert prompt.count("\n\n") == 6


def test_the_policy_prompt_holds_successful_pieces_only():
    problem = Chain()
    state = begin(icpi(recent=2), problem)
    for start, actions in ((2, (2, 2, 1)), (0, (0, 1)), (3, (2, 1)), (4, (1,))):
        state.policy.memory.write(**live(problem, (start,), lambda t, x, a=actions: a[min(t, len(a) - 1)]))
    past = state.policy.past()
    assert past.successes == 2
    assert sorted(piece.count("action") for piece in past.segments) == [1, 1, 2]
    assert all(piece.endswith("action: try\nreward: 1.0\n") for piece in past.segments)
    assert past.ready


def test_a_model_that_babbles_is_no_worse_than_chance():
    with ScriptedServer(Babble()) as server:
        state = full(Chain(), lambda x: 1)
        babbling = begin(icpi(endpoint=server.url, model=MODEL, recent=8, prompt_size=2), Chain())
        babbling.load_state_dict(state.state_dict())
        action = babbling.policy.act(torch.zeros(150, 1) + 4, torch.Generator().manual_seed(0), greedy=True)
    assert torch.bincount(action, minlength=3).min() > 30


def test_before_it_knows_anything_it_acts_at_random_without_a_call():
    state = begin(icpi(), Chain())
    counts = torch.bincount(state.policy.act(torch.zeros(300, 1), torch.Generator().manual_seed(1), greedy=True), minlength=3)
    assert counts.min() > 60
    assert state.policy.meter.read()["calls"] == 0


def test_it_learns_the_chain_from_text_alone():
    records = [r.metrics for r in train(icpi(max_steps=6), Chain(), steps=60, seed=3)]
    assert np.mean([m["regret"] for m in records[:10]]) > 0.25
    assert np.mean([m["regret"] for m in records[-25:]]) < 0.05


def test_the_budget_holds_and_the_state_survives():
    system, problem = icpi(max_calls=50, min_successes=0), Chain()
    state = begin(system, problem)
    with pytest.raises(BudgetExceeded, match="of 50 calls"):
        for _ in train(system, problem, steps=100, state=state):
            pass
    assert 0 < state.policy.meter.read()["calls"] <= 50
    assert state.step == len(state.policy.memory)


def test_an_unreachable_endpoint_says_the_way_out():
    problem = Chain()
    knowing = full(problem, lambda x: 1, threshold=-1.0)
    state = begin(icpi(endpoint="http://127.0.0.1:1/v1", recent=8, threshold=-1.0), problem)
    state.load_state_dict(knowing.state_dict())
    with pytest.raises(BadEndpoint, match="no server listens there"):
        state.policy.act(torch.zeros(1, 1), torch.Generator(), greedy=True)


def test_what_it_cannot_tell_in_words_is_refused():
    class Wordless:
        action_space = "Box(-1, 1)"

    for system in (icpi(), q_learning()):
        with pytest.raises(TypeError, match="not a TextMDP"):
            begin(system, Wordless())
    with pytest.raises(ValueError, match="http://localhost:8000/v1"):
        begin(icpi(endpoint="localhost"), Chain())


@pytest.mark.parametrize(
    "options",
    [{"recent": 0}, {"prompt_size": 0}, {"max_resamples": 0}, {"max_steps": 0}, {"max_tokens": 0}, {"noise": 2.0}, {"capacity": 0}],
)
def test_bad_options_are_refused(options):
    with pytest.raises(ValueError, match=r"at least|probability"):
        begin(icpi(**options), Chain())


@pytest.mark.parametrize("problem", [Chain, pytest.param(Maze, marks=pytest.mark.slow), partial(Chain, distractors=1)])
def test_icpi_conforms(problem):
    check = pytest.importorskip("steepest.core.check")
    check.check_system(partial(icpi, min_successes=1, noise=0.1, max_steps=3), problem, half=8, fresh=problem is Chain)


def test_q_learning_conforms():
    pytest.importorskip("steepest.core.check").check_system(q_learning, Maze, half=5, fresh=False)


def test_one_step_of_q_learning_by_hand():
    problem = Chain()
    system = q_learning(lr=0.5, initial=0.25)
    state = begin(system, problem)
    row = live(problem, (3,), lambda t, x: 2 if t == 0 else 1)
    batch = problem.play(state.policy, 1, Stream(0), greedy=True)
    info = {"next_obs": row["next_obs"], "terminated": row["terminated"]}
    system.learn(
        state, batch.having(obs=row["obs"], action=row["action"], reward=row["reward"], mask=row["mask"], info=info), Stream(0)
    )
    table = state.policy.table
    assert float(table[3, 2]) == pytest.approx(0.25 + 0.5 * (0.8 * 0.25 - 0.25))
    assert float(table[4, 1]) == pytest.approx(0.25 + 0.5 * (1 - 0.25))
    assert int((table != 0.25).sum()) == 2


def test_q_learning_finds_the_optimal_values():
    *_, last = train(q_learning(lr=1.0, epsilon=1.0), Chain(), steps=600)
    best = 0.8 ** (torch.arange(8) - 4).abs().double()
    torch.testing.assert_close(last.state.policy.table.amax(1), best)


@pytest.mark.slow
def test_competence_of_the_model_decides():
    """More noise, more regret; at noise 1 no better than chance."""
    problem = Chain()

    def regret(noise):
        runs = [
            [r.metrics["regret"] for r in train(icpi(noise=noise, max_steps=6), problem, steps=60, seed=seed)] for seed in range(3)
        ]
        return np.mean([run[-30:] for run in runs])

    curve = [regret(noise) for noise in (0.0, 0.15, 0.3, 0.5, 1.0)]
    assert all(a < b + 0.03 for a, b in itertools.pairwise(curve))
    assert curve[3] > curve[0] + 0.1
    chance = np.mean([r.metrics["regret"] for r in train(q_learning(epsilon=1.0), problem, steps=400)])
    assert curve[4] == pytest.approx(chance, abs=0.1)
