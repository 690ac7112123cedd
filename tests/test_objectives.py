"""Objectives of the ratio: SPO, mirror drifts, penalties of a divergence, and what V-MPO makes of advantages."""

import math
from dataclasses import replace
from functools import partial

import pytest
import torch

from steepest.core import Stream, begin, train
from steepest.core.check import check_system
from steepest.engines.policy_gradient import PolicyObjective
from steepest.evidence.on_policy.discovered_po import claim as dpo_claim
from steepest.evidence.on_policy.fixpo import claim as fixpo_claim
from steepest.evidence.on_policy.mdpo import claim as mdpo_claim
from steepest.evidence.on_policy.spo import claim as spo_claim
from steepest.losses import (
    Missing,
    Terms,
    clip,
    clip_drift,
    discovered_drift,
    kl_new_old,
    kl_old_new,
    mirror_drift,
    penalized,
    surrogate,
    token_mean,
)  # fmt: skip
from steepest.losses.check import check_loss, example
from steepest.optimize.dual import Multiplier, Priced
from steepest.optimize.natural import flat
from steepest.problems.control import CartPole, PointMass
from steepest.systems.on_policy.discovered_po import discovered_po
from steepest.systems.on_policy.fixpo import fixpo
from steepest.systems.on_policy.mdpo import mdpo
from steepest.systems.on_policy.ppo import ppo
from steepest.systems.on_policy.ppo_penalty import ppo_penalty
from steepest.systems.on_policy.spo import quadratic, spo
from steepest.systems.on_policy.vmpo import better_half, vmpo
from steepest.systems.on_policy.vpg import vpg

SMALL = {"envs": 4, "horizon": 16, "width": 8}
PASSES = {"epochs": 2, "minibatches": 2, **SMALL}
LAWS = ["on_policy", "zero_advantage", "order", "padding", "finite", "pure", "cut"]


def conforms(make, problem, fresh=False):
    return check_system(make, problem, fresh=fresh)[-1].startswith("resume is bitwise")


def sample(log_ratio, advantage):
    """One decision at a log-ratio, which carries the gradient."""
    new = torch.tensor([[log_ratio]], dtype=torch.float64, requires_grad=True)
    a = torch.tensor([[advantage]], dtype=torch.float64)
    return Terms(new, torch.zeros_like(a), a, torch.ones_like(a))


def slope(loss, ratio, advantage):
    """Of the loss by the ratio, for one decision."""
    t = sample(math.log(ratio), advantage)
    (g,) = torch.autograd.grad(loss(t).loss.sum(), t.new)
    return float(g) / ratio


# ---------------------------------------------------------------------------------- SPO


def test_spo_obeys_every_law_of_a_policy_gradient():
    assert check_loss(quadratic()) == LAWS


@pytest.mark.parametrize("advantage", [2.0, 0.3, -0.3, -2.0])
@pytest.mark.parametrize("width", [0.1, 0.2])
def test_the_best_ratio_of_a_sample_is_the_edge_of_the_band(advantage, width):
    best = 1 + math.copysign(width, advantage)
    loss = quadratic(width=width)
    assert slope(loss, best, advantage) == pytest.approx(0, abs=1e-12)
    for away in (-0.05, 0.05):
        assert loss(sample(math.log(best + away), advantage)).loss > loss(sample(math.log(best), advantage)).loss
    assert slope(loss, 1.0, advantage) == pytest.approx(-advantage)


def ascended(loss, advantage, rate=0.05, steps=400):
    """Where gradient steps on the probability of one sampled action out of two end: its ratio to what it was, 1/2."""
    logit = torch.zeros(1, 1, dtype=torch.float64, requires_grad=True)
    half = torch.full((1, 1), math.log(0.5), dtype=torch.float64)
    a, one = torch.full_like(half, advantage), torch.ones_like(half)
    for _ in range(steps):
        value = loss(Terms(torch.nn.functional.logsigmoid(logit), half, a, one)).loss.sum()
        (g,) = torch.autograd.grad(value, logit)
        with torch.no_grad():
            logit -= rate * g
    return float(2 * logit.detach().sigmoid())


@pytest.mark.parametrize(("advantage", "edge"), [(1.0, 1.2), (-1.0, 0.8)])
def test_steps_on_one_sample_end_at_the_edge_and_ppos_end_beyond(advantage, edge):
    assert ascended(quadratic(), advantage) == pytest.approx(edge, abs=1e-3)
    beyond = ascended(clip(), advantage, rate=0.5)
    assert abs(beyond - 1) > 0.2 + 1e-3
    assert abs(beyond - edge) < 0.1


def test_a_deep_policy_stays_nearer_with_spo_than_with_ppo():
    options = {"lr": 3e-3, "depth": 5, "epochs": 10, "minibatches": 4, "envs": 8, "horizon": 32, "value_clip": None}
    far, near = (max(r.metrics["kl_max"] for r in train(make(**options), CartPole(), steps=4)) for make in (ppo, spo))
    assert near < far / 2


# ---------------------------------------------------------------------------------- drifts


@pytest.mark.parametrize("drift", [clip_drift, discovered_drift], ids=["clip", "discovered"])
def test_mirror_losses_obey_every_law_of_a_policy_gradient(drift):
    assert check_loss(mirror_drift(drift=drift)) == LAWS


@pytest.mark.parametrize(("low", "high"), [(0.2, 0.2), (0.1, 0.4)])
def test_ppo_is_the_mirror_loss_of_its_drift_to_machine_precision(low, high):
    terms = example(n=50, t=20)
    one, two = clip(low=low, high=high), mirror_drift(drift=partial(clip_drift, low=low, high=high))
    assert torch.allclose(one(terms).loss, two(terms).loss, rtol=1e-14, atol=1e-14)
    a, b = (torch.autograd.grad(loss(terms).loss.sum(), terms.new, retain_graph=True)[0] for loss in (one, two))
    assert torch.allclose(a, b, rtol=1e-14, atol=1e-14)
    assert not torch.allclose(one(terms).loss, surrogate()(terms).loss)


def test_a_drift_is_never_negative_and_flat_and_nothing_at_ratio_1():
    x = torch.arange(-30, 31, dtype=torch.float64) / 10
    log_ratio, advantage = (g.clone() for g in torch.meshgrid(x, x, indexing="ij"))
    log_ratio.requires_grad_()
    for drift in (clip_drift, discovered_drift):
        paid = drift(log_ratio, advantage)
        assert bool((paid >= 0).all())
        assert bool((paid > 0).any())
        (g,) = torch.autograd.grad(paid.sum(), log_ratio)
        assert paid[30].abs().max() == 0  # log ratio 0
        assert g[30].abs().max() == 0


def test_the_gain_of_a_likelier_good_action_flattens_and_never_turns():
    """d(r A - f)/dr = A sech^2((r - 1) A / 2) for A > 0 and r > 1."""
    loss = mirror_drift(drift=discovered_drift)
    for advantage in (0.5, 1.0, 3.0):
        for ratio in (1.01, 1.5, 2.5):
            expected = advantage / math.cosh((ratio - 1) * advantage / 2) ** 2
            assert -slope(loss, ratio, advantage) == pytest.approx(expected, rel=1e-6)
            assert expected > 0


def test_a_bad_action_that_became_too_unlikely_is_pulled_back():
    """For A = -1 the slope changes sign where r = tanh^2(log(r) / 0.6), at about 0.56."""
    loss, low, high = mirror_drift(drift=discovered_drift), 0.3, 0.9
    assert slope(loss, high, -1.0) > 0  # still pushed down
    assert slope(loss, low, -1.0) < 0  # pulled back up
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (low, middle) if slope(loss, middle, -1.0) > 0 else (middle, high)
    assert low == pytest.approx(math.tanh(math.log(low) / 0.6) ** 2, abs=1e-6)
    assert low == pytest.approx(0.559, abs=0.001)


# ---------------------------------------------------------------------------------- prices


def started(system, problem=None, seed=0):
    """State and first batch."""
    problem = CartPole(limit=9) if problem is None else problem
    state = begin(system, problem, seed=seed)
    return state, system.collect(state, problem, Stream(seed, 0) / "collect")


def policy_move(system, state, batch):
    """What one SGD step of rate 1 on the policy does to it; the critic's parameters are no part of it."""
    before = flat([p.detach() for p in state.policy.parameters()]).clone()
    rest = [] if "critic" in state.optimizers else list(state.critic.parameters())
    state.optimizers["policy"] = torch.optim.SGD([*state.policy.parameters(), *rest], 1.0)
    system.learn(state, batch, Stream(1))
    return flat([p.detach() for p in state.policy.parameters()]) - before


def test_a_penalty_is_the_states_price_times_the_divergence():
    t = example()
    priced = penalized(kl_old_new())
    assert torch.allclose(priced(t).loss, 0.7 * t.kl_old_new)
    assert priced.needs == {"kl_old_new", "penalty"}
    assert check_loss(surrogate() + priced) == LAWS
    with pytest.raises(Missing, match=r"give the State a `penalty`"):
        priced(replace(t, penalty=None))


@pytest.mark.parametrize("lr", [1e-9, 1e-2])
def test_the_price_of_ppos_penalty_follows_the_divergence_of_the_update(lr):
    """Halved where the mean KL is below d / 1.5, doubled above 1.5 d, else left alone; the update reports that KL itself."""
    system, price, moves = ppo_penalty(lr=lr, target=0.003, **PASSES), 1.0, set()
    for record in train(system, CartPole(limit=9), steps=8):
        away = record.metrics["kl_mean"]
        factor = 0.5 if away < 0.003 / 1.5 else 2.0 if away > 0.003 * 1.5 else 1.0
        price *= factor
        moves.add(factor)
        assert float(record.state.penalty.value.detach()) == pytest.approx(price)
    assert moves == ({0.5} if lr < 1e-6 else {0.5, 1.0, 2.0})


def test_a_multiplier_goes_down_its_slope_and_never_below_its_floor():
    m = Multiplier(1.0, floor=0.5)
    optimizer = torch.optim.SGD(m.parameters(), 0.1)
    m.descend(2.0, optimizer)
    assert float(m.value.detach()) == pytest.approx(0.8)
    m.descend(-3.0, optimizer)
    assert float(m.value.detach()) == pytest.approx(1.1)
    m.descend(1000.0, optimizer)
    assert float(m.value.detach()) == 0.5
    with pytest.raises(ValueError, match=r"starts at its floor 0\.5 or above, not at 0\.1"):
        Multiplier(0.1, floor=0.5)


@pytest.mark.parametrize(("largest", "rises"), [(0.09, False), (0.11, True)])
def test_fixpos_price_rises_where_c_times_the_largest_divergence_exceeds_the_bound(largest, rises):
    system = fixpo(**PASSES)
    state, batch = started(system)
    with torch.no_grad():
        acted = state.policy.distribution(batch.obs).detach()
    batch = PolicyObjective(penalized(kl_old_new()), token_mean).weigh(batch.having(acted=acted, advantage=batch.reward))
    seen = Priced(PolicyObjective(penalized(kl_old_new()), token_mean), 0.2, 2.0, lambda kl: torch.as_tensor(largest))
    seen.pull(state, batch, False)
    assert (float(state.penalty.value.detach()) > 1) == rises


@pytest.mark.parametrize("problem", [CartPole(limit=9), PointMass(limit=9)], ids=["categorical", "gaussian"])
def test_after_every_update_of_fixpo_every_state_is_within_the_bound(problem):
    """And without the second phase it is not: the same options with a price alone."""
    options = {"lr": 0.02, "epochs": 4, "minibatches": 4, "envs": 4, "horizon": 32, "width": 16}
    told = [r.metrics for r in train(fixpo(bound=0.02, fixup_rows=32, **options), problem, steps=5)]
    assert all(row["kl_max"] <= 0.02 * (1 + 1e-5) for row in told)
    assert sum(row["fixups"] for row in told) > 0
    free = [r.metrics for r in train(ppo_penalty(target=0.02, **options), problem, steps=5)]
    assert max(row["kl_max"] for row in free) > 0.02


def test_where_nothing_is_broken_fixpo_fixes_nothing():
    told = [r.metrics for r in train(fixpo(lr=1e-6, **PASSES), CartPole(limit=9), steps=3)]
    assert [row["fixups"] for row in told] == [0, 0, 0]


def test_an_update_that_cannot_be_fixed_is_taken_back():
    system = fixpo(bound=1e-9, max_fixup=2, lr=0.05, **PASSES)
    state, batch = started(system)
    before = flat([p.detach() for p in state.policy.parameters()]).clone()
    with pytest.raises(RuntimeError, match=r"2 steps on the divergence alone did not bring it within the bound 1e-09 \(pass 1"):
        system.learn(state, batch, Stream(1))
    assert torch.equal(flat([p.detach() for p in state.policy.parameters()]), before)


def test_a_policy_without_divergence_in_closed_form_is_refused():
    system = fixpo(**PASSES)
    state, batch = started(system)
    logp = state.policy.logp
    state.policy = torch.nn.Linear(1, 1)
    state.policy.logp = logp
    with pytest.raises(TypeError, match="in closed form, which Linear has not"):
        system.learn(state, batch, Stream(1))


# ---------------------------------------------------------------------------------- mirror descent


@pytest.mark.parametrize("problem", [CartPole(limit=9), PointMass(limit=9)], ids=["categorical", "gaussian"])
def test_mirror_descent_of_one_step_is_the_policy_gradient(problem):
    options = {"critic_minibatches": 2, "decay": 0.95, **SMALL}
    moves = []
    for system in (mdpo(updates=1, max_grad_norm=math.inf, **options), vpg(**options)):
        state, batch = started(system, problem)
        moves.append(policy_move(system, state, batch))
    assert torch.allclose(*moves, atol=1e-6)
    assert moves[0].norm() > 0.01
    state, batch = started(mdpo(updates=3, max_grad_norm=math.inf, **options), problem)
    assert not torch.allclose(policy_move(mdpo(updates=3, max_grad_norm=math.inf, **options), state, batch), moves[0], atol=1e-3)


@pytest.mark.parametrize("size", [0.3, 1.0])
def test_what_mirror_descent_solves_for_is_the_old_policy_times_exp_of_its_advantages(size):
    """A bandit whose decisions are all its actions, weighed by the old policy: the inner problem is exact."""
    g = Stream(5).torch()
    old, advantage = torch.randn(6, generator=g).double().log_softmax(0), torch.randn(6, generator=g).double()
    theta = old.clone().requires_grad_()
    optimizer = torch.optim.Adam([theta], 0.02)
    loss = surrogate() + penalized(kl_new_old())
    price = torch.full((6, 1), 1 / size, dtype=torch.float64)
    for _ in range(1500):
        new = theta.log_softmax(0)
        kl = (new.exp() * (new - old)).sum().expand(6, 1)
        t = Terms(new[:, None], old[:, None], advantage[:, None], torch.ones(6, 1), kl_new_old=kl, penalty=price)
        optimizer.zero_grad()
        (loss(t).loss[:, 0] * old.exp()).sum().backward()
        optimizer.step()
    expected = (old + size * advantage).softmax(0)
    assert torch.allclose(theta.detach().softmax(0), expected, atol=1e-3)
    assert not torch.allclose(expected, old.exp(), atol=0.02)


def test_the_price_of_mirror_descent_grows_as_its_step_is_annealed():
    options = {"critic_minibatches": 2, **SMALL}
    told = [r.metrics["penalty"] for r in train(mdpo(anneal=4, floor=0.2, **options), CartPole(limit=9), steps=6)]
    assert told == pytest.approx([1, 4 / 3, 2, 4, 5, 5])
    still = [r.metrics["penalty"] for r in train(mdpo(anneal=None, **options), CartPole(limit=9), steps=2)]
    assert still == [1, 1]


# ---------------------------------------------------------------------------------- V-MPO


@pytest.mark.parametrize("count", [2, 7, 40])
def test_the_weights_of_vmpo_sum_to_one_over_the_better_half_and_are_nothing_below(count):
    advantage = torch.randn(count, 1, generator=Stream(2).torch())
    psi, log_mean = better_half(advantage, torch.tensor(0.5))
    best = advantage.flatten().sort(descending=True).values[: (count + 1) // 2]
    assert float(psi.sum()) == pytest.approx(1, abs=1e-6)
    assert bool((psi[advantage < best[-1]] == 0).all())
    assert bool((psi[advantage >= best[-1]] > 0).all())
    assert float(log_mean) == pytest.approx(float((best / 0.5).exp().mean().log()), abs=1e-5)


def test_a_low_temperature_imitates_the_best_alone_and_a_high_one_the_half_evenly():
    advantage = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
    assert better_half(advantage, torch.tensor(0.01))[0].flatten().tolist() == pytest.approx([0, 0, 0, 1])
    assert better_half(advantage, torch.tensor(1e6))[0].flatten().tolist() == pytest.approx([0, 0, 0.5, 0.5], abs=1e-5)


def test_the_temperature_settles_where_the_weights_are_as_far_from_even_as_their_bound():
    """At the minimum of the dual KL(psi || even over the half) is the bound."""
    advantage, bound = torch.randn(200, 1, generator=Stream(2).torch()), 0.1
    eta = torch.tensor(1.0, requires_grad=True)
    optimizer = torch.optim.Adam([eta], 0.02)
    for _ in range(800):
        optimizer.zero_grad()
        (eta * bound + eta * better_half(advantage, eta)[1]).backward()
        optimizer.step()
    psi = better_half(advantage, eta.detach())[0].flatten()
    assert float((psi * (psi * 100).clamp(min=1e-30).log()).sum()) == pytest.approx(bound, abs=1e-3)


# ---------------------------------------------------------------------------------- learning


@pytest.mark.parametrize(
    "make",
    [
        partial(spo, lr=3e-3, epochs=10),
        partial(discovered_po, lr=1e-2, minibatches=4),
        partial(fixpo, lr=3e-3, epochs=10, minibatches=4),
        partial(ppo_penalty, lr=3e-3, epochs=10, minibatches=4),
        partial(vmpo, lr=3e-3, epochs=10, minibatches=4, penalty_bound=0.05),
        partial(mdpo, lr=1e-2, critic_lr=3e-3, critic_minibatches=4),
    ],
    ids=["spo", "discovered", "fixpo", "penalty", "vmpo", "mdpo"],
)
def test_a_pole_is_kept_up_for_longer(make):
    options = {"value_clip": None} if make.func in (spo, discovered_po) else {}
    told = [r.metrics for r in train(make(envs=8, horizon=64, **options), CartPole(), steps=25)]
    assert told[0]["return"] < 40
    assert sum(row.get("return", 500) for row in told[-5:]) / 5 > 60


# ---------------------------------------------------------------------------------- all of them


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (partial(spo, **PASSES), partial(CartPole, limit=7)),
        (partial(spo, **PASSES), PointMass),
        (partial(discovered_po, **PASSES), partial(CartPole, limit=7)),
        (partial(discovered_po, **PASSES), PointMass),
        (partial(fixpo, bound=0.01, lr=0.01, **PASSES), partial(CartPole, limit=7)),
        (partial(fixpo, **PASSES), PointMass),
        (partial(ppo_penalty, **PASSES), PointMass),
        (partial(vmpo, **PASSES), partial(CartPole, limit=7)),
        (partial(vmpo, **PASSES), PointMass),
        (partial(mdpo, anneal=5, critic_minibatches=2, **SMALL), partial(CartPole, limit=7)),
        (partial(mdpo, critic_minibatches=2, **SMALL), PointMass),
    ],
    ids=[
        "spo", "spo continuous", "discovered", "discovered continuous", "fixpo", "fixpo continuous", "penalty", "vmpo",
        "vmpo continuous", "mdpo", "mdpo continuous",
    ],
)
def test_systems_conform(make, problem):
    assert conforms(make, problem)


@pytest.mark.slow
@pytest.mark.parametrize("make", [spo, discovered_po, fixpo, ppo_penalty, vmpo])
def test_they_conform_in_a_fresh_process(make):
    assert conforms(partial(make, **PASSES), CartPole, fresh=True)


def test_mdpo_conforms_in_a_fresh_process():
    assert conforms(partial(mdpo, critic_minibatches=2, **SMALL), CartPole, fresh=True)


@pytest.mark.parametrize("claim", [spo_claim, dpo_claim, fixpo_claim, mdpo_claim], ids=["spo", "discovered", "fixpo", "mdpo"])
def test_claims_run_at_a_smaller_size(claim):
    for arm in (claim.ours, claim.baseline):
        metrics = [r.metrics for r in train(partial(arm, envs=4, horizon=32)(), claim.problem(), steps=2)]
        assert all(math.isfinite(row["kl_max"]) and claim.figure in row for row in metrics)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (partial(spo, width_ratio=0.0), "width_ratio must be positive, not 0.0"),
        (partial(discovered_po, beta=0.0), "alpha and beta must be positive, not 2.0 and 0.0"),
        (partial(fixpo, bound=0.0), "bound must be positive and target at least 1, not 0.0 and 2.0"),
        (partial(fixpo, max_fixup=0), "fixup_rows and max_fixup must be at least 1, not 1024 and 0"),
        (partial(fixpo, penalty_lr=0.0), "learning rate of a multiplier must be positive, not 0.0"),
        (partial(ppo_penalty, target=0.0), "target and penalty must be positive, not 0.0 and 1.0"),
        (partial(mdpo, floor=0.0), "floor must be positive and anneal at least 1 or None, not 0.0 and 500"),
        (partial(mdpo, updates=0), "count must be at least 1, not 0"),
        (partial(vmpo, penalty_bound=0.0), "both bounds must be positive, not 0.01 and 0.0"),
    ],
)
def test_what_makes_no_sense_is_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
