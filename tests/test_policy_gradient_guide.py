"""The policy gradient theorem: against finite differences of the exact return, discrete and continuous, and against samples."""

import itertools
import math
from functools import partial

import numpy as np
import pytest
import torch

from steepest.app.names import find_claim
from steepest.core import Stream, begin, train
from steepest.core.check import check_system
from steepest.models.distributions import Gaussian
from steepest.models.tabular import TabularSoftmax
from steepest.optimize.planning import occupancy, policy_iteration, softmax_gradient
from steepest.problems.tabular import ChainWalk, Garnet
from steepest.systems.on_policy.policy_gradient_guide import expectation, policy_gradient_guide

GARNETS = [Garnet(states=4, actions=3, branch=2, gamma=0.8, radius=0.0, sign=sign, seed=seed)
           for sign in ("reward", "cost") for seed in range(2)]  # fmt: skip


def some_policy(model, seed=0):
    return TabularSoftmax(torch.randn(model.R.shape, generator=Stream(seed, "logits").torch(), dtype=torch.float64))


def theorem(model, policy):
    return torch.autograd.grad(expectation(model, policy), policy.logits)[0]


def earned(model, logits):
    return float(model.rho @ model.values(logits.softmax(-1))[0])


# ------------------------------------------------------------------------------------ finite models


@pytest.mark.parametrize("problem", GARNETS, ids=lambda p: f"{p.sign}{p.seed}")
def test_the_theorem_is_the_finite_difference_of_the_return(problem):
    model = problem.model
    policy = some_policy(model)
    found, step = theorem(model, policy), 1e-5
    assert torch.allclose(found, softmax_gradient(model, policy.logits.detach()), atol=1e-12)
    for s in range(4):
        for a in range(3):
            high, low = policy.logits.detach().clone(), policy.logits.detach().clone()
            high[s, a] += step
            low[s, a] -= step
            assert float(found[s, a]) == pytest.approx((earned(model, high) - earned(model, low)) / (2 * step), abs=1e-7)


def test_a_wrong_action_value_would_be_noticed():
    """Rewards in place of Q: the gradient of a bandit, not of the process."""
    model = GARNETS[0].model
    policy = some_policy(model)
    pi = policy.probs().detach()
    near = torch.autograd.grad((occupancy(model, pi) * model.R * policy.log_probs()).sum(), policy.logits)[0]
    assert float((near - theorem(model, policy)).abs().max()) > 0.1


def sampled(model, policy, episodes, steps, generator):
    """States, actions [N, T] and rewards of `episodes` walks."""
    state = torch.multinomial(model.rho, episodes, replacement=True, generator=generator)
    rows = []
    for _ in range(steps):
        action, _ = policy.sample(state, generator)
        rows.append((state, action, model.R[state, action]))
        state = torch.multinomial(model.P[state, action], 1, generator=generator).squeeze(1)
    return (torch.stack(column, 1) for column in zip(*rows, strict=True))


def test_sampled_gradients_have_the_theorems_mean_and_less_variance_the_less_noise_they_carry():
    """Weights of grad log pi at t: the whole return; what follows t; what follows t, minus V(s_t)."""
    episodes, steps = 40_000, 40
    model = Garnet(states=3, actions=2, branch=2, gamma=0.7, radius=0.0, sign="reward").model
    policy = some_policy(model)
    pi, (v, _) = policy.probs().detach(), model.values(policy.probs().detach())
    state, action, reward = sampled(model, policy, episodes, steps, Stream(0, "walk").torch())
    paid = model.gamma ** torch.arange(steps) * reward
    later = paid.flip(1).cumsum(1).flip(1)
    weights = (paid.sum(1, keepdim=True).expand_as(paid), later, later - model.gamma ** torch.arange(steps) * v[state])
    exact, spread = theorem(model, policy).flatten(), []
    for weight in weights:
        found = torch.zeros(episodes, 6, dtype=torch.float64)
        for s in range(3):
            for a in range(2):
                score = (state == s) * ((action == a).double() - pi[s, a])  # grad log pi by the logit of (s, a)
                found[:, 2 * s + a] = (score * weight).sum(1)
        error = found.std(0) / math.sqrt(episodes)
        assert ((found.mean(0) - exact).abs() < 4 * error + 1e-5).all()
        spread.append(float(found.var(0).sum()))
    assert spread[0] > 1.2 * spread[1] > 1.2 * 1.2 * spread[2]


# ------------------------------------------------------------------------------------ a continuous action


A, B, COST, GAMMA = 0.9, 0.5, 0.1, 0.9  # s' = A s + B a, reward -(s^2 + COST a^2)
START = 1.0  # variance of the first state


def worth(k, log_std):
    """J of a ~ N(k s, std^2) in closed form: V(s) = -(p s^2 + c)."""
    m, var = A + B * k, math.exp(2 * log_std)
    p = (1 + COST * k * k) / (1 - GAMMA * m * m)
    c = var * (COST + GAMMA * p * B * B) / (1 - GAMMA)
    return -(p * START + c), p, c


def test_the_theorem_holds_for_a_gaussian_policy_of_one_dimension():
    """Every integral is over a polynomial of normal variables, which Gauss and Hermite's five points take exactly."""
    k, log_std, step = -0.4, -0.7, 1e-5
    _, p, c = worth(k, log_std)
    at, weight = (torch.from_numpy(x) for x in np.polynomial.hermite_e.hermegauss(5))
    weight = weight / weight.sum()
    theta = torch.tensor([k, log_std], dtype=torch.float64, requires_grad=True)
    std, total, spread = math.exp(log_std), 0.0, START
    for t in range(400):
        s = math.sqrt(spread) * at
        a = k * s[:, None] + std * at  # [S, A]
        after = A * s[:, None] + B * a
        q = -(s[:, None] ** 2 + COST * a**2) - GAMMA * (p * after**2 + c)
        logp = Gaussian(theta[0] * s[:, None, None].expand(5, 5, 1), theta[1:].expand(1)).logp(a[..., None])
        total = total + GAMMA**t * (weight[:, None] * weight * logp * q).sum()
        spread = (A + B * k) ** 2 * spread + (B * std) ** 2
    found = torch.autograd.grad(total, theta)[0]
    by_k = (worth(k + step, log_std)[0] - worth(k - step, log_std)[0]) / (2 * step)
    by_std = (worth(k, log_std + step)[0] - worth(k, log_std - step)[0]) / (2 * step)
    assert found.tolist() == pytest.approx([by_k, by_std], rel=1e-6)


# ------------------------------------------------------------------------------------ the system


def test_a_small_enough_step_never_loses_and_the_way_leads_to_the_optimum():
    problem = Garnet(states=4, actions=3, branch=2, scale=1.0, gamma=0.5, radius=0.0, sign="reward")
    safe = (1 - 0.5) ** 3 / 8
    told = [r.metrics["return"] for r in train(policy_gradient_guide(lr=safe), problem, steps=100)]
    assert all(b >= a - 1e-12 for a, b in itertools.pairwise(told))
    best = float(problem.model.rho @ policy_iteration(problem.model)[0])
    long = [r.metrics["return"] for r in train(policy_gradient_guide(lr=5.0), problem, steps=400)]
    assert best - 0.01 < long[-1] <= best + 1e-9
    assert told[0] == long[0] < best - 0.05


def test_costs_are_minimised():
    problem = Garnet(states=4, actions=3, branch=2, radius=0.0, sign="cost")
    told = [r.metrics["return"] for r in train(policy_gradient_guide(lr=0.02), problem, steps=50)]
    assert told[0] < told[-1] < 0


def test_it_obeys_the_laws():
    laws = check_system(policy_gradient_guide, partial(ChainWalk, states=4), half=2)
    assert "resume is bitwise in a fresh process" in laws


def test_what_makes_no_sense_is_refused():
    from steepest.problems.control import CartPole

    with pytest.raises(ValueError, match="lr must be positive, not 0"):
        policy_gradient_guide(lr=0.0)
    with pytest.raises(TypeError, match="it needs `model`, which CartPole"):
        begin(policy_gradient_guide(), CartPole())


# ------------------------------------------------------------------------------------ its claim is about others


def test_the_claim_runs_at_a_smaller_size_and_both_arms_see_as_many_steps():
    from steepest.evidence.on_policy.policy_gradient_guide import claim

    for arm in (claim.ours, claim.baseline):
        rows = [r.metrics for r in train(partial(arm, envs=4, horizon=32)(), claim.problem(), steps=2)]
        assert claim.figure in rows[-1]
    sizes = [arm.keywords["envs"] * arm.keywords["horizon"] for arm in (claim.ours, claim.baseline)]
    assert claim.steps * sizes[0] == claim.baseline_steps * sizes[1] == 51_200


def test_a_claim_about_other_systems_gives_no_defaults(steepest):
    assert find_claim("policy_gradient_guide") is None
    assert find_claim("ppo") is not None
    assert "has no claim that says what to train it on: add --problem" in steepest("train policy_gradient_guide")[2]
    assert "trains other systems. With --problem any system" in steepest("check policy_gradient_guide")[2]
    assert steepest("train policy_gradient_guide --problem Garnet --steps 2")[0] == 0
