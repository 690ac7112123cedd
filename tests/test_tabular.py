"""Finite processes known completely: their values against plain loops, their builders, and what they refuse."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from steepest.core import Stream
from steepest.models.tabular import TabularDirect, TabularReward, TabularSoftmax
from steepest.problems.tabular import ChainWalk, Garnet, TabularMDP, simplex_noise

GARNETS = [Garnet(states=5, actions=3, branch=3, sign=sign, seed=seed) for sign in ("reward", "cost") for seed in range(2)]


def some_policy(mdp, seed=0):
    return simplex_noise(tuple(mdp.R.shape), Stream(seed, "policy").torch())


def discounted_by_steps(mdp, pi, steps):
    """sum over t < steps of gamma^t E[R_t] from each first state: the definition, one state and action at a time."""
    states, actions = mdp.R.shape
    value = np.zeros(states)
    for first in range(states):
        at = np.eye(states)[first]
        for t in range(steps):
            after = np.zeros(states)
            for s in range(states):
                for a in range(actions):
                    share = at[s] * float(pi[s, a])
                    value[first] += mdp.gamma**t * share * float(mdp.R[s, a])
                    after += share * mdp.P[s, a].numpy()
            at = after
    return value


@pytest.mark.parametrize("problem", GARNETS, ids=lambda p: f"{p.sign}{p.seed}")
def test_values_are_the_discounted_sums_of_their_definition(problem):
    mdp = problem.model
    pi = some_policy(mdp)
    v, q = mdp.values(pi)
    steps = 150
    rest = mdp.gamma**steps * float(mdp.R.abs().max()) / (1 - mdp.gamma)
    assert np.abs(discounted_by_steps(mdp, pi, steps) - v.numpy()).max() <= rest
    assert torch.allclose((pi * q).sum(-1), v, atol=1e-12)
    for s, a in ((0, 0), (3, 2)):
        ahead = sum(float(mdp.P[s, a, t]) * float(v[t]) for t in range(len(v)))
        assert float(q[s, a]) == pytest.approx(float(mdp.R[s, a]) + mdp.gamma * ahead, abs=1e-12)


def test_the_value_of_a_walk_is_known():
    """Always right and never slipping: the end after 3 steps, 1 a step from there."""
    mdp = ChainWalk(states=4, slip=0.0, gamma=0.5).model
    right = torch.eye(2, dtype=torch.float64)[torch.ones(4, dtype=torch.long)]
    v, q = mdp.values(right)
    assert v.tolist() == pytest.approx([0.25, 0.5, 1.0, 2.0])
    assert q[:, 0].tolist() == pytest.approx([0.125, 0.125, 0.25, 1.5])


def test_a_slipping_walk_goes_the_other_way_as_often_as_it_says():
    mdp = ChainWalk(states=3, slip=0.1).model
    assert mdp.P[1, 1].tolist() == pytest.approx([0.1, 0.0, 0.9])
    assert mdp.P[0, 0].tolist() == pytest.approx([0.9, 0.1, 0.0])
    assert mdp.R.tolist() == [[0, 0], [0, 0], [1, 1]]


def test_a_garnet_is_what_its_options_say():
    problem = Garnet(states=7, actions=4, branch=2, scale=3.0, radius=0.3, seed=5)
    mdp = problem.model
    assert mdp.P.shape == (7, 4, 7)
    assert ((mdp.P > 0).sum(-1) == 2).all()
    assert 0 <= float(mdp.R.min()) < float(mdp.R.max()) <= 3
    assert (mdp.sign, mdp.radius, mdp.gamma) == ("cost", 0.3, 0.9)
    assert torch.equal(mdp.P, Garnet(states=7, actions=4, branch=2, scale=3.0, radius=0.3, seed=5).model.P)
    assert not torch.equal(mdp.P, dataclasses.replace(problem, seed=6).model.P)
    assert problem.model is problem.model


def test_simplex_noise_is_uniform():
    """Each coordinate of a uniformly random distribution over n is Beta(1, n - 1): mean 1/n, variance (n - 1)/(n^2 (n + 1))."""
    x = simplex_noise((20000, 4), Stream(0).torch())
    assert torch.allclose(x.sum(-1), torch.ones(20000, dtype=torch.float64))
    assert torch.allclose(x.mean(0), torch.full((4,), 0.25, dtype=torch.float64), atol=0.005)
    assert torch.allclose(x.var(0), torch.full((4,), 3 / 80, dtype=torch.float64), atol=0.002)


def test_evaluation_is_exact_and_costs_count_negative():
    problem = Garnet(sign="cost", radius=0.0)
    mdp = problem.model
    policy = TabularDirect(some_policy(mdp))
    got = problem.evaluate(policy, Stream(0))
    assert got["return"] == got["nominal"] == pytest.approx(-float(mdp.rho @ mdp.values(policy.probs())[0]))
    paid = dataclasses.replace(mdp, R=-mdp.R, sign="reward")
    assert paid.evaluate(policy, Stream(0))["return"] == pytest.approx(got["return"])


def sound():
    P, R, rho = torch.full((2, 1, 2), 0.5), torch.ones(2, 1), torch.tensor([1.0, 0.0])
    return {"P": P.double(), "R": R.double(), "rho": rho.double(), "gamma": 0.9}


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("P", torch.full((2, 1, 3), 1 / 3).double(), r"P must be \[2, 1, 2\]"),
        ("P", torch.full((2, 1, 2), 0.5), r"must be float64.*call .double\(\)"),
        ("P", torch.full((2, 1, 2), 0.5 + 1e-8, dtype=torch.float64), r"P\[0\]\[0\] is no distribution: it sums to 1.00000002"),
        ("P", torch.tensor([[[1.5, -0.5]], [[0.5, 0.5]]]).double(), r"P\[0\]\[0\] is no distribution.*least entry is -0.5"),
        ("rho", torch.tensor([0.3, 0.3]).double(), r"rho is no distribution: it sums to 0.6"),
        ("R", torch.tensor([[1.0], [math.nan]]).double(), r"R\[1\]\[0\] is nan"),
        ("gamma", 1.0, r"gamma must lie in \[0, 1\), not 1.0"),
        ("sign", "profit", "sign must be 'reward' or 'cost', not 'profit'"),
        ("radius", 2.5, r"radius must lie in \[0, 2\], not 2.5"),
    ],
)
def test_an_unsound_model_is_refused_by_name(field, value, said):
    TabularMDP(**sound())
    with pytest.raises(ValueError, match=said):
        TabularMDP(**{**sound(), field: value})


def test_unsound_options_are_refused():
    with pytest.raises(ValueError, match=r"branch must lie in 1..6"):
        Garnet(branch=7)
    with pytest.raises(ValueError, match="slip lies in"):
        ChainWalk(slip=1.5)


# ---------------------------------------------------------------------------------------- models


def test_a_softmax_table_is_a_policy():
    logits = torch.tensor([[0.0, 1.0, 2.0], [3.0, 0.0, 0.0]]).double()
    policy = TabularSoftmax(logits)
    obs, action = torch.tensor([[0, 1]]), torch.tensor([[2, 0]])
    logp, entropy = policy.logp_entropy(obs, action, torch.ones(1, 2))
    p = logits.exp() / logits.exp().sum(-1, keepdim=True)
    assert torch.allclose(logp, torch.stack([p[0, 2], p[1, 0]])[None].log())
    assert torch.allclose(entropy, -(p * p.log()).sum(-1)[None])
    assert policy.act(torch.tensor([0, 1]), torch.Generator(), greedy=True).tolist() == [2, 0]


def test_samples_are_as_frequent_as_they_are_probable():
    policy = TabularDirect(torch.tensor([[0.2, 0.8], [1.0, 0.0]]).double())
    action, logp = policy.sample(torch.zeros(20000, dtype=torch.long), Stream(0).torch())
    assert float(action.double().mean()) == pytest.approx(0.8, abs=0.01)
    assert torch.allclose(logp, torch.tensor([0.2, 0.8]).double().log()[action])
    assert policy.sample(torch.ones(50, dtype=torch.long), Stream(0).torch())[0].sum() == 0
    assert torch.isfinite(policy.logp_entropy(torch.tensor([1]), torch.tensor([0]), None)[1]).all()


def test_a_table_is_saved():
    one, two = (TabularDirect(torch.full((2, 2), p).double()) for p in (0.5, 0.1))
    two.load_state_dict(one.state_dict())
    assert torch.equal(two.probs(), one.probs())
    assert not list(one.parameters())
    reward = TabularReward(torch.zeros(2, 3).double())
    assert reward(torch.tensor([[1]]), torch.tensor([[2]])).tolist() == [[0.0]]
