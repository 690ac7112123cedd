"""TD3+BC, behaviour cloning, DPPO and chunk PPO: their targets by hand, their limits, and the laws of every system."""

import dataclasses
from functools import partial

import pytest
import torch

from steepest.core import Stream, begin, train
from steepest.core.check import check_problem, check_system
from steepest.models.diffusion import DiffusionPolicy
from steepest.problems.offline import PendulumData
from steepest.problems.reach import MultiReach2D
from steepest.systems.generative import chunk_ppo as tuning
from steepest.systems.generative.chunk_ppo import chunk_ppo
from steepest.systems.generative.dppo import dppo
from steepest.systems.offline.bc import bc
from steepest.systems.offline.td3_bc import q_scale, td3_bc, td_target

SMALL = {"envs": 8, "horizon": 4, "demos": 20, "pretrain": 5, "hidden": 16}
DATA = partial(PendulumData, steps=800)
SYSTEMS = {
    "bc": (partial(bc, hidden=16, updates=4), DATA),
    "td3_bc": (partial(td3_bc, hidden=16, updates=4), DATA),
    "chunk_ppo": (partial(chunk_ppo, **SMALL), MultiReach2D),
    "dppo": (partial(dppo, steps=5, tuned=3, **SMALL), MultiReach2D),
}


def test_td_target_stops_at_terminal_states_only():
    ended = torch.tensor([True, False])
    assert torch.allclose(td_target(torch.ones(2), torch.tensor([5.0, 5.0]), ended, 0.9), torch.tensor([1.0, 5.5]))


def test_q_scale_makes_the_value_term_blind_to_reward_size():
    q = torch.tensor([1.0, -3.0], requires_grad=True)
    assert float(q_scale(q, 2.5)) == 1.25
    assert not q_scale(q, 2.5).requires_grad
    assert torch.allclose(q_scale(q, 2.5) * q, q_scale(10 * q, 2.5) * 10 * q)


def test_normalisation_is_saved_with_the_policy():
    problem = PendulumData(steps=800)
    policy = begin(td3_bc(hidden=16), problem).policy
    assert torch.allclose(policy.state_dict()["mean"], problem.data.obs.mean(0))


def test_a_critic_step_is_td3s_formula():
    """One update without noise: both critics regress on r + discount (1 - terminated) min(Q1', Q2')(s', pi'(s'))."""
    problem, system = DATA(), td3_bc(hidden=16, updates=2, batch=32, noise=0.0, discount=0.9)
    state = begin(system, problem)
    rows = system.collect(state, problem, Stream(1))
    ended = rows.terminated.clone()
    ended[::3] = True
    rows = dataclasses.replace(rows, terminated=ended)
    one = rows.rows(torch.arange(32))
    policy, critic = state.policy, state.critic
    with torch.no_grad():
        obs, after = policy.normalize(one.obs), policy.normalize(one.next_obs)
        later = torch.minimum(*critic(after, policy(one.next_obs)))
        goal = one.rew + 0.9 * (~one.terminated).float() * later
        expected = sum(((q - goal) ** 2).mean() for q in critic(obs, one.act))
    first = td3_bc(hidden=16, updates=1, delay=1, batch=32, noise=0.0, discount=0.9)
    assert first.learn(state, one, Stream(2))["critic_loss"] == pytest.approx(float(expected), rel=1e-5)


def test_targets_follow_slowly_and_only_with_the_actor():
    problem, system = DATA(), td3_bc(hidden=16, updates=2, tau=0.1)
    state = begin(system, problem)
    before = [p.clone() for p in state.policy.parameters()]
    start = [p.clone() for p in state.target.read()["policy"].parameters()]
    assert all(torch.equal(a, b) for a, b in zip(before, start, strict=True))
    system.learn(state, system.collect(state, problem, Stream(1)), Stream(2))
    for old, online, target in zip(start, state.policy.parameters(), state.target.read()["policy"].parameters(), strict=True):
        assert torch.allclose(target, 0.9 * old + 0.1 * online, atol=1e-6)
        assert not torch.equal(target, old)


def test_target_noise_is_clipped():
    """With a clip of 0 any noise is none."""
    problem, losses = DATA(), []
    for noise, noise_clip in ((0.0, 0.5), (5.0, 0.0), (5.0, 0.5)):
        system = td3_bc(hidden=16, updates=2, noise=noise, noise_clip=noise_clip)
        state = begin(system, problem)
        losses.append(system.learn(state, system.collect(state, problem, Stream(1)), Stream(2))["critic_loss"])
    assert losses[0] == losses[1] != losses[2]


def test_without_the_value_term_it_is_behaviour_cloning():
    """alpha = 0 and an actor step for every update: the same rows, the same Adam, the same policy, bitwise."""
    problem, size = DATA(), {"hidden": 16, "updates": 3, "batch": 64}
    clone, full = bc(**size), td3_bc(alpha=0.0, delay=1, **size)
    one, two = begin(clone, problem), begin(full, problem)
    two.policy.load_state_dict(one.policy.state_dict())
    for step in range(3):
        rows = [system.collect(state, problem, Stream(step)) for system, state in ((clone, one), (full, two))]
        assert torch.equal(rows[0].obs, rows[1].obs)
        losses = [system.learn(state, r, Stream(9)) for (system, state), r in zip(((clone, one), (full, two)), rows, strict=True)]
        assert losses[0]["imitation"] == pytest.approx(losses[1]["imitation"], rel=1e-6)
    for a, b in zip(one.policy.parameters(), two.policy.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6)


def test_with_much_value_the_actor_leaves_the_data():
    problem = DATA(grade="medium", steps=2000)
    far, near = (list(train(td3_bc(hidden=32, updates=100, alpha=a), problem, steps=3))[-1].metrics for a in (50.0, 0.5))
    assert far["imitation"] > 1.2 * near["imitation"]


def test_rows_are_drawn_uniformly_from_all_data():
    problem = DATA()
    drawn = bc(batch=100, updates=80, hidden=8)
    rows = drawn.collect(begin(drawn, problem), problem, Stream(3))
    assert len(rows) == 8000
    share = torch.bincount(rows.episode, minlength=4) / 8000
    assert torch.allclose(share, torch.full((4,), 0.25), atol=0.03)


def test_first_ratios_are_one():
    system, problem = (make() for make in SYSTEMS["dppo"])
    state = begin(system, problem)
    batch = system.collect(state, problem, Stream(1)).check()
    assert torch.equal(state.policy.logp(batch.obs, batch.action, batch.mask), batch.logp)
    assert batch.action.shape == (8 * 4, 3, 16)  # chains, tuned denoising steps, numbers of a chunk
    assert not batch.reward[:, :-1].any()  # the environment pays for the chunk, when it is decided


def test_advantages_are_those_of_the_environment_and_fade_towards_noisier_steps(monkeypatch):
    """GAE over the chunks of each environment, standardised; then fade^(K' - 1 - i) for tuned step i."""
    system, problem = (make() for make in SYSTEMS["dppo"])
    monkeypatch.setattr(tuning, "policy_gradient", lambda **slots: slots)
    make = partial(DiffusionPolicy, steps=5, tuned=3, hidden=16, floor=0.1)
    slots = tuning.tune(make, None, 0.5, discount=0.9, decay=0.8, **SMALL)
    state = begin(system, problem)
    batch = system.collect(state, problem, Stream(1))
    got = slots["credit"](state, batch)
    with torch.no_grad():
        value, later = state.critic(batch.obs["cond"]), state.critic(batch.info["next_obs"])
    gain = torch.zeros(32)
    for env in range(8):
        trace = 0.0
        for t in reversed(range(4)):
            n = env * 4 + t
            ended = bool(batch.info["terminated"][n])
            surprise = float(batch.score[n]) + (0.0 if ended else 0.9 * float(later[n])) - float(value[n])
            trace = surprise + (0.0 if ended else 0.9 * 0.8 * trace)
            gain[n] = trace
    expected = (gain - gain.mean()) / gain.std(correction=0)
    assert torch.allclose(got["advantage"][:, 2], expected, atol=1e-4)
    assert torch.allclose(got["advantage"][:, :2], got["advantage"][:, 2:] * torch.tensor([0.25, 0.5]))
    assert torch.allclose(got["target"][:, 0], gain + value, atol=1e-5)


@pytest.mark.parametrize("name", SYSTEMS)
def test_training_moves_the_policy_and_spares_the_base(name):
    system, problem = (make() for make in SYSTEMS[name])
    start = {k: v.clone() for k, v in begin(system, problem).state_dict().items() if isinstance(v, torch.Tensor)}
    end = list(train(system, problem, steps=2))[-1].state.state_dict()
    assert any(not torch.equal(end[k], start[k]) for k in start if k.startswith("policy"))
    assert all(torch.equal(end[k], start[k]) for k in start if k.startswith("policy.base"))


@pytest.mark.parametrize("name", SYSTEMS)
def test_it_conforms(name):
    laws = check_system(*SYSTEMS[name], fresh=False)
    assert any("resume is bitwise" in law for law in laws)


def test_options_without_meaning_are_refused():
    for make, said in (
        (partial(td3_bc, updates=3), "updates a multiple of delay"),
        (partial(td3_bc, discount=1.0), r"discount in \[0, 1\)"),
        (partial(td3_bc, tau=0.0), r"tau in \(0, 1\]"),
        (partial(td3_bc, alpha=-1.0), "alpha must be at least 0"),
        (partial(bc, lr=0.0), "lr must be positive"),
        (partial(chunk_ppo, envs=0), "envs and horizon must be at least 1"),
    ):
        with pytest.raises(ValueError, match=said):
            make()


def test_dppo_refuses_more_tuned_steps_than_steps():
    with pytest.raises(ValueError, match="cannot be tuned"):
        dppo(steps=3, tuned=4)
    with pytest.raises(ValueError, match="floor"):
        dppo(floor=0.0)


# --------------------------------------------------------------------------------------- MultiReach2D


def test_reaching_is_a_sound_problem():
    assert "state can be taken and given back bitwise" in check_problem(MultiReach2D())
    for options in ({"goals": 1}, {"chunks": 1}, {"noise": -0.1}):
        with pytest.raises(ValueError, match="needs 2 goals, 2 chunks"):
            MultiReach2D(**options)


def test_demonstrations_end_at_every_goal_and_avoid_the_obstacle():
    problem = MultiReach2D(noise=0.0)
    cond, chunk = problem.demos(200, Stream(1))
    assert cond.shape[1:] == (3,)
    assert chunk.shape[1:] == (16,)
    env = problem.make(len(cond))
    env.reset(Stream(0))
    env.state = {"at": cond[:, :2].clone(), "clock": torch.zeros(len(cond), dtype=torch.long)}
    env.resets = False
    out = env.step(chunk)
    reached = out.next_obs[out.reward > 0][:, :2]
    assert len(reached) == 200  # each demonstration reaches its goal, once
    assert torch.bincount(torch.cdist(reached, problem.places).argmin(1), minlength=4).min() > 25
    assert ((out.next_obs[:, :2] - torch.tensor([0.5, 0.0])).norm(dim=1) > 0.2).all()


def test_evaluation_counts_success_and_the_variety_of_goals():
    problem = MultiReach2D(noise=0.0)

    class Demonstrator:
        """Goes to one goal, or to the one that its row says."""

        def __init__(self, one):
            self.one = one

        def act(self, obs, generator, greedy=False):
            rows = torch.zeros(len(obs), dtype=torch.long) if self.one else torch.arange(len(obs)) % 4
            goal, at, moves = problem.places[rows], obs[:, :2], []
            for _ in range(8):
                corner = torch.stack([torch.full((len(obs),), 0.5), 0.35 * goal[:, 1].sign()], 1)
                aim = torch.where(at[:, :1] < 0.45, corner, goal) - at
                moves.append(aim / aim.norm(dim=1, keepdim=True).clamp(min=0.07))
                at = at + 0.07 * moves[-1]
            return torch.cat(moves, 1)

    assert problem.evaluate(Demonstrator(one=True), Stream(0)) == {"success": 1.0, "mode_entropy": pytest.approx(0, abs=1e-6)}
    assert problem.evaluate(Demonstrator(one=False), Stream(0)) == {"success": 1.0, "mode_entropy": pytest.approx(1)}
