"""Mixtures of given controllers and steps of Polyak's length: exact figures, closed forms, and what both refuse."""

import math
from functools import partial

import pytest
import torch

from steepest.collectors.episodes import episodes
from steepest.collectors.walks import walk
from steepest.core import Stream, begin, train
from steepest.core.check import check_system
from steepest.evidence.claim import Run
from steepest.evidence.on_policy.improper_ac import claim as improper_claim
from steepest.evidence.on_policy.polyak_pg import claim as polyak_claim
from steepest.models.mixture import Mixture, choices
from steepest.optimize.planning import occupancy, softmax_gradient
from steepest.optimize.polyak import polyak_step
from steepest.problems.control import CartPole
from steepest.problems.queues import TwoQueues
from steepest.problems.tabular import ChainWalk, Garnet, simplex_noise
from steepest.systems.on_policy.improper_ac import always, improper_ac, returns, td_error
from steepest.systems.on_policy.polyak_pg import merit, never, optimum, polyak_pg

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


@pytest.mark.parametrize("claim", [improper_claim, polyak_claim], ids=["improper_ac", "polyak_pg"])
def test_claims_run_at_a_smaller_size(claim):
    problem = claim.problem()
    for arm in (claim.ours, claim.baseline):
        records = list(train(arm(), problem, steps=2))
        run = Run(0, [r.metrics for r in records], records[-1].state, problem)
        assert math.isfinite(claim.measure(run))
        assert all(claim.figure in row for row in run.steps)


# ------------------------------------------------------------------------------------------ Polyak's step


def bandit(scale, seed=100):
    return Garnet(states=1, actions=10, branch=1, gamma=0.0, sign="reward", radius=0.0, scale=scale, seed=seed)


def relative_gap(problem, system, steps, seed=100):
    record = list(train(system, problem, steps=steps, seed=seed))[-1]
    return (float(problem.model.R.max()) - problem.evaluate(record.state.policy, Stream(0))["return"]) / problem.scale


@pytest.mark.parametrize(("scale", "expected"), [(0.01, 1.8e-4), (1.0, 1.8e-6), (100.0, 1.8e-8)])
def test_bandits_end_where_the_specification_measured(scale, expected):
    """A bound of 1000 decides in the end: the gap is about 1 / (bound x steps x scale)."""
    gap = relative_gap(bandit(scale), polyak_pg(best=optimum, bound=1e3), 500)
    assert gap == pytest.approx(expected, rel=0.1)


def test_the_size_of_rewards_does_not_change_what_is_learned():
    ends = []
    for scale in (0.01, 1.0, 100.0):
        for best in (optimum, None):
            record = list(train(polyak_pg(best=best, bound=math.inf), bandit(scale), steps=20))[-1]
            ends.append(record.state.policy.probs().detach())
    for known, guessed in zip(ends[::2], ends[1::2], strict=True):
        assert torch.allclose(known, ends[0], atol=1e-6)
        assert torch.allclose(guessed, ends[1], atol=1e-6)
    fixed = [relative_gap(bandit(scale), polyak_pg(best=never, bound=1.0), 20) for scale in (0.01, 100.0)]
    assert fixed[0] > 10 * fixed[1]


def test_an_arm_of_no_probability_does_no_harm():
    state = begin(polyak_pg(best=optimum, bound=1e12, entropy_weight=0.1), bandit(1.0))
    for part in (state.policy, state.twin):
        part.logits.data[0, :5] = -1e4
    polyak_pg(best=optimum, bound=1e12).learn(state, bandit(1.0).model, Stream(0))
    assert torch.isfinite(state.policy.logits).all()


def test_a_step_by_hand():
    slope = torch.tensor([3.0, 4.0])
    assert polyak_step(5.0, 1.0, slope) == pytest.approx(4 / 25)
    assert polyak_step(5.0, 1.0, slope, c=2.0) == pytest.approx(2 / 25)
    assert polyak_step(5.0, 1.0, slope, bound=0.1) == 0.1
    assert polyak_step(5.0, 5.0, slope) == polyak_step(5.0, 6.0, slope) == polyak_step(5.0, 1.0, torch.zeros(2)) == 0.0
    assert polyak_step(math.inf, 0.0, slope, bound=0.3) == 0.3
    assert polyak_step(1.0, 0.0, torch.tensor([1e-160]).double()) == 0.0  # else it is infinite, and inf * 0 is NaN


def test_the_worse_twin_aims_at_the_better_one_which_takes_the_last_step():
    problem, system = bandit(1.0), polyak_pg(bound=math.inf)
    state = begin(system, problem)
    r = problem.model.R[0]
    for _ in range(5):
        before = {name: getattr(state, name).logits.detach()[0].clone() for name in ("policy", "twin")}
        worth = {name: float(theta.softmax(0) @ r) for name, theta in before.items()}
        better, worse = sorted(worth, key=lambda name: -worth[name])
        slopes = {name: theta.softmax(0) * (r - worth[name]) for name, theta in before.items()}
        step = (worth[better] - worth[worse]) / float(slopes[worse] @ slopes[worse])
        metrics = system.learn(state, problem.model, Stream(0))
        assert metrics["twin_step"] == pytest.approx(step)
        assert metrics["step"] == pytest.approx(step)
        assert torch.allclose(state.twin.logits[0], before[worse] + step * slopes[worse])
        assert torch.allclose(state.policy.logits[0], before[better] + step * slopes[better])
        assert float(state.last.step) == pytest.approx(step, rel=1e-6)


def test_gpomdp_has_the_gradient_of_enumeration():
    """CartPole of two steps always pays 2, so no estimate may prefer anything once the baseline is taken away; with rewards put
    in their place by action, the score-function sum is written out."""
    problem = CartPole(limit=2)
    state = begin(polyak_pg(count=4, width=4), problem)
    batch = episodes(state.policy, problem, Stream(0), count=4)
    assert batch.mask.tolist() == [[1.0, 1.0]] * 4
    value, objective, _ = merit(state.policy, batch, 0.9)
    assert value == pytest.approx(1.9)
    assert all(float(g.abs().max()) < 1e-6 for g in torch.autograd.grad(objective, list(state.policy.parameters())))
    batch = batch.having(reward=batch.action.float())
    value, objective, _ = merit(state.policy, batch, 0.9)
    later = torch.stack([batch.reward[:, 0] + 0.9 * batch.reward[:, 1], batch.reward[:, 1]], 1)
    total = 0.0
    for n in range(4):
        for t in range(2):
            others = sum(float(later[m, t]) for m in range(4) if m != n) / 3
            total += 0.9**t * (float(later[n, t]) - others) * float(batch.logp[n, t]) / 4
    assert float(objective.detach()) == pytest.approx(total, abs=1e-6)
    assert value == pytest.approx(float(later[:, 0].mean()))


def test_episodes_end_where_they_end():
    batch = episodes(begin(polyak_pg(width=4), CartPole()).policy, CartPole(limit=30), Stream(3), count=8)
    lengths = batch.length.long().tolist()
    assert len(set(lengths)) > 1
    assert batch.mask.shape[1] == max(lengths) <= 30
    assert torch.equal(batch.score, batch.length)
    assert all(float(row[: int(n)].min()) == 1 and not row[int(n) :].any() for row, n in zip(batch.mask, lengths, strict=True))


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (polyak_pg, partial(Garnet, states=3)),
        (partial(polyak_pg, count=2, width=4, entropy_weight=0.1), partial(CartPole, limit=9)),
    ],
    ids=["exact", "episodes"],
)  # fmt: skip
def test_polyak_pg_conforms(make, problem):
    assert any("resume is bitwise" in law for law in check_system(make, problem, fresh=make is polyak_pg))


@pytest.mark.parametrize(
    ("options", "said"),
    [({"c": 0.0}, "c and bound > 0"), ({"bound": -1.0}, "c and bound > 0"), ({"entropy_weight": -1.0}, "entropy_weight >= 0"),
     ({"discount": 2.0}, "discount in"), ({"count": 1}, "count must be at least 2")],
)  # fmt: skip
def test_polyak_pg_refuses_what_makes_no_sense(options, said):
    with pytest.raises(ValueError, match=said):
        polyak_pg(**options)


@pytest.mark.slow
def test_short_polyak_steps_learn_cartpole():
    """Discounted returns of the better twin. With c = 1 and a bound of .01 one run of three fell to 9 and stayed there."""
    scores = [r.metrics["score"] for r in train(polyak_pg(c=20.0, bound=0.1, count=8, width=32), CartPole(), steps=80, seed=0)]
    assert sum(scores[-10:]) / 10 > 1.5 * sum(scores[:10]) / 10
