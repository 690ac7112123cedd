"""LPO: a drift that is a network keeps what makes a drift one, learners do not meet, and evolution climbs."""

from functools import partial

import pytest
import torch
from torch.nn.utils import parameters_to_vector

from steepest.core import Stream, begin, train
from steepest.core.check import check_system
from steepest.evidence.claim import Run
from steepest.evidence.on_policy.lpo import claim, fixed, kept
from steepest.losses import clip_drift, mirror_drift
from steepest.losses.check import check_loss
from steepest.models.drift import DriftNet, drift_of, features
from steepest.problems.bandits import Bandits, Luck
from steepest.problems.control import CartPole
from steepest.systems.on_policy.lpo import Learner, Tried, lpo, slope
from steepest.systems.on_policy.ppo import ppo

SMALL = {"hidden": 4, "pairs": 3, "epochs": 2}
FEW = {"arms": 3, "count": 4, "rounds": 2, "pulls": 5, "tests": 20}


def net(seed=0, scale=1.0):
    with Stream(seed).fork():
        made = DriftNet(16)
        made.outer.data.normal_(0, scale)
    return made


# ---------------------------------------------------------------------------------- conformance


def test_it_conforms_in_a_fresh_process():
    assert check_system(partial(lpo, **SMALL), partial(Bandits, **FEW))[-1] == "resume is bitwise in a fresh process"


def test_ppo_conforms_with_a_learned_drift():
    """Bug that it catches: a drift whose weights gather gradients, which changes something outside State."""
    make = partial(ppo, loss=mirror_drift(drift=net()), envs=2, horizon=8, minibatches=2, epochs=2, width=8)
    assert check_system(make, CartPole, fresh=False)[-1] == "resume is bitwise"


# ---------------------------------------------------------------------------------- the drift


@pytest.mark.parametrize("seed", range(3))
def test_whatever_the_weights_a_drift_is_never_negative_and_flat_and_nothing_at_ratio_1(seed):
    drift, g = net(seed, 5.0), Stream(seed).torch()
    log_ratio, advantage = torch.randn(500, generator=g), 3 * torch.randn(500, generator=g)
    paid = drift(log_ratio, advantage)
    assert (paid >= 0).all()
    assert (paid > 0).any()
    at_one = torch.zeros(500, requires_grad=True)
    none = drift(at_one, advantage)
    assert (none == 0).all()
    assert (torch.autograd.grad(none.sum(), at_one)[0] == 0).all()


def test_a_bias_would_break_it():
    """The bug that the law above catches."""
    x = features(torch.zeros(4), torch.tensor([-1.0, -0.1, 0.1, 1.0]))
    assert (x == 0).all()
    drift = net()
    assert ((x @ drift.inner + 0.5).tanh() @ drift.outer != 0).all()


def test_the_mirror_loss_of_a_network_obeys_the_laws_and_begins_as_no_drift_at_all():
    check_loss(mirror_drift(drift=net()))
    log_ratio = torch.linspace(-2, 2, 50)
    with Stream(0).fork():
        assert (DriftNet(8)(log_ratio, torch.ones(50)) == 0).all()


def test_features_are_those_of_the_paper():
    log_ratio, a = torch.tensor([0.3, -0.7], dtype=torch.float64), torch.tensor([2.0, -1.0], dtype=torch.float64)
    away = 1 - log_ratio.exp()
    expected = [away, away**2, log_ratio, log_ratio**2, away * a, away**2 * a, log_ratio * a, log_ratio**2 * a]
    assert torch.allclose(features(log_ratio, a), torch.stack(expected, -1))


# ---------------------------------------------------------------------------------- runs inside


def luck(**options):
    problem = Bandits(**{**FEW, **options})
    return problem.draw(problem.count, Stream(4).torch())


def test_learners_side_by_side_are_learners_apart():
    """Bug that it catches: an advantage, a loss or an optimizer that looks at the neighbours."""
    nets, chance = [net(seed) for seed in range(3)], luck()
    theta = torch.stack([parameters_to_vector(one.parameters()) for one in nets])
    together = Learner(nets[0], epochs=3, lr=0.2).runs(partial(drift_of, *nets[0].rows(theta)), chance, 3)
    for k, one in enumerate(nets):
        assert torch.allclose(together[k], Learner(one, epochs=3, lr=0.2).learned(chance), atol=1e-5)
    assert (together[0] - together[1]).abs().max() > 1e-3


def test_arms_are_pulled_as_often_as_the_policy_says_and_pay_their_means():
    chance = luck(rounds=1, pulls=4000, noise=0.5)
    probs = torch.tensor([0.2, 0.5, 0.3]).expand(2, 4, 3)
    arm, reward = chance.pull(probs, 0)
    share = torch.nn.functional.one_hot(arm, 3).float().mean(2)
    assert (share - probs).abs().max() < 4 * (0.25 / 4000) ** 0.5
    paid = chance.means.expand(2, 4, 3).gather(-1, arm)
    assert abs(float((reward - paid).mean())) < 0.02
    assert torch.equal(arm[0], arm[1])  # one luck for all


def test_what_is_lost_is_counted_from_the_best_arm():
    chance = Luck(torch.tensor([[1.0, 3.0], [0.0, -2.0]]), torch.zeros(1, 2, 1), torch.zeros(1, 2, 1))
    probs = torch.tensor([[[0.5, 0.5], [0.0, 1.0]], [[0.0, 1.0], [1.0, 0.0]]])
    assert chance.lost(probs).tolist() == [1.5, 0.0]


def test_without_noise_learners_find_the_best_arm():
    chance = luck(noise=0.0, rounds=30, pulls=20)
    probs = Learner(clip_drift, epochs=4, lr=0.3).learned(chance)
    assert torch.equal(probs.argmax(-1), chance.means.argmax(-1))
    assert float(chance.lost(probs[None])) < 0.05


# ---------------------------------------------------------------------------------- evolution


def test_the_slope_of_a_linear_function_is_found_exactly():
    """With noise of orthonormal rows, times sqrt(P): mean of e e' is the identity."""
    c = torch.randn(5, generator=Stream(1).torch())
    noise = torch.linalg.qr(torch.randn(5, 5, generator=Stream(2).torch()))[0] * 5**0.5
    plus, minus = 3 + 0.1 * noise @ c, 3 - 0.1 * noise @ c
    assert torch.allclose(slope(Tried(noise, plus, minus), 0.1) * torch.cat([plus, minus]).std(), c, atol=1e-4)


def test_what_is_even_has_no_slope():
    noise = torch.randn(7, 5, generator=Stream(1).torch())
    even = noise.square().sum(1)
    assert (slope(Tried(noise, even, even), 0.1) == 0).all()


def test_evolution_finds_a_better_drift_than_none():
    problem, system = Bandits(pulls=8, rounds=6, tests=256), lpo(hidden=8, pairs=8, epochs=8, size=0.3, lr=0.1, inner_lr=0.3)
    before = problem.evaluate(begin(system, problem).policy, Stream(9))["return"]
    assert problem.evaluate(list(train(system, problem, steps=8))[-1].state.policy, Stream(9))["return"] > before + 0.03


# ---------------------------------------------------------------------------------- claim and bad input


def test_the_claim_runs_at_a_smaller_size():
    problem = claim.problem(tests=20, rounds=2, count=3)
    ours = list(train(partial(claim.ours, pairs=2, hidden=4)(), problem, steps=2))[-1]
    base = list(train(claim.baseline(), problem, steps=1))[-1]
    assert claim.figure in ours.metrics
    for record in (ours, base):
        assert kept(Run(0, [record.metrics], record.state, problem)) < 0
    assert check_system(fixed, partial(Bandits, **FEW), fresh=False)[-1] == "resume is bitwise"


def test_what_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match="pairs, epochs >= 1"):
        lpo(pairs=0)
    with pytest.raises(ValueError, match="a drift network needs a unit"):
        begin(lpo(hidden=0), Bandits())
    with pytest.raises(ValueError, match="arms and pulls must be at least 2"):
        Bandits(pulls=1)
    with pytest.raises(TypeError, match="does not fit the problem"):
        list(train(lpo(), CartPole(), steps=1))
