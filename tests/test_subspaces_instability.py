"""Curved directions and directions in which decisions are lost: exact invariants, then PPO that measures itself."""

import math
from functools import partial

import numpy as np
import pytest
import torch

from steepest.core import Stream, begin, train
from steepest.core.check import check_problem, check_system
from steepest.evidence.claim import Run
from steepest.evidence.on_policy.pg_subspaces import claim as subspaces_claim
from steepest.evidence.on_policy.policy_instability import claim as instability_claim
from steepest.optimize.lanczos import lanczos
from steepest.problems.control import CartPole, PointMass
from steepest.problems.distracted import DistractedCartPole
from steepest.systems.on_policy.pg_subspaces import at_random, fraction, overlap, pg_subspaces
from steepest.systems.on_policy.policy_instability import (
    attacked,
    halves,
    policy_instability,
    principal,
    quotient,
    sensitivities,
    shifted,
    spread,
)
from steepest.systems.on_policy.ppo import ppo

SMALL = {"envs": 4, "horizon": 16, "width": 4, "epochs": 2, "minibatches": 2}


def symmetric(n, seed=0):
    x = torch.randn(n, n, generator=Stream(seed, "symmetric").torch()).double()
    return x + x.T


# ------------------------------------------------------------------------------------------ Lanczos


def test_lanczos_with_all_products_is_the_eigendecomposition():
    a = symmetric(12)
    values, vectors = lanczos(lambda v: a @ v, torch.zeros(12).double(), 12, Stream(0), steps=12)
    truth = torch.linalg.eigvalsh(a)
    assert torch.allclose(values, truth[truth.abs().argsort(descending=True)])
    assert torch.allclose(a @ vectors, vectors * values, atol=1e-9)
    assert torch.allclose(vectors.T @ vectors, torch.eye(12).double(), atol=1e-12)


def test_lanczos_finds_the_largest_with_few_products_of_a_large_matrix():
    g = Stream(1).torch()
    q = torch.linalg.qr(torch.randn(200, 200, generator=g).double())[0]
    spectrum = torch.cat([torch.tensor([-9.0, 7.0, 5.0]), 0.1 * torch.randn(197, generator=g)]).double()
    a = (q * spectrum) @ q.T
    values, vectors = lanczos(lambda v: a @ v, torch.zeros(200).double(), 3, Stream(2))
    assert values.tolist() == pytest.approx([-9.0, 7.0, 5.0])
    assert overlap(q[:, :3], vectors) == pytest.approx(1.0)


def test_lanczos_goes_on_where_the_space_is_closed():
    """The identity closes after one product, a matrix of rank one after two."""
    assert lanczos(lambda v: v, torch.zeros(5).double(), 5, Stream(0))[0].tolist() == pytest.approx([1.0] * 5)
    u = torch.tensor([3.0, 4.0, 0.0, 0.0]).double()
    values, vectors = lanczos(lambda v: u * (u @ v), u, 4, Stream(0))
    assert values.tolist() == pytest.approx([25.0, 0.0, 0.0, 0.0], abs=1e-9)
    assert abs(float(vectors[:, 0] @ u)) == pytest.approx(5.0)


def test_lanczos_refuses_what_makes_no_sense():
    with pytest.raises(ValueError, match="has 1 to 3 eigenvectors, not 4"):
        lanczos(lambda v: v, torch.zeros(3), 4, Stream(0))
    with pytest.raises(ValueError, match="at least as many products"):
        lanczos(lambda v: v, torch.zeros(9), 4, Stream(0), steps=3)
    g = torch.Generator().manual_seed(0)
    with pytest.raises(ValueError, match="such as dropout"):
        lanczos(lambda v: v * (torch.rand(9, generator=g) > 0.5), torch.zeros(9), 2, Stream(0))


def test_fractions_and_overlaps():
    g = Stream(0).torch()
    q = torch.linalg.qr(torch.randn(20, 20, generator=g).double())[0]
    x = torch.randn(20, generator=g)
    assert fraction(q, x) == pytest.approx(1.0)
    assert fraction(q[:, :5], q[:, 7]) == pytest.approx(0.0, abs=1e-20)
    assert fraction(q[:, :5], 3 * q[:, 2]) == pytest.approx(1.0)
    assert fraction(q, torch.zeros(20)) == 0.0
    assert overlap(q[:, :5], q[:, :5]) == pytest.approx(1.0)
    assert overlap(q[:, :4], q[:, 2:6]) == pytest.approx(0.5)
    drawn = [fraction(at_random(lambda v: v, x, 4, Stream(i)), x) for i in range(300)]
    assert sum(drawn) / 300 == pytest.approx(4 / 20, abs=0.02)


def test_all_directions_hold_the_whole_gradient():
    size = sum(p.numel() for p in begin(ppo(**SMALL), CartPole()).policy.parameters())
    record = next(iter(train(pg_subspaces(count=size, **SMALL), CartPole(), steps=1)))
    assert record.metrics["fraction"] == pytest.approx(1.0, abs=1e-6)
    assert record.metrics["fraction_small"] == pytest.approx(1.0, abs=1e-6)
    with pytest.raises(ValueError, match="cannot be told apart"):
        begin(pg_subspaces(count=size + 1, **SMALL), CartPole())
    with pytest.raises(ValueError, match="must be at least 1"):
        pg_subspaces(every=0)


@pytest.mark.parametrize("system", [pg_subspaces, policy_instability])
def test_who_measures_trains_the_same_policy(system):
    measured, plain = (list(train(s, CartPole(), steps=3))[-1].state for s in (system(every=2, **SMALL), ppo(**SMALL)))
    assert all(torch.equal(a, b) for a, b in zip(measured.policy.parameters(), plain.policy.parameters(), strict=True))


def test_a_subspace_is_compared_with_the_one_before():
    rows = [r.metrics for r in train(pg_subspaces(every=2, count=5, **SMALL), PointMass(limit=9), steps=5)]
    assert ["fraction" in row for row in rows] == [True, False, True, False, True]
    assert ["overlap" in row for row in rows] == [False, False, True, False, True]
    assert all(0 <= row["overlap"] <= 1 + 1e-9 for row in rows if "overlap" in row)


# ------------------------------------------------------------------------------------------ directions


def some_directions(seed=0, rows=40):
    g = Stream(seed, "v").torch()
    return torch.randn(rows, 6, generator=g) * torch.tensor([3.0, 1, 1, 1, 1, 0.3])


def test_quotients_lie_between_0_and_1_and_are_1_with_oneself():
    for seed in range(20):
        one, two = spread(some_directions(seed)), spread(some_directions(seed + 100).flip(1))
        assert quotient(principal(one), one) == pytest.approx(1.0)
        assert -1e-12 <= quotient(principal(two), one) <= 1 + 1e-12
    assert quotient(torch.eye(6).double()[1], spread(torch.eye(6)[:1].repeat(2, 1))) == 0.0


def test_one_direction_is_found_and_turns_with_the_inputs():
    u = torch.tensor([0.6, 0.0, -0.8])
    g = principal(spread(torch.stack([u, -2 * u, 0 * u, 5 * u])))
    assert torch.allclose(g, -u.double())  # lengths, signs and a state without a gradient do not count
    turn = torch.linalg.qr(symmetric(6))[0].float()
    v = some_directions()
    before, after = principal(spread(v)), principal(spread(v @ turn))
    assert abs(float(after @ (before @ turn.double()))) == pytest.approx(1.0, abs=1e-6)


def test_sensitivities_are_the_gradient_of_the_cross_entropy_with_the_likeliest():
    policy = begin(ppo(**SMALL), CartPole()).policy
    obs = torch.randn(5, 4, generator=Stream(0).torch())
    found = sensitivities(policy, obs)
    for i in range(5):
        leaf = obs[i : i + 1].clone().requires_grad_()
        logits = policy.distribution(leaf).logits
        loss = torch.nn.functional.cross_entropy(logits, logits.argmax(-1))
        assert torch.allclose(torch.autograd.grad(loss, leaf)[0][0], found[i], atol=1e-7)
    moved = obs + 1e-2 * found.sign()
    assert torch.equal(attacked(policy, obs, found, Stream(0), size=1e-2)[1], sensitivities(policy, moved))
    likeliest = policy.distribution(obs).mode()

    def decided(x):
        return policy.distribution(x).logp(likeliest)

    assert (decided(moved) < decided(obs)).all()
    assert torch.equal(shifted(policy, obs, found, Stream(0))[1], sensitivities(policy, obs + 0.5))
    assert shifted(policy, obs, found, Stream(0))[0] is attacked(policy, obs, found, Stream(0))[0] is found
    one, two = halves(policy, obs, found, Stream(0))
    assert sorted(torch.cat([one, two]).tolist()) == sorted(found.tolist())


def test_directions_of_nothing_are_refused():
    with pytest.raises(ValueError, match="at least 2 states"):
        spread(torch.ones(1, 3))
    with pytest.raises(ValueError, match="gradients are all 0"):
        spread(torch.zeros(4, 3))
    with pytest.raises(ValueError, match="every must be at least 1"):
        policy_instability(every=0)


def test_waves_are_no_part_of_the_pole():
    check_problem(DistractedCartPole(limit=20, distractors=3))
    plain, among = CartPole(), DistractedCartPole(distractors=3)
    u = np.random.default_rng(0).uniform(size=(5, 7))
    state, other = among.start(u), plain.start(u[:, :4])
    for action in (0, 1, 1, 0):
        (state, _, over), (other, _, ended) = (p.move(s, np.full(5, action)) for p, s in ((among, state), (plain, other)))
        assert np.array_equal(among.see(state)[:, :4], plain.see(other))
        assert np.array_equal(over, ended)
    assert among.see(state).shape == (5, 7) == (5, *among.observation_space.shape)
    assert np.abs(among.see(state)[:, 4:]).max() <= 1
    with pytest.raises(ValueError, match="distractors must be at least 1"):
        DistractedCartPole(distractors=0)


def test_figures_are_reported_while_training():
    rows = [r.metrics for r in train(policy_instability(every=2, **SMALL), DistractedCartPole(limit=30), steps=3)]
    assert ["quotient" in row for row in rows] == [True, False, True]
    assert "drift" in rows[2]
    assert all(0 <= row["quotient"] <= 1 and row["length_variance"] >= 0 for row in rows[::2])


# ------------------------------------------------------------------------------------------ both


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (partial(pg_subspaces, every=2, count=3, **SMALL), partial(CartPole, limit=7)),
        (partial(policy_instability, every=2, **SMALL), partial(DistractedCartPole, limit=7, distractors=2)),
    ],
    ids=["pg_subspaces", "policy_instability"],
)
def test_they_conform(make, problem):
    assert check_system(make, problem)[-1] == "resume is bitwise in a fresh process"


@pytest.mark.parametrize("claim", [subspaces_claim, instability_claim], ids=["pg_subspaces", "policy_instability"])
def test_claims_run_at_a_smaller_size(claim):
    problem = claim.problem()
    for arm in (claim.ours, claim.baseline):
        records = list(train(partial(arm, **SMALL)(), problem, steps=1))
        run = Run(0, [r.metrics for r in records], records[-1].state, problem)
        assert math.isfinite(claim.measure(run))
        assert all(claim.figure in row for row in run.steps)
