"""Planning, projections and mirror steps: against enumeration, finite differences and the conditions of an optimum."""

import itertools

import pytest
import torch

from steepest.core import Stream
from steepest.optimize.mirror import geo_mix, mirror_step
from steepest.optimize.planning import direct_gradient, greedy, occupancy, policy_iteration, softmax_gradient, value_iteration
from steepest.optimize.projection import l1_ball, simplex
from steepest.problems.tabular import ChainWalk, Garnet, simplex_noise

MDPS = [Garnet(states=4, actions=3, branch=2, sign=sign, seed=seed).model for sign in ("reward", "cost") for seed in range(2)]
MDPS.append(ChainWalk(states=4).model)
each = pytest.mark.parametrize("mdp", MDPS, ids=range(len(MDPS)))


def some_policy(mdp):
    return simplex_noise(tuple(mdp.R.shape), Stream(1, "policy").torch())


def objective(mdp, pi):
    return mdp.rho @ mdp.values(pi)[0]


# -------------------------------------------------------------------------------------- planning


@each
def test_the_optimum_is_the_best_of_all_deterministic_policies(mdp):
    states, actions = mdp.R.shape
    eye = torch.eye(actions, dtype=torch.float64)
    all_values = torch.stack([mdp.values(eye[list(a)])[0] for a in itertools.product(range(actions), repeat=states)])
    best = mdp.direction * (mdp.direction * all_values).amax(0)
    for v, pi in (value_iteration(mdp), policy_iteration(mdp)):
        assert torch.allclose(v, best, atol=1e-9)
        assert torch.allclose(mdp.values(pi)[0], best, atol=1e-9)


@each
def test_value_iteration_is_as_near_as_it_says(mdp):
    best = policy_iteration(mdp)[0]
    for tolerance in (1.0, 1e-2, 1e-6):
        assert float((value_iteration(mdp, tolerance=tolerance)[0] - best).abs().max()) <= tolerance


@each
def test_occupancies_are_visits_counted_step_by_step(mdp):
    pi = some_policy(mdp)
    d = occupancy(mdp, pi)
    assert float(d.sum()) == pytest.approx(1 / (1 - mdp.gamma))
    at, counted = mdp.rho, torch.zeros_like(d)
    for t in range(400):
        counted += mdp.gamma**t * at[:, None] * pi
        at = torch.einsum("s,sa,sat->t", at, pi, mdp.P)
    assert torch.allclose(d, counted, atol=1e-12)
    assert float((d * mdp.R).sum()) == pytest.approx(float(objective(mdp, pi)))


@each
def test_the_gradients_are_those_of_finite_differences(mdp):
    pi, step = some_policy(mdp), 1e-6
    logits = pi.log()

    def slopes(function, x):
        numeric = torch.zeros_like(x)
        for index in itertools.product(*map(range, x.shape)):
            move = torch.zeros_like(x)
            move[index] = step
            numeric[index] = (function(x + move) - function(x - move)) / (2 * step)
        return numeric

    assert torch.allclose(softmax_gradient(mdp, logits), slopes(lambda x: objective(mdp, x.softmax(-1)), logits), atol=1e-6)
    assert torch.allclose(direct_gradient(mdp, pi), slopes(lambda x: objective(mdp, x), pi), atol=1e-5)


@each
def test_no_direction_is_uphill_at_the_optimum(mdp):
    pi = policy_iteration(mdp)[1]
    up = mdp.direction * direct_gradient(mdp, pi)
    assert float((up.amax(-1) - (pi * up).sum(-1)).max()) <= 1e-9


def test_greedy_takes_the_first_of_ties():
    q = torch.tensor([[1.0, 2.0, 2.0], [0.0, 0.0, -1.0]]).double()
    reward, cost = Garnet(sign="reward").model, Garnet(sign="cost").model
    assert greedy(reward, q).argmax(-1).tolist() == [1, 0]
    assert greedy(cost, q).argmax(-1).tolist() == [0, 2]


# ----------------------------------------------------------------------------------- projections


def is_projection(x, y, feasible):
    """y is the nearest point of a convex set to x iff <x - y, z - y> <= 0 for every z of the set."""
    return all(float(((x - y) * (z - y)).sum()) <= 1e-10 for z in feasible)


def points(n, seed=0, scale=2.0):
    return scale * torch.randn(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("total", [1.0, 0.3, 4.0])
def test_the_simplex_projection_obeys_the_conditions_of_the_nearest_point(total):
    for seed in range(20):
        x = points(6, seed)
        y = simplex(x, total)
        assert float(y.min()) >= 0
        assert float(y.sum()) == pytest.approx(total)
        assert is_projection(x, y, total * torch.eye(6, dtype=torch.float64))  # linear in z: its corners suffice
        assert torch.allclose(simplex(y, total), y, atol=1e-12)
        assert torch.allclose(simplex(x + 7.0, total), y, atol=1e-12)


def test_rows_are_projected_alone():
    x = torch.stack([points(4, s) for s in range(3)])
    assert torch.allclose(simplex(x), torch.stack([simplex(row) for row in x]))
    with pytest.raises(ValueError, match="total must be positive"):
        simplex(x, 0.0)


@pytest.mark.parametrize("radius", [0.5, 1.0])
def test_the_ball_projection_obeys_the_conditions_of_the_nearest_point(radius):
    for seed in range(20):
        x, centre = points(6, seed).view(2, 3), points(6, seed + 100, 0.3).view(2, 3)
        y = l1_ball(x, centre, radius)
        assert float((y - centre).abs().sum()) <= radius + 1e-12
        corners = torch.cat([torch.eye(6), -torch.eye(6)]).double().view(12, 2, 3)
        assert is_projection(x, y, centre + radius * corners)


def test_what_lies_in_the_ball_stays():
    centre = torch.ones(3).double()
    x = centre + torch.tensor([0.2, -0.3, 0.1])
    assert torch.equal(l1_ball(x, centre, 1.0), x)


# ---------------------------------------------------------------------------------- mirror steps


def test_a_mirror_step_solves_its_problem():
    """p maximises <p, q> - KL(p || p0) / eta over the simplex: at the maximum q - (log p - log p0) / eta is one constant."""
    logp, q, eta = points(5, 1).log_softmax(0), points(5, 2), 0.7
    new = mirror_step(logp, q, eta)
    assert float(new.exp().sum()) == pytest.approx(1.0)
    slope = q - (new - logp) / eta
    assert torch.allclose(slope, slope.mean().expand(5), atol=1e-12)
    value = (new.exp() * (q - (new - logp) / eta)).sum()
    for seed in range(3, 30):
        other = points(5, seed).log_softmax(0)
        assert float((other.exp() * (q - (other - logp) / eta)).sum()) < float(value)
    assert torch.allclose(mirror_step(logp, q, 0.0), logp)


def test_a_geometric_mixture_lies_between():
    p, q = points(5, 1).log_softmax(0), points(5, 2).log_softmax(0)
    assert torch.allclose(geo_mix(p, q, 0.0), p)
    assert torch.allclose(geo_mix(p, q, 1.0), q)
    mix = p.exp() ** 0.7 * q.exp() ** 0.3
    assert torch.allclose(geo_mix(p, q, 0.3).exp(), mix / mix.sum())
