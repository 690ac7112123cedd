"""Second order: every solver against a closed form, and trust regions that hold."""

import copy
import math

import pytest
import torch
from torch import nn

from steepest.core import Batch, State, Stream, train
from steepest.engines.policy_gradient import PolicyObjective
from steepest.losses import reinforce, surrogate, token_mean
from steepest.models.control import control_policy
from steepest.models.distributions import Categorical
from steepest.optimize.epochs import Epochs
from steepest.optimize.natural import TrustRegion, backtrack, conjugate_gradient, flat, hessian_product, mean_kl, watched, write
from steepest.optimize.schedules import annealed
from steepest.problems.control import CartPole, PointMass
from steepest.systems.on_policy.trpo import trpo


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_conjugate_gradient_is_exact_after_as_many_steps_as_unknowns():
    root, b = random(7, 7), random(7, seed=1)
    matrix = root @ root.T + 0.1 * torch.eye(7)
    x = conjugate_gradient(lambda v: matrix @ v, b, steps=7, tolerance=0.0)
    assert torch.allclose(matrix @ x, b, atol=1e-8)
    assert torch.allclose(x, torch.linalg.solve(matrix, b), atol=1e-7)
    assert not torch.allclose(matrix @ conjugate_gradient(lambda v: matrix @ v, b, steps=3), b, atol=1e-3)


def test_conjugate_gradient_stops_when_it_has_arrived():
    calls = []

    def product(v):
        calls.append(1)
        return 2 * v

    b = random(5)
    assert torch.allclose(conjugate_gradient(product, b, steps=50), b / 2)
    assert len(calls) == 1
    assert not conjugate_gradient(product, torch.zeros(5)).any()


def test_backtracking_takes_the_first_step_that_is_accepted():
    assert backtrack(lambda share: share < 0.3) == 0.25
    assert backtrack(lambda share: True) == 1.0
    assert backtrack(lambda share: share < 0.3, tries=2) == 0.0
    assert backtrack(lambda share: share < 0.1, shrink=0.25) == 0.0625


def test_flat_and_write_are_inverse():
    params = [nn.Parameter(random(2, 3)), nn.Parameter(random(4))]
    vector = flat(params).detach()
    write(params, 2 * vector)
    assert torch.equal(flat(params), 2 * vector)
    assert [p.shape for p in params] == [(2, 3), (4,)]


def test_hessian_product_is_the_hessian():
    w = nn.Parameter(random(6))

    def scalar(w):
        return (w**4).sum() + (w[:3] * w[3:]).prod()

    v = random(6, seed=1)
    full = torch.autograd.functional.hessian(scalar, w.detach())
    product = hessian_product(scalar(w), [w], damping=0.5)
    assert torch.allclose(product(v), full @ v + 0.5 * v)
    assert torch.allclose(product(v), full @ v + 0.5 * v)  # again: the graph is kept


@pytest.mark.parametrize("problem", [CartPole(), PointMass()], ids=["categorical", "gaussian"])
def test_the_fisher_product_of_a_policy_is_its_explicit_hessian(problem):
    """A net of 2 hidden units, every entry, against torch.distributions' divergence of a network written out here."""
    policy = control_policy(problem, Stream(0), width=2, depth=1).double()
    generator = Stream(1).torch()
    obs = torch.randn(40, 1, 4, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        for p in policy.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=generator))
        old = policy.distribution(obs)
    batch = Batch(obs, None, None, torch.zeros(40, 1), torch.ones(40, 1), torch.arange(40))
    params = list(policy.parameters())
    product = hessian_product(mean_kl(policy, old, batch), params)
    size = len(flat(params))
    got = torch.stack([product(v) for v in torch.eye(size, dtype=torch.float64)])

    def plainly(vector):
        given = dict(zip([name for name, _ in policy.named_parameters()], vector.split([len(p) for p in params]), strict=True))
        inputs, hidden, out = policy.net.sizes
        a, b, c, d = given["net.theta"].split([inputs * hidden, hidden, hidden * out, out])
        y = (obs @ a.view(inputs, hidden) + b).tanh() @ c.view(hidden, out) + d
        if isinstance(old, Categorical):
            return (old.logits.exp() * (old.logits - y.log_softmax(-1))).sum(-1).mean()
        first = torch.distributions.Normal(old.mean, old.log_std.exp().expand_as(old.mean))
        second = torch.distributions.Normal(y, given["log_std"].exp().expand_as(y))
        return torch.distributions.kl_divergence(first, second).sum(-1).mean()

    explicit = torch.autograd.functional.hessian(plainly, flat(params).detach())
    assert torch.allclose(got, explicit, atol=1e-8)
    assert got.abs().max() > 0.1


class Softmax(nn.Module):
    """Arms: one state, a softmax over scores. obs [N, T, 1], action [N, T] long."""

    markov = True

    def __init__(self, scores):
        super().__init__()
        self.scores = nn.Parameter(scores)

    def distribution(self, obs):
        return Categorical.of(self.scores.expand(*obs.shape[:-1], -1))

    def kl(self, old, obs):
        return old.kl(self.distribution(obs))

    def logp(self, obs, action, mask):
        return self.distribution(obs).logp(action)


def arms(count=600):
    """Every arm with its share of the decisions, so that means over the batch are expectations."""
    p = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    action = torch.repeat_interleave(torch.arange(3), (count * p).long())[:, None]
    state = State(policy=Softmax(p.log()))
    advantage = torch.tensor([-1.0, 0.5, 1.75], dtype=torch.float64)[action]  # mean 0 under p
    ones = torch.ones(count, 1, dtype=torch.float64)
    logp = state.policy.logp(torch.zeros(count, 1, 1), action, ones).detach()
    batch = Batch(torch.zeros(count, 1, 1), action, logp, ones, ones, torch.arange(count), advantage=advantage)
    return state, batch, p


def test_the_step_is_the_natural_gradient_in_closed_form():
    """Of a softmax: F = diag(p) - p p', g = p A, F^+ g = A up to a constant; the step is sqrt(2 delta / g'F^+g) A."""
    state, batch, p = arms()
    start = state.policy.scores.detach().clone()
    region = TrustRegion(max_kl=1e-4, damping=0.0, steps=3)
    told = region(state, PolicyObjective(surrogate(), token_mean), batch, Stream(0))
    advantage = torch.tensor([-1.0, 0.5, 1.75], dtype=torch.float64)
    step = math.sqrt(2e-4 / float((p * advantage**2).sum())) * advantage
    moved = state.policy.scores.detach() - start
    assert told["step"] in (1.0, 0.5)
    assert torch.allclose(moved - moved.mean(), told["step"] * (step - step.mean()), atol=1e-7)
    assert told["gain"] == pytest.approx(told["step"] * math.sqrt(2e-4 * float((p * advantage**2).sum())), rel=0.02)


def test_a_first_step_within_the_bound_is_taken_whole():
    """KL(p || q) along t A is log E exp(t A), t^2 var / 2 + t^3 skew / 6 + ...: with negative skew a full step keeps it."""
    state, batch, p = arms()
    start = state.policy.scores.detach().clone()
    batch = batch.having(advantage=-batch.advantage)
    advantage = torch.tensor([1.0, -0.5, -1.75], dtype=torch.float64)
    assert float(p @ advantage**3) < 0
    region = watched(TrustRegion(max_kl=1e-3, damping=0.0, steps=3))
    told = region(state, PolicyObjective(surrogate(), token_mean), batch, Stream(0))
    fisher = torch.diag(p) - torch.outer(p, p)
    x = torch.linalg.lstsq(fisher, p * advantage, driver="gelsd").solution
    expected = math.sqrt(2e-3 / float(x @ fisher @ x)) * x
    assert told["step"] == 1.0
    assert torch.allclose(state.policy.scores.detach() - start, expected, atol=1e-6)  # both without a part along (1, 1, 1)
    assert told["kl_mean"] == pytest.approx(1e-3, rel=0.05)
    assert told["kl_mean"] <= 1e-3


def test_the_second_derivative_of_the_divergence_is_the_fisher_matrix():
    """E grad log p(a) grad log p(a)', arm by arm."""
    state, batch, p = arms()
    with torch.no_grad():
        old = state.policy.distribution(batch.obs)
    product = hessian_product(mean_kl(state.policy, old, batch), [state.policy.scores])
    score = torch.eye(3, dtype=torch.float64) - p  # row a: d log p(a) / d scores
    fisher = sum(p[a] * torch.outer(score[a], score[a]) for a in range(3))
    assert torch.allclose(torch.stack([product(v) for v in torch.eye(3, dtype=torch.float64)]), fisher, atol=1e-10)


def test_damping_turns_the_step_towards_the_plain_gradient():
    state, batch, p = arms()
    start = state.policy.scores.detach().clone()
    TrustRegion(max_kl=1e-4, damping=1e4, steps=3)(state, PolicyObjective(surrogate(), token_mean), batch, Stream(0))
    moved = state.policy.scores.detach() - start
    plain = p * torch.tensor([-1.0, 0.5, 1.75], dtype=torch.float64)
    assert float(moved @ plain / moved.norm() / plain.norm()) > 0.9999


def test_the_direction_does_not_depend_on_how_the_policy_is_written():
    """Scores = M x for an invertible M: the policy moves to the same probabilities."""

    class Mixed(Softmax):
        def __init__(self, scores, mix):
            super().__init__(torch.linalg.solve(mix, scores))
            self.mix = mix

        def distribution(self, obs):
            return Categorical.of((self.mix @ self.scores).expand(*obs.shape[:-1], -1))

    state, batch, _ = arms()
    other = State(policy=Mixed(state.policy.scores.detach(), random(3, 3, seed=4) + 3 * torch.eye(3)))
    region = TrustRegion(max_kl=1e-3, damping=0.0, steps=3)
    for one in (state, other):
        region(one, PolicyObjective(surrogate(), token_mean), batch, Stream(0))
    a, b = (one.policy.distribution(torch.zeros(1, 1)).logits for one in (state, other))
    assert torch.allclose(a, b, atol=1e-6)


def test_a_step_that_gains_nothing_is_taken_back():
    state, batch, _ = arms()
    before = state.policy.scores.detach().clone()

    class Liar(PolicyObjective):
        def value(self, state, batch):
            value = super().value(state, batch)
            return value if torch.is_grad_enabled() else value + 1.0  # whatever is tried is worse

    told = TrustRegion()(state, Liar(surrogate(), token_mean), batch, Stream(0))
    assert told["step"] == 0.0
    assert told["gain"] == 0.0
    assert torch.equal(state.policy.scores, before)


def test_a_region_moves_the_policy_alone():
    state, batch, _ = arms()
    state.critic = nn.Linear(2, 1)
    before = copy.deepcopy(state.critic.state_dict())
    assert TrustRegion()(state, PolicyObjective(surrogate(), token_mean), batch, Stream(0))["step"] > 0
    assert all(torch.equal(x, before[name]) for name, x in state.critic.state_dict().items())
    assert state.policy.scores.grad is None  # nor is anything left behind for an optimizer


def test_no_advantage_moves_nothing():
    state, batch, _ = arms()
    before = state.policy.scores.detach().clone()
    told = TrustRegion()(state, PolicyObjective(surrogate(), token_mean), batch.having(advantage=0 * batch.advantage), Stream(0))
    assert told["step"] == 0.0
    assert torch.equal(state.policy.scores, before)


@pytest.mark.parametrize("problem", [CartPole(), PointMass()], ids=["categorical", "gaussian"])
def test_trpo_keeps_its_bound_and_gains_in_every_update(problem):
    told = [r.metrics for r in train(trpo(envs=8, horizon=64, critic_minibatches=2), problem, steps=10)]
    assert all(0 < row["kl_mean"] <= 0.01 * (1 + 1e-5) for row in told)
    assert all(row["gain"] > 0 and row["step"] > 0 for row in told)
    assert any(row["kl_mean"] > 0.004 for row in told)  # and is not kept by standing still


def test_the_line_search_holds_a_bound_that_the_quadratic_model_breaks():
    told = []
    for tries in (10, 1):
        state, batch, _ = arms()
        region = watched(TrustRegion(max_kl=0.3, damping=0.0, steps=3, tries=tries))
        told.append(region(state, PolicyObjective(surrogate(), token_mean), batch, Stream(0)))
    assert 0 < told[0]["kl_mean"] <= 0.3
    assert told[0]["step"] < 1  # the full step was too long
    assert told[1]["step"] == 0  # and would have been refused


def test_watched_measures_what_the_update_did():
    state, batch, p = arms()
    state.optimizers["policy"] = torch.optim.SGD(state.policy.parameters(), 0.5)
    told = watched(Epochs(1, 1, max_norm=math.inf))(state, PolicyObjective(reinforce(), token_mean), batch, Stream(0))
    after = state.policy.scores.detach().log_softmax(0)
    kl = float((p * (p.log() - after)).sum())
    assert told["kl_mean"] == pytest.approx(kl)
    assert told["kl_max"] == pytest.approx(kl)
    assert kl > 0.01


class Table(Softmax):
    """A softmax for each of S states. obs [N, T] long."""

    def distribution(self, obs):
        return Categorical.of(self.scores[obs])


def test_watched_tells_the_mean_from_the_worst_and_leaves_out_what_was_not_decided():
    state = State(policy=Table(torch.zeros(3, 2, dtype=torch.float64)))
    obs, mask = torch.tensor([[0, 1], [0, 2]]), torch.tensor([[1.0, 1.0], [1.0, 0.0]], dtype=torch.float64)
    batch = Batch(obs, torch.zeros(2, 2, dtype=torch.long), None, mask, mask, torch.arange(2))

    def jump(state, objective, batch, rng):
        with torch.no_grad():
            state.policy.scores.copy_(torch.tensor([[0.0, 0.0], [1.0, 0.0], [9.0, 0.0]]))
        return {"own": 1.0}

    told = watched(jump)(state, None, batch, Stream(0))
    far = math.log((1 + math.e) / 2) - 0.5  # KL of (1/2, 1/2) from a softmax of (1, 0)
    assert told == {"own": 1.0, "kl_mean": pytest.approx(far / 3), "kl_max": pytest.approx(far)}


def test_watched_says_nothing_of_a_policy_without_a_closed_form():
    told = watched(lambda *_: {"own": 1.0})(State(policy=nn.Linear(1, 1)), None, None, Stream(0))
    assert told == {"own": 1.0}


def test_a_learning_rate_falls_linearly_and_follows_the_step_counter():
    state, batch, _ = arms()
    state.optimizers["policy"] = torch.optim.SGD(state.policy.parameters(), 123.0)
    update = annealed(Epochs(1, 1, max_norm=math.inf), lr=0.4, steps=4)
    rates = []
    for state.step in (0, 1, 3, 4, 9):
        before = copy.deepcopy(state.policy.scores.detach())
        rates.append(update(state, PolicyObjective(reinforce(), token_mean), batch, Stream(0))["lr"])
        moved = not torch.equal(before, state.policy.scores)
        assert moved == (rates[-1] > 0)
    assert rates == pytest.approx([0.4, 0.3, 0.1, 0.0, 0.0])


def test_what_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match="max_kl must be positive"):
        TrustRegion(max_kl=0.0)
    with pytest.raises(ValueError, match=r"shrink must lie in \(0, 1\)"):
        TrustRegion(shrink=1.0)
    with pytest.raises(ValueError, match="damping must be at least 0"):
        TrustRegion(damping=-0.1)
    with pytest.raises(ValueError, match="steps must be at least 1"):
        TrustRegion(steps=0)
    with pytest.raises(ValueError, match="tries must be at least 1"):
        TrustRegion(tries=0)
    with pytest.raises(ValueError, match="annealed over at least 1 step"):
        annealed(Epochs(), lr=1.0, steps=0)
    state, batch, _ = arms()
    state.policy = nn.Linear(1, 1)
    with pytest.raises(TypeError, match=r"KL\(old \|\| new\) in closed form, which Linear has not"):
        TrustRegion()(state, PolicyObjective(surrogate(), token_mean), batch, Stream(0))
