"""ReLIC: partial updates are PPO's on what is new, with all that came before in attention; and the dark room."""

from functools import partial
from itertools import pairwise, product

import pytest
import torch

from steepest.core import Stream, begin, train
from steepest.core.check import check_problem, check_system
from steepest.core.recurrent import Seen
from steepest.memory.context import Context
from steepest.models.networks import transformer
from steepest.problems.control import CartPole, Pendulum
from steepest.problems.darkroom import DarkRoom
from steepest.systems.on_policy.ppo import ppo
from steepest.systems.on_policy.relic import relic

ROOM = partial(DarkRoom, side=3, horizon=4, trials=3, episodes=2)
NET = {"width": 8, "depth": 2, "heads": 2}
PPO = {"envs": 3, "epochs": 2, "minibatches": 2, "lr": 1e-2}
TINY = {"context": 12, "updates": 3, **NET, **PPO}


def after(system, problem, steps):
    *_, last = train(system, problem, steps=steps)
    return last


# ---------------------------------------------------------------------------------- the system


def test_relic_conforms_in_a_fresh_process():
    """The checkpoint falls inside a context."""
    assert check_system(partial(relic, **TINY), ROOM, half=2)[-1] == "resume is bitwise in a fresh process"


def test_it_takes_actions_that_are_numbers():
    assert check_system(partial(relic, **TINY), partial(Pendulum, limit=5), half=2, fresh=False)[-1] == "resume is bitwise"


@pytest.mark.parametrize("problem", [ROOM(), CartPole(limit=7)], ids=["contexts of L", "episodes across contexts"])
def test_one_update_a_context_is_ppo(problem):
    ours = after(relic(**{**TINY, "updates": 1}), problem, 3)
    theirs = {"horizon": 12, "entropy_weight": 0.01, "max_grad_norm": 0.2, "value_clip": 0.2, "normalize": False}
    same = ppo(model=transformer(**NET, context=12), **theirs, **PPO)
    theirs = after(same, problem, 3)
    assert ours.metrics == theirs.metrics
    mine = ours.state.state_dict()
    for name, x in theirs.state.state_dict().items():
        if isinstance(x, torch.Tensor):
            assert torch.equal(mine[name], x), name


def stale(state, problem, step):
    """What the next decisions see of the context: of the memory in State, and of the whole context read anew."""
    at, start = 4 * step, state.memory.start
    held, obs = state.context.read(at), state.live.obs[:, None]
    policy, memory = state.policy, state.memory.read()
    cached = policy.decide(obs, start[:, None], memory["policy"])[0]
    whole = Seen(torch.cat([held["obs"], obs], 1), torch.cat([held["start"], start[:, None]], 1), state.before.read())
    full = policy.distribution(whole)
    judged = state.critic.read(obs, start[:, None], memory["critic"])[0] - state.critic.value(whole, None, None)[:, -1:]
    return max(float((cached.logits - full.logits[:, -1:]).abs().max()), float(judged.abs().max()))


@pytest.mark.parametrize("problem", [ROOM(), CartPole(limit=7)], ids=["contexts of L", "episodes inside"])
def test_what_is_held_is_what_the_new_weights_make_of_the_context(problem):
    system = relic(**TINY)
    state = begin(system, problem)
    for record in train(system, problem, steps=5, state=state):
        piece = record.step % 3
        if piece:
            with torch.no_grad():
                assert stale(state, problem, piece) < 1e-5
                for p in state.policy.parameters():  # an update that nothing is recomputed after would be seen
                    p.add_(0.1 * torch.randn(p.shape, generator=Stream(record.step).torch()))
                assert stale(state, problem, piece) > 1e-3
                at = Seen(*(state.context.read(4 * piece)[name] for name in ("obs", "start")), state.before.read())
                parts = {"policy": state.policy.remember(at), "critic": state.critic.remember(at)}
                state.memory.write(state.memory.start, parts)


def test_a_partial_update_counts_what_is_new_and_reads_all_before(monkeypatch):
    """What PPO is given: the context so far, a mask of what is new, and log-probabilities that the policy which acted gave."""
    system, problem = relic(**TINY, entropy_weight=0.0), ROOM()
    state, pieces = begin(system, problem), []
    found = []
    critic = type(state.critic)
    successors = critic.successors

    def spied(self, obs, next_obs, asked):
        found.append((obs, next_obs, asked.clone()))
        return successors(self, obs, next_obs, asked)

    monkeypatch.setattr(critic, "successors", spied)
    for step in range(4):
        batch = system.collect(state, problem, Stream(0, step) / "collect")
        if step % 3 == 0:
            pieces = []
        pieces.append(batch)
        before = {name: x.clone() for name, x in state.named_parameters()}
        metrics = system.learn(state, batch, Stream(0, step) / "learn")
        state.step += 1
        obs, next_obs, _ = found[-1]
        assert torch.equal(obs.obs, torch.cat([b.obs.obs for b in pieces], 1))
        assert torch.equal(obs.start, torch.cat([b.obs.start for b in pieces], 1))
        assert torch.equal(next_obs, torch.cat([b.info["next_obs"] for b in pieces], 1))
        assert obs.start[:, 0].all()
        assert not obs.start[:, 1:].any()
        assert metrics["length"] == 4
        assert metrics["score"] == pytest.approx(float(batch.reward.sum(1).mean()))
        assert any(not torch.equal(x, before[name]) for name, x in state.named_parameters())


def test_old_steps_have_no_loss_and_a_gradient():
    """The parent sees mask 0 on old steps until the last update of a context; old observations move what is decided now."""
    problem = ROOM()
    masks = []

    def wrap(epochs):
        def update(state, objective, batch, rng):
            masks.append(batch.mask.sum(1))
            if batch.mask.shape[1] == 8:
                x = batch.obs.obs.clone().requires_grad_()
                seen = batch.having(obs=Seen(x, batch.obs.start, batch.obs.memory))
                objective(state, objective.weigh(seen))[0].backward()
                assert (x.grad[:, :4].abs().sum(-1) > 0).all()
                assert bool((batch.mask[:, :4] == 0).all())
                assert bool((batch.advantage[:, :4] == 0).all())
            return epochs(state, objective, batch, rng)

        return update

    after(relic(**TINY, wrap=wrap), problem, 4)
    assert [x.tolist() for x in masks] == [[4.0] * 3, [4.0] * 3, [12.0] * 3, [4.0] * 3]


@pytest.mark.parametrize(("context", "updates"), [(10, 3), (12, 0), (4, 8)])
def test_a_context_is_cut_into_equal_pieces(context, updates):
    with pytest.raises(ValueError, match=f"context of {context} steps cannot be cut into {updates} pieces"):
        relic(context=context, updates=updates)


def test_a_context_holds_no_more_than_its_steps():
    room = Context(4, x=torch.zeros(2, 3))
    room.write(0, x=torch.ones(2, 3, 3))
    assert room.read(3)["x"].sum() == 18
    with pytest.raises(ValueError, match="steps 3 to 5 do not fit a context of 4"):
        room.write(3, x=torch.ones(2, 2, 3))
    with pytest.raises(ValueError, match=r"has columns \['x'\], the steps have \['y'\]"):
        room.write(0, y=torch.ones(2, 2, 3))
    with pytest.raises(ValueError, match="at least one step, not 0"):
        Context(0, x=torch.zeros(2))


# ---------------------------------------------------------------------------------- the dark room


def test_the_dark_room_obeys_the_laws_of_problems():
    check_problem(ROOM())


def test_the_goal_stays_inside_a_context_and_trials_start_in_the_corner():
    problem = DarkRoom(side=3, horizon=4, trials=3)
    env = problem.make(6)
    obs, goals = env.reset(Stream(0)), []
    g = Stream(1).torch()
    for t in range(36):
        first = t % 4 == 0
        assert torch.equal(obs[:, -1], torch.full((6,), float(first)))
        assert torch.equal(obs[:, :9].sum(1), torch.ones(6))
        if first:
            assert obs[:, 0].all()
        if t % 12 == 0:
            goals.append(env.state[:, 2].copy())
            assert not obs[:, 9:-1].any()
        assert (env.state[:, 2] == goals[-1]).all()
        action = torch.randint(5, (6,), generator=g)
        step = env.step(action)
        assert not step.terminated.any()
        assert step.truncated.all() == step.truncated.any() == (t % 12 == 11)
        assert torch.equal(step.next_obs[:, 9:14], torch.eye(5)[action])
        assert torch.equal(step.next_obs[:, 14], step.reward)
        if t % 4 < 3:  # the cell that is seen is the one that was paid for
            assert torch.equal(step.reward > 0, step.next_obs[:, :9].argmax(1) == torch.from_numpy(goals[-1]).long())
        obs = step.obs
    assert any((a != b).any() for a, b in pairwise(goals))


def test_the_best_return_is_known_by_enumeration():
    """Every sequence of actions of a trial, for every goal: at distance d, 4 - d + 1 steps are paid, all 4 in the corner."""
    problem = DarkRoom(side=3, horizon=4, trials=1)
    plans = torch.tensor(list(product(range(5), repeat=4)))
    env = problem.make(len(plans))
    for goal in range(9):
        env.reset(Stream(0))
        env.state[:, 2] = goal
        score = sum(env.step(plans[:, t]).reward for t in range(4))
        distance = goal // 3 + goal % 3
        assert float(score.max()) == min(4, 4 - distance + 1)


@pytest.mark.parametrize(("option", "said"), [("side", "side must be at least 2, not 0"), ("trials", "trials must be at least 1")])
def test_what_makes_no_room(option, said):
    with pytest.raises(ValueError, match=said):
        DarkRoom(**{option: 0})
