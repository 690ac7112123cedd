"""Mixtures of given controllers and steps of Polyak's length: exact figures, closed forms, and what both refuse."""

from dataclasses import replace
from functools import partial

import pytest
import torch

from steepest.collectors.walks import walk
from steepest.core import Stream, begin, train
from steepest.core.check import check_system
from steepest.evidence.on_policy.improper_ac import claim as improper_claim
from steepest.evidence.run import reproduce
from steepest.models.mixture import Mixture, choices
from steepest.optimize.planning import occupancy, softmax_gradient
from steepest.problems.queues import TwoQueues
from steepest.problems.tabular import ChainWalk, Garnet, simplex_noise
from steepest.systems.on_policy.improper_ac import always, improper_ac, returns, td_error

UNEVEN = partial(TwoQueues, 0.45, 0.30)


def cost(problem, weight):
    """Discounted mean length from empty, when the first queue is served with this probability."""
    model = problem.model
    pi = torch.tensor([weight, 1 - weight]).double().expand_as(model.R)
    return float(model.rho @ model.values(pi)[0])


def mixture(mdp, count=3, seed=0):
    """A mixture of random controllers with random weights."""
    g = Stream(seed, "controllers").torch()
    policy = Mixture(simplex_noise((count, *mdp.R.shape), g))
    policy.logits.data.normal_(generator=g)
    return policy


# ------------------------------------------------------------------------------------------ two queues


@pytest.mark.parametrize(
    ("problem", "weight", "expected"),
    [
        (TwoQueues(), 1.0, 6.790), (TwoQueues(), 0.0, 6.790), (TwoQueues(), 0.5, 2.621),
        (UNEVEN(), 1.0, 5.623), (UNEVEN(), 0.0, 7.208), (UNEVEN(), 0.5, 2.465), (UNEVEN(), 0.6, 2.275),
    ],
)  # fmt: skip
def test_two_queues_cost_what_the_specification_measured(problem, weight, expected):
    assert cost(problem, weight) == pytest.approx(expected, abs=1e-3)


def test_a_queue_of_one_place_by_hand():
    """States 00 01 10 11. Serving the first of 11 leaves 01, and then one customer may come to each."""
    model = TwoQueues(0.3, 0.2, cap=1).model
    assert model.P[3, 0].tolist() == pytest.approx([0, 0.7, 0, 0.3])  # the second queue stays full, the first may fill again
    assert model.P[3, 1].tolist() == pytest.approx([0, 0, 0.8, 0.2])
    assert model.P[0, 0].tolist() == pytest.approx([0.56, 0.14, 0.24, 0.06])
    assert (model.R[:, 0] / 0.05).tolist() == pytest.approx([0, 1, 1, 2])
    with pytest.raises(ValueError, match="are probabilities"):
        TwoQueues(first=1.5)
    with pytest.raises(ValueError, match="cap must be at least 1"):
        TwoQueues(cap=0)


def test_walks_follow_the_model():
    mdp = Garnet(states=4, actions=2, branch=2).model
    pi = simplex_noise((4, 2), Stream(0).torch())
    batch = walk(mdp, pi, Stream(1), count=4000, steps=6)
    assert torch.equal(batch.obs[:, 1:], batch.info["next_obs"][:, :-1])
    assert (mdp.P[batch.obs, batch.action, batch.info["next_obs"]] > 0).all()
    assert torch.equal(batch.reward, mdp.R[batch.obs, batch.action])
    d = mdp.rho
    for t in range(6):  # frequencies of states, in every column
        seen = torch.bincount(batch.obs[:, t], minlength=4) / 4000
        assert float((seen - d).abs().max()) < 0.04
        d = torch.einsum("s,sa,sat->t", d, pi, mdp.P)


# ------------------------------------------------------------------------------------------ mixtures


def test_a_single_weight_is_that_controller_and_equal_controllers_have_no_gradient():
    mdp = Garnet().model
    policy = mixture(mdp)
    policy.logits.data = torch.tensor([-800.0, 0.0, -800.0]).double()
    assert torch.equal(policy.probs(), policy.controllers[1])
    same = policy.controllers[:1].repeat(3, 1, 1)
    slope = softmax_gradient(choices(mdp, same), torch.randn(3).double().expand(6, 3)).sum(0)
    assert float(slope.abs().max()) < 1e-12


def test_the_model_of_choices_is_worth_what_the_mixture_is_and_its_gradient_is_that_of_the_mixture():
    mdp = Garnet().model
    policy = mixture(mdp)
    chosen, w = choices(mdp, policy.controllers), policy.weights()
    worth = mdp.rho @ mdp.values(policy.probs())[0]
    assert torch.allclose(chosen.values(w.expand(6, 3))[0], mdp.values(policy.probs())[0])
    by_autograd = torch.autograd.grad(worth, policy.logits)[0]
    with torch.no_grad():
        assert torch.allclose(softmax_gradient(chosen, policy.logits.expand(6, 3)).sum(0), by_autograd)
        v, q = chosen.values(w.expand(6, 3))
        d = occupancy(mdp, policy.probs()).sum(-1)
        assert torch.allclose(by_autograd, w * (d @ (q - v[:, None])))  # (1 - gamma)^-1 sum_s d(s) w_m A(s, m)


def random_controllers(model):
    return mixture(model).controllers


@pytest.mark.parametrize("advantage", [td_error, returns])
def test_samples_have_the_gradient_of_the_model_as_their_mean(advantage):
    """With the exact critic both estimates are unbiased, but for what comes after the horizon: 0.9^100."""
    problem = Garnet(states=4, sign="reward")
    mdp = problem.model
    system = improper_ac(lr=1.0, critic_lr=1e-12, walks=64, advantage=advantage, controllers=random_controllers)
    state = begin(system, problem)
    chosen = choices(mdp, state.policy.controllers)
    even = torch.full((4, 3), 1 / 3).double()
    state.critic.weights.copy_(chosen.values(even)[0])
    truth = softmax_gradient(chosen, torch.zeros(4, 3).double()).sum(0)
    steps = []
    for i in range(30):
        state.policy.logits.data.zero_()
        system.learn(state, system.collect(state, problem, Stream(i)), Stream(i))
        steps.append(state.policy.logits.detach().clone())
    steps = torch.stack(steps)
    error = (steps.mean(0) - truth) / (steps.std(0) / 30**0.5)
    assert float(error.abs().max()) < 4
    assert float(truth.abs().max()) > 3 * float((steps.std(0) / 30**0.5).max())  # else nothing was tested


def test_a_critic_learns_the_values_of_the_mixture():
    problem = Garnet(states=4)
    state = begin(improper_ac(lr=0.0), problem)
    for _ in train(improper_ac(lr=0.0, critic_lr=0.1), problem, steps=30, state=state):
        pass
    mdp = problem.model
    assert torch.allclose(state.critic.values(), mdp.values(torch.full_like(mdp.R, 1 / 3))[0], rtol=0.05)
    assert torch.equal(state.policy.logits, torch.zeros(3).double())


def test_natural_and_plain_gradients_agree_in_sign_and_the_natural_one_is_the_advantage():
    problem = UNEVEN()
    steps = [next(iter(train(improper_ac(lr=1e-3, walks=None, damping=d), problem, steps=1))).state for d in (None, 1e-9)]
    plain, natural = (state.policy.logits.detach() / 1e-3 for state in steps)
    assert torch.equal(plain.sign(), natural.sign())
    w = torch.full((2,), 0.5).double()
    assert torch.allclose((torch.diag(w) - w.outer(w)) @ natural, plain, rtol=1e-6)


def test_it_finds_the_best_mixture():
    for problem, weight, least in ((TwoQueues(), 0.5, 2.621), (UNEVEN(), 0.589, 2.2714)):
        record = list(train(improper_ac(walks=None, damping=1e-3), problem, steps=25))[-1]
        assert float(record.state.policy.weights()[0].detach()) == pytest.approx(weight, abs=1e-3)
        assert -problem.evaluate(record.state.policy, Stream(0))["return"] == pytest.approx(least, abs=1e-3)
        assert least - 1e-3 < min(cost(problem, w / 20) for w in range(21))


def test_samples_come_within_five_percent_of_the_best_mixture():
    problem = UNEVEN()
    record = list(train(improper_ac(walks=8), problem, steps=40, seed=1))[-1]
    assert -problem.evaluate(record.state.policy, Stream(0))["return"] < 1.05 * 2.2714


@pytest.mark.parametrize(
    "make", [improper_ac, partial(improper_ac, damping=0.1, advantage=returns), partial(improper_ac, walks=None)],
    ids=["acil", "nacil", "exact"],
)  # fmt: skip
def test_improper_ac_conforms(make):
    laws = check_system(partial(make, horizon=5), partial(TwoQueues, cap=3), fresh=make is improper_ac)
    assert any("resume is bitwise" in law for law in laws)


def only_one(model):
    return always(model)[:1]


def other_actions(model):
    return torch.full((2, len(model.rho), 5), 0.2).double()


def no_distribution(model):
    return 2 * always(model)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"controllers": only_one}, "M of at least 2"), ({"controllers": other_actions}, "the model's actions"),
        ({"controllers": no_distribution}, "controller 0 has no distribution"), ({"lr": -1.0}, "lr >= 0"),
        ({"damping": 0.0}, "damping > 0"), ({"walks": 1}, "walks must be at least 2"), ({"horizon": 0}, "horizon"),
    ],
)  # fmt: skip
def test_improper_ac_refuses_what_makes_no_sense(options, said):
    with pytest.raises(ValueError, match=said):
        begin(improper_ac(**options), ChainWalk())


def test_the_claim_of_improper_ac_runs():
    small = replace(improper_claim, steps=2, problem=partial(TwoQueues, 0.45, 0.30, cap=3))
    assert len(reproduce(small, seeds=2, workers=1).gaps) == 2
