"""Gradients without a graph against autograd's, distributions against torch's, moments against plain formulas, samplers against
both. What the kernels compute is compared with its twins in test_native.py."""

import math

import numpy as np
import pytest
import torch
from gymnasium.spaces import Discrete, Text, Tuple
from torch import distributions as td

from steepest.core import Stream, native
from steepest.core.batch import Batch
from steepest.core.state import State
from steepest.engines.policy_gradient import PolicyObjective
from steepest.losses import clip, entropy, k3, squared, squared_clip, token_mean
from steepest.models.control import control_critic, control_policy
from steepest.models.distributions import Categorical, Gaussian
from steepest.models.moments import Moments, Normalizer, ReturnScale
from steepest.models.perceptron import Mlp, parts
from steepest.optimize.epochs import Epochs, advance
from steepest.problems.control import CartPole, PointMass


class Five(CartPole):
    """A pole with five buttons: nothing here pushes them, but they are chosen among."""

    action_space = Discrete(5)


PROBLEMS = [CartPole(), Five(), PointMass()]
IDS = ["two choices", "five choices", "gaussian"]
kernels = pytest.mark.skipif(native.library is None, reason="the kernels were not built")


def random(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def policy_of(problem, normalize=True, sharp=3.0):
    """A policy far from where it starts, so that mistakes show."""
    policy = control_policy(problem, Stream(0), width=16, normalize=normalize)
    with torch.no_grad():
        policy.net.theta.mul_(sharp)
        parts(policy.net.theta, policy.net.sizes)[-1][0].add_(0.3 * random(16, policy.net.sizes[-1], dtype=torch.float32))
        if hasattr(policy, "log_std") and isinstance(policy.log_std, torch.Tensor):
            policy.log_std.add_(torch.tensor([0.3, -0.4]))
    if normalize:
        policy.norm.write(3 * random(100, 4, dtype=torch.float32) + 1)
    return policy


# ---------------------------------------------------------------------------------- networks


def test_a_network_is_what_its_parts_say():
    with Stream(0).fork():
        net = Mlp(4, 2, width=64, depth=2, gain=0.01)
    (a, b), (c, d), (e, f) = parts(net.theta, net.sizes)
    x = random(5, 4, dtype=torch.float32)
    assert torch.allclose(net(x), ((x @ a + b).tanh() @ c + d).tanh() @ e + f, atol=1e-6)
    assert torch.allclose(c.T @ c, 2 * torch.eye(64), atol=1e-4)  # orthogonal with gain sqrt 2
    assert torch.allclose(e.T @ e, 1e-4 * torch.eye(2), atol=1e-8)
    assert not b.any()


def test_sizes_that_make_no_sense():
    with pytest.raises(ValueError, match="width must be at least 1"):
        control_policy(CartPole(), Stream(0), width=0)
    with pytest.raises(ValueError, match="depth must be at least 0, not -1"):
        control_critic(CartPole(), Stream(0), depth=-1)


# ---------------------------------------------------------------------------------- distributions


def test_categorical_is_torchs():
    scores, other = 2 * random(5, 3, 4), random(5, 3, 4, seed=1)
    ours, theirs = Categorical.of(scores), td.Categorical(logits=scores)
    action = theirs.sample()
    assert torch.allclose(ours.logp(action), theirs.log_prob(action))
    assert torch.allclose(ours.entropy(), theirs.entropy())
    assert torch.allclose(ours.kl(Categorical.of(other)), td.kl_divergence(theirs, td.Categorical(logits=other)))
    assert torch.equal(ours.mode(), scores.argmax(-1))


def test_gaussian_is_torchs():
    mean, log_std, other, wider = random(5, 3, 2), 0.5 * random(2, seed=1), random(5, 3, 2, seed=2), 0.5 * random(2, seed=3)
    ours = Gaussian(mean, log_std)
    theirs = td.Independent(td.Normal(mean, log_std.exp().expand_as(mean)), 1)
    second = td.Independent(td.Normal(other, wider.exp().expand_as(mean)), 1)
    action = random(5, 3, 2, seed=4)
    assert torch.allclose(ours.logp(action), theirs.log_prob(action))
    assert torch.allclose(ours.entropy(), theirs.entropy())
    assert torch.allclose(ours.kl(Gaussian(other, wider)), td.kl_divergence(theirs, second))
    assert torch.equal(ours.mode(), mean)


@pytest.mark.parametrize("problem", PROBLEMS, ids=IDS)
@pytest.mark.parametrize("normalize", [False, True])
def test_what_acts_is_what_learns(problem, normalize):
    """The sampler says the log-probability that the policy in torch gives its action, and draws from it."""
    policy = policy_of(problem, normalize)
    obs = random(1, 4, dtype=torch.float32).expand(40_000, 4).contiguous()
    action, logp = policy.sample(obs, Stream(1).torch())
    found = policy.distribution(obs)
    assert torch.allclose(found.logp(action).detach(), logp, atol=2e-6)
    drawn_from(found, action)


def drawn_from(found, action):
    """Every row of `action` [N, ...] was drawn from the same distribution: within 4 standard errors."""
    n = len(action)
    if isinstance(found, Categorical):
        p = found.logits[0].exp().detach()
        share = torch.bincount(action, minlength=len(p)) / n
        assert ((share - p).abs() < 4 * (p * (1 - p) / n).sqrt() + 1e-9).all()
        return
    std = found.log_std.exp().detach()
    assert ((action.mean(0) - found.mean[0].detach()).abs() < 4 * std / math.sqrt(n)).all()
    assert ((action.std(0) / std).log().abs() < 4 / math.sqrt(2 * n)).all()
    assert abs(float(torch.corrcoef(action.T)[0, 1])) < 4 / math.sqrt(n)


@pytest.mark.parametrize("problem", PROBLEMS, ids=IDS)
def test_what_torch_draws_is_drawn_from_the_same_distribution(problem):
    """As on other devices than the CPU, and in evaluations."""
    policy = policy_of(problem)
    with torch.no_grad():
        found = policy.distribution(random(1, 4, dtype=torch.float32).expand(40_000, 4).contiguous())
    action = found.sample(Stream(1).torch())
    drawn_from(found, action)
    assert torch.equal(action, found.sample(Stream(1).torch()))
    assert not torch.equal(action, found.sample(Stream(2).torch()))


def test_an_action_without_a_chance_is_never_drawn_and_nothing_overflows():
    policy = control_policy(Five(), Stream(0), width=4)
    with torch.no_grad():
        parts(policy.net.theta, policy.net.sizes)[-1][1].copy_(torch.tensor([-1e3, 1e3, -1e3, 1e3, -1e3]))
    obs = random(5000, 4, dtype=torch.float32)
    action, logp = policy.sample(obs, Stream(0).torch())
    assert set(action.tolist()) == {1, 3}
    assert torch.allclose(logp, torch.full_like(logp, -math.log(2)), atol=0.02)
    if native.library is None:
        return
    judged, entropy, push = policy.judge(obs, action)
    push(torch.ones(5000), torch.ones(5000))
    assert torch.allclose(judged, logp, atol=2e-4)  # a score of 1e3 is known to 6e-5
    assert torch.allclose(entropy, torch.full_like(entropy, math.log(2)), atol=0.02)
    assert policy.net.theta.grad.isfinite().all()


@pytest.mark.parametrize("problem", PROBLEMS, ids=IDS)
def test_numbers_drawn_ahead_are_drawn_from_the_generator_alone(problem):
    policy, obs = policy_of(problem), random(3, 4, dtype=torch.float32)

    def calls(ahead):
        sample = policy.sampler(Stream(1).torch(), ahead)
        return [sample(obs)[0] for _ in range(5)]

    same, other = calls(5), calls(5)
    assert all(torch.equal(a, b) for a, b in zip(same, other, strict=True))
    assert not all(torch.equal(same[0], x) for x in same[1:])
    assert len(calls(2)) == 5  # more calls than were announced go on


def test_a_box_is_kept_and_the_density_is_that_of_what_was_drawn():
    policy = policy_of(PointMass())
    obs = 5 * random(50, 4, dtype=torch.float32)
    sent = policy.act(obs, Stream(0).torch())
    assert sent.abs().max() == 1
    assert torch.allclose(policy.act(obs, Stream(0).torch(), greedy=True), policy.distribution(obs).mean.clamp(-1, 1))


def test_a_distribution_stays_what_it_was_when_the_parameters_move_on():
    """Or KL(old || new) would not see the standard deviation move."""
    policy, obs = policy_of(PointMass()), random(6, 4, dtype=torch.float32)
    with torch.no_grad():
        old = policy.distribution(obs)
        policy.log_std.add_(1.0)
    assert not old.log_std.requires_grad
    assert torch.allclose(policy.kl(old, obs), torch.full((6,), 2 * (1 + (math.exp(-2) - 1) / 2)), atol=1e-5)


# ---------------------------------------------------------------------------------- gradients without a graph


def judged(problem, loss, normalize=True):
    """State and minibatch of 30 decisions, ratios on both sides of the band."""
    policy = policy_of(problem, normalize)
    critic = control_critic(problem, Stream(1), width=16, norm=policy.norm)
    state = State(policy=policy, critic=critic)
    obs = 2 * random(30, 1, 4, dtype=torch.float32)
    action, logp = policy.sample(obs[:, 0], Stream(2).torch())

    def noise(seed):
        return random(30, 1, seed=seed, dtype=torch.float32)

    batch = Batch(
        obs, action[:, None], logp[:, None] + 0.3 * noise(1), noise(2), torch.ones(30, 1), torch.arange(30), advantage=noise(3),
        value=noise(4), target=noise(5),
    )  # fmt: skip
    objective = PolicyObjective(loss, token_mean)
    return state, objective, objective.weigh(batch)


LOSSES = {
    "clip": clip(),
    "all": clip() + 0.5 * squared() - 0.01 * entropy(),
    "clipped value": clip(low=0.1, high=0.3) + squared_clip(),
    "value alone": squared(),
    "entropy alone": -0.01 * entropy(),
}


@kernels
@pytest.mark.parametrize("problem", PROBLEMS, ids=IDS)
@pytest.mark.parametrize("normalize", [False, True], ids=["raw", "normalised"])
@pytest.mark.parametrize("name", LOSSES)
def test_gradients_by_hand_are_autograds(problem, name, normalize):
    state, objective, batch = judged(problem, LOSSES[name], normalize)
    total, told = objective(state, batch)
    total.backward()
    params = dict(state.named_parameters())
    expected = {name: p.grad.clone() for name, p in params.items() if p.grad is not None}
    assert objective.judge(state, batch) is not None
    for p in params.values():
        p.grad = None
    by_hand = objective.pull(state, batch, report=True)
    assert any(g.abs().max() > 1e-4 for g in expected.values())
    for name, g in expected.items():
        assert torch.allclose(params[name].grad, g, atol=1e-6), name
    assert all(p.grad is None or not p.grad.any() for name, p in params.items() if name not in expected)
    assert by_hand.keys() == told.keys()
    assert all(torch.allclose(by_hand[k], told[k], atol=1e-5) for k in told)
    before = {name: p.grad.clone() for name, p in params.items() if p.grad is not None}
    assert objective.pull(state, batch, report=False) == {}  # and adds up, as micro-batches need
    assert all(torch.allclose(params[name].grad, 2 * g, atol=1e-5) for name, g in before.items())


@pytest.mark.parametrize("problem", PROBLEMS, ids=IDS)
def test_decisions_that_were_not_made_pull_at_nothing(problem):
    state, objective, batch = judged(problem, LOSSES["all"])
    mask = batch.mask.clone()
    mask[20:] = 0
    grads = []
    masked = batch.having(mask=mask)
    for rest in (masked, masked.having(advantage=batch.advantage + 9 * (1 - mask)), batch.rows(slice(20))):
        told = objective.pull(state, objective.weigh(rest), report=True)
        grads.append((torch.cat([p.grad.reshape(-1) for p in state.parameters()]), told))
        for p in state.parameters():
            p.grad = None
    for found, told in grads[:2]:
        assert torch.allclose(found, grads[2][0], atol=1e-6)
        assert {k: float(x) for k, x in told.items()} == pytest.approx({k: float(x) for k, x in grads[2][1].items()}, abs=1e-5)


def test_what_cannot_be_done_by_hand_is_left_to_autograd():
    state, objective, batch = judged(CartPole(), clip() + 0.1 * k3())
    state.reference = control_policy(CartPole(), Stream(5), width=16)
    assert objective.judge(state, batch) is None
    objective.pull(state, batch, report=False)
    assert state.policy.net.theta.grad.any()


@pytest.mark.parametrize(
    "options", [{"fused": True}, {"fused": True, "weight_decay": 0.1}, {"foreach": True}, {"fused": True, "amsgrad": True}], ids=str
)
def test_an_optimizer_advances_as_if_it_had_stepped(options):
    runs = []
    for step in (lambda o: o.step(), advance):
        params = [torch.nn.Parameter(random(40, dtype=torch.float32)), torch.nn.Parameter(random(3, 2, dtype=torch.float32))]
        optimizer = torch.optim.Adam(params, 0.01, **options)
        for i in range(4):
            for k, p in enumerate(params):
                p.grad = None if k and i == 2 else random(*p.shape, seed=10 * i + k, dtype=torch.float32)
            step(optimizer)
        runs.append((params, optimizer.state_dict()["state"]))
    (a, first), (b, second) = runs
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    assert all(torch.equal(first[i][name], second[i][name]) for i in first for name in first[i])


def test_hooks_of_an_optimizer_are_called():
    p = torch.nn.Parameter(torch.ones(2))
    optimizer, seen = torch.optim.Adam([p], 0.1, fused=True), []
    optimizer.register_step_post_hook(lambda *_: seen.append(1))
    for _ in range(3):
        p.grad = torch.ones(2)
        advance(optimizer)
    assert len(seen) == 3


@pytest.mark.parametrize("normalize", [False, True], ids=["raw", "normalised"])
@pytest.mark.parametrize("problem", PROBLEMS, ids=IDS)
def test_epochs_by_hand_by_autograd_and_in_micro_batches_end_at_the_same_parameters(problem, normalize, monkeypatch):
    """Minibatches of 15 in pieces of 4, 4, 4 and 3 weigh every decision as the whole does."""
    ends = []
    for hand, micro in ((True, None), (True, 4), (False, None), (False, 4)):
        if not hand:
            monkeypatch.setattr(PolicyObjective, "judge", lambda *_: None)
        state, objective, batch = judged(problem, LOSSES["all"], normalize)
        # SGD, for Adam would make whole steps of a difference in rounding
        state.optimizers["policy"] = torch.optim.SGD(state.parameters(), 0.05)
        start = torch.cat([p.detach().reshape(-1) for p in state.parameters()])
        told = Epochs(3, 2, micro=micro, max_norm=0.5)(state, objective, batch, Stream(0))
        ends.append((torch.cat([p.detach().reshape(-1) for p in state.parameters()]), told))
    assert (ends[0][0] - start).norm() > 0.05
    for theta, told in ends[1:]:
        assert torch.allclose(theta, ends[0][0], atol=1e-6)
        assert told == pytest.approx(ends[0][1], abs=1e-4)


# ---------------------------------------------------------------------------------- moments


def test_moments_in_pieces_are_the_moments_of_the_whole():
    x, moments = 3 * random(100, 7, dtype=torch.float32) + 5, Moments(7)
    assert torch.equal(moments.var, torch.ones(7))
    for piece in x.split([1, 40, 9, 50]):
        moments.write(piece.reshape(-1, 1, 7))
    assert int(moments.count) == 100
    assert torch.allclose(moments.mean, x.mean(0), atol=1e-5)
    assert torch.allclose(moments.var, x.var(0, correction=0), rtol=1e-5)


def test_moments_of_many_small_pieces_far_from_zero_keep_their_digits():
    """A running sum of squares would have none left: 200 x 1e6 in single precision is known to 16."""
    x, moments = 1000 + random(200, 16, dtype=torch.float32), Moments()
    for piece in x:
        moments.write(piece)
    assert float(moments.mean) == pytest.approx(float(x.double().mean()), abs=1e-3)
    assert float(moments.var) == pytest.approx(float(x.double().var(correction=0)), rel=1e-3)


def test_a_normalizer_by_formula():
    norm, x = Normalizer(3, bound=2.0), 4 * random(50, 3, dtype=torch.float32) + 1
    assert torch.allclose(norm(x), x.clamp(-2, 2), atol=1e-6)
    norm.write(x)
    expected = ((x - x.mean(0)) / (x.var(0, correction=0) + 1e-8).sqrt()).clamp(-2, 2)
    assert torch.allclose(norm(x), expected, atol=1e-6)
    assert torch.allclose(norm(x.clone().requires_grad_()).detach(), expected, atol=1e-6)
    assert (expected.abs() == 2).any()


def test_rewards_are_scaled_by_the_deviation_of_the_running_return():
    g = torch.Generator().manual_seed(0)
    scale, running, seen = ReturnScale(3, 0.9), [0.0] * 3, []
    for _ in range(4):
        reward, over = torch.randn(3, 5, generator=g), torch.rand(3, 5, generator=g) < 0.3
        got = scale(reward, over)
        for n in range(3):
            for t in range(5):
                running[n] = 0.9 * running[n] + float(reward[n, t])
                seen.append(running[n])
                if over[n, t]:
                    running[n] = 0.0
        assert torch.allclose(scale.running, torch.tensor(running), atol=1e-5)
        assert torch.allclose(got, (reward / math.sqrt(np.var(seen) + 1e-8)).clamp(-10, 10), atol=1e-4)


def test_spaces_without_a_policy_are_refused():
    class Odd(CartPole):
        action_space = Tuple((Discrete(2), Discrete(2)))

    with pytest.raises(TypeError, match=r"takes actions in Tuple"):
        control_policy(Odd(), Stream(0))

    class Seen(CartPole):
        observation_space = Text(9)

    with pytest.raises(TypeError, match=r"observations in Text.* have no fixed number of numbers"):
        control_policy(Seen(), Stream(0))
