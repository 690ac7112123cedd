"""S2PG: the next internal state is part of the action, so that memory is learned from single decisions."""

import math
from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest
import torch
from numpy.polynomial.hermite_e import hermegauss

from steepest.core import Stream, begin, train
from steepest.core.check import check_system
from steepest.engines.policy_gradient import PolicyObjective
from steepest.evidence.on_policy.s2pg import claim
from steepest.losses import reinforce, token_mean
from steepest.models.build import policy_for
from steepest.models.distributions import Gaussian
from steepest.models.stateful import Augmented, Joint
from steepest.problems.control import Batched, CartPole, Pendulum, PointMass
from steepest.problems.gym import Gym
from steepest.problems.hidden import HiddenCartPole, HiddenPendulum
from steepest.problems.language import AddCliff
from steepest.systems.on_policy.ppo import ppo
from steepest.systems.on_policy.s2pg import s2pg

SMALL = {"envs": 4, "horizon": 16, "width": 8, "epochs": 2, "minibatches": 2}


@dataclass(frozen=True)
class Recall(Batched):
    """Two steps: the first shows one of two cues and rewards nothing, the second shows nothing and rewards naming the cue."""

    limit: int = 2
    episodes: int = 20

    size, draws = 2, 1

    @property
    def observation_space(self):
        from gymnasium.spaces import Box

        return Box(-1.0, 1.0, (1,))

    @property
    def action_space(self):
        from gymnasium.spaces import Discrete

        return Discrete(2)

    def start(self, u):
        return np.concatenate([u < 0.5, np.zeros_like(u)], 1)

    def see(self, state):
        return ((2 * state[:, :1] - 1) * (state[:, 1:] == 0)).astype(np.float32)

    def move(self, state, action):
        second = state[:, 1] > 0
        reward = (second & (action == state[:, 0])).astype(np.float32)
        return state + np.array([0.0, 1.0]), reward, second


# ---------------------------------------------------------------------------------- conformance


@pytest.mark.parametrize(
    "problem",
    [partial(HiddenPendulum, limit=9), partial(Gym, "CartPole-v1"), PointMass],
    ids=["pendulum", "gym", "point"],
)
def test_it_conforms(problem):
    assert check_system(partial(s2pg, memory=3, **SMALL), problem, fresh=False)[-1] == "resume is bitwise"


def test_it_conforms_in_a_fresh_process():
    make = partial(s2pg, memory=3, **SMALL)
    assert check_system(make, partial(HiddenCartPole, limit=7))[-1] == "resume is bitwise in a fresh process"


# ---------------------------------------------------------------------------------- the exact gradient


def exact(policy, points=64):
    """J of Recall under `policy` with one number of internal state: the normal integral by Gauss-Hermite quadrature."""
    nodes, weights = (torch.as_tensor(x) for x in hermegauss(points))
    total = torch.zeros((), dtype=torch.float64)
    for cue in (0, 1):
        first = policy.distribution(torch.tensor([[2.0 * cue - 1, 0.0]])).rest
        z = first.mean[0, 0] + first.log_std[0].exp() * nodes.float()
        blank = torch.stack([torch.zeros_like(z), z], 1)
        right = policy.distribution(blank).choice.logits[:, cue].exp()
        total = total + 0.5 * (weights / weights.sum() * right).sum()
    return total


def test_the_mean_of_the_estimated_gradient_is_the_gradient_of_the_exact_return():
    """Bug that it catches: a log-probability without z', or a z that is not the stored one: the cue is then never learned."""
    problem, count = Recall(), 4096
    system = s2pg(memory=1, noise=0.5, normalize=False, **{**SMALL, "envs": count, "horizon": 2})
    state = begin(system, problem)
    policy = state.policy
    with torch.no_grad():  # a policy that says little of the cue has hardly a gradient
        policy.net.theta.add_(0.5 * torch.randn(policy.net.theta.shape, generator=Stream(1).torch()))
    params = list(policy.parameters())
    slope = torch.cat([g.reshape(-1) for g in torch.autograd.grad(exact(policy), params)])
    step = 1e-2
    along = slope / slope.norm()
    found = []
    for sign in (1, -1):
        with torch.no_grad():
            for p, d in zip(params, along.split([p.numel() for p in params]), strict=True):
                p.add_(sign * step * d.view_as(p))
            found.append(float(exact(policy)))
            for p, d in zip(params, along.split([p.numel() for p in params]), strict=True):
                p.sub_(sign * step * d.view_as(p))
    assert (found[0] - found[1]) / (2 * step) == pytest.approx(float(slope.norm()), rel=1e-2)
    objective = PolicyObjective(reinforce(), token_mean)
    rows = []
    for k in range(12):
        batch = system.collect(state, problem, Stream(0, k))
        later = batch.reward.flip(1).cumsum(1).flip(1)
        batch = objective.weigh(batch.having(advantage=later - 0.5))
        grads = torch.autograd.grad(-2 * objective.value(state, batch), params)  # two decisions an episode
        rows.append(torch.cat([g.reshape(-1) for g in grads]))
    estimate = torch.stack(rows)
    error = estimate.std(0) / math.sqrt(len(rows))
    assert ((estimate.mean(0) - slope).abs() < 5 * error + 1e-5).all()
    assert float(torch.cosine_similarity(estimate.mean(0), slope, dim=0)) > 0.99


def test_a_cue_is_remembered_and_without_memory_it_cannot_be():
    options = {"envs": 32, "horizon": 16, "epochs": 4, "minibatches": 4, "width": 16, "lr": 1e-2, "normalize": False}
    told = {}
    for name, memory in (("memory", 2), ("none", 0)):
        for record in train(s2pg(memory=memory, noise=0.3, **options), Recall(), steps=25):
            told[name] = record.metrics["return"]
    assert told["memory"] > 0.9
    assert told["none"] < 0.7


# ---------------------------------------------------------------------------------- invariants


@pytest.mark.parametrize("problem", [Pendulum(limit=20), PointMass()], ids=["pendulum", "point"])
def test_without_memory_it_is_ppo_to_the_bit(problem):
    pairs = (s2pg(memory=0, lr=3e-4, **SMALL), ppo(normalize=True, **SMALL))
    one, two = ([(r.metrics, r.state) for r in train(system, problem, steps=3)][-1] for system in pairs)
    assert one[0] == two[0]
    assert torch.equal(one[1].policy.net.theta, two[1].policy.net.theta)
    assert torch.equal(one[1].critic.net.theta, two[1].critic.net.theta)


def test_without_memory_a_choice_has_the_probability_that_ppo_gives_it():
    one, two = (begin(s, CartPole()) for s in (s2pg(memory=0, normalize=False, **SMALL), ppo(**SMALL)))
    batch = s2pg(memory=0, normalize=False, **SMALL).collect(one, CartPole(), Stream(1))
    assert torch.equal(one.policy.net.theta, two.policy.net.theta)
    theirs = two.policy.logp(batch.obs, batch.action[..., 0].long(), batch.mask)
    assert torch.allclose(one.policy.logp(batch.obs, batch.action, batch.mask), theirs, atol=1e-6)


@pytest.mark.parametrize("problem", [HiddenCartPole(limit=7), HiddenPendulum(limit=7)], ids=["choice", "numbers"])
def test_what_was_decided_is_what_is_seen_next_and_an_episode_begins_with_nothing(problem):
    system = s2pg(memory=3, noise=0.5, normalize=False, **SMALL)
    state = begin(system, problem)
    for k in range(2):  # the second goes on in the middle of episodes
        before = state.live.obs[:, -3:].clone()
        batch = system.collect(state, problem, Stream(0, k))
        seen, kept = batch.obs[..., -3:], batch.action[..., -3:]
        over = batch.info["terminated"] | batch.info["truncated"]
        assert torch.equal(seen[:, 0], before)
        assert torch.equal(seen[:, 1:], torch.where(over[:, :-1, None], 0.0, kept[:, :-1]))
        assert torch.equal(batch.info["next_obs"][..., -3:], kept)  # a truncated episode is valued with its state
        assert over.any()
        assert not over.all()
    assert before.abs().sum() > 0
    assert torch.allclose(state.policy.logp(batch.obs, batch.action, batch.mask), batch.logp, atol=1e-5)


def test_the_log_probability_is_that_of_the_action_and_that_of_the_state():
    for problem, known in ((CartPole(), 1), (PointMass(), 2)):
        policy = policy_for(Augmented(problem, 3), Stream(0))
        obs = torch.randn(5, 7, generator=Stream(1).torch())
        action, logp = policy.sample(obs, Stream(2).torch())
        found = policy.distribution(obs)
        mean, log_std = (found.rest.mean, found.rest.log_std) if known == 1 else (found.mean[:, 2:], found.log_std[2:])
        if known == 1:
            first = found.choice.logp(action[:, 0].long())
        else:
            first = Gaussian(found.mean[:, :2], found.log_std[:2]).logp(action[:, :2])
        assert torch.allclose(logp, first + Gaussian(mean, log_std).logp(action[:, known:]), atol=1e-5)


def test_no_gradient_passes_through_time():
    """Decisions in any order have one gradient; a z that was computed rather than stored would need the steps before it."""
    problem = HiddenCartPole(limit=7)
    system = s2pg(memory=3, **SMALL)
    state = begin(system, problem)
    batch = system.collect(state, problem, Stream(0, 0))
    objective = PolicyObjective(reinforce(), token_mean)
    whole = batch.having(advantage=torch.randn(batch.mask.shape, generator=Stream(3).torch())).decisions()
    order = torch.randperm(len(whole), generator=Stream(4).torch())
    pair = (objective.weigh(b) for b in (whole, whole.rows(order)))
    one, two = (torch.autograd.grad(objective.value(state, b), state.policy.net.theta)[0] for b in pair)
    assert torch.allclose(one, two, atol=1e-6)
    assert one.norm() > 0


def test_the_divergence_and_entropy_of_a_joint_are_expectations_under_it():
    policy = policy_for(Augmented(CartPole(), 2, noise=0.5), Stream(0))
    other = policy_for(Augmented(CartPole(), 2, noise=0.7), Stream(5))
    obs = torch.randn(1, 6, generator=Stream(1).torch()).expand(100_000, 6)
    with torch.no_grad():
        p, q = policy.distribution(obs), other.distribution(obs)
        assert isinstance(p, Joint)
        action = p.sample(Stream(2).torch())
        assert float((p.logp(action) - q.logp(action)).mean()) == pytest.approx(float(p.kl(q)[0]), rel=0.05)
        assert float(-p.logp(action).mean()) == pytest.approx(float(p.entropy()[0]), abs=0.02)


def test_moments_leave_the_internal_state_alone():
    system = s2pg(memory=3, **SMALL)
    state = list(train(system, HiddenPendulum(limit=20), steps=2))[-1].state
    x = torch.randn(4, 5, generator=Stream(0).torch())
    assert torch.equal(state.policy.norm(x)[:, 2:].clamp(-9, 9), (x[:, 2:] / (1 + 1e-8) ** 0.5).clamp(-9, 9))
    assert not torch.allclose(state.policy.norm(x)[:, :2], x[:, :2], atol=1e-3)


def test_it_is_evaluated_with_its_memory():
    problem = HiddenCartPole(limit=30)
    state = begin(s2pg(memory=3, **SMALL), problem)
    assert 1 <= problem.evaluate(state.policy, Stream(0))["return"] <= 30
    assert problem.evaluate(state.policy, Stream(0)) == Augmented(problem, 3).evaluate(state.policy, Stream(0))


@pytest.mark.parametrize(("hidden", "whole", "kept"), [(HiddenCartPole, CartPole, (0, 2)), (HiddenPendulum, Pendulum, (0, 1))])
def test_hidden_problems_are_the_whole_ones_with_less_to_see(hidden, whole, kept):
    one, two = hidden().make(3), whole().make(3)
    seen, all_ = one.reset(Stream(1)), two.reset(Stream(1))
    action = torch.zeros(3, dtype=torch.long) if whole is CartPole else torch.zeros(3, 1)
    for _ in range(40):
        assert torch.allclose(seen, all_[:, kept], atol=1e-4)
        a, b = one.step(action), two.step(action)
        assert torch.allclose(a.reward, b.reward, atol=1e-4)
        assert torch.equal(a.terminated, b.terminated)
        seen, all_ = a.obs, b.obs
    assert hidden().observation_space.shape == (2,)


# ---------------------------------------------------------------------------------- claim and bad input


def test_the_claim_runs_at_a_smaller_size():
    for arm in (claim.ours, claim.baseline):
        record = list(train(partial(arm, envs=4, horizon=32)(), claim.problem(limit=20), steps=2))[-1]
        assert claim.figure in record.metrics
        assert record.state.step == 2


def test_what_makes_no_sense_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for options in ({"memory": -1}, {"noise": 0.0}):
        with pytest.raises(ValueError, match="size must be at least 0 and noise positive"):
            begin(s2pg(**options), CartPole())
    with pytest.raises(TypeError, match="AddCliff is no Control problem"):
        begin(s2pg(), AddCliff(width=2, least=1, warm=1, tests=8))

    class Odd(CartPole):
        @property
        def action_space(self):
            from gymnasium.spaces import MultiBinary

            return MultiBinary(2)

    with pytest.raises(TypeError, match="with an internal state they are Discrete or a flat Box"):
        begin(s2pg(), Odd())
