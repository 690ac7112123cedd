"""PPO, TRPO and plain policy gradient: their limits are each other, their bounds hold, and they learn."""

import copy
import math
from functools import partial

import pytest
import torch

from steepest.core import Stream, begin, holding, train
from steepest.core.check import check_system
from steepest.credit import gae, standardize
from steepest.engines.policy_gradient import PolicyObjective
from steepest.engines.values import values
from steepest.evidence.claim import Claim
from steepest.evidence.on_policy.ppo import claim as ppo_claim
from steepest.evidence.on_policy.ppo import nearness
from steepest.evidence.on_policy.trpo import claim as trpo_claim
from steepest.losses import clip, kl_new_old, kl_old_new, reinforce, surrogate, token_mean
from steepest.problems.control import CartPole, Pendulum, PointMass
from steepest.problems.gym import Gym
from steepest.problems.language import AddCliff
from steepest.systems.on_policy.ppo import ppo
from steepest.systems.on_policy.trpo import trpo
from steepest.systems.on_policy.vpg import vpg

SMALL = {"envs": 4, "horizon": 16, "width": 8}
TEXT = partial(AddCliff, width=2, least=1, warm=20, tests=8)


# ---------------------------------------------------------------------------------- conformance


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (partial(ppo, epochs=2, minibatches=2, **SMALL), partial(CartPole, limit=7)),
        (partial(ppo, epochs=2, minibatches=2, normalize=True, kl=0.1, anneal=5, max_kl=0.1, **SMALL), partial(Pendulum, limit=20)),
        (partial(ppo, epochs=2, minibatches=2, normalize=False, value_clip=0.2, entropy_weight=0.01, **SMALL), PointMass),
        (partial(ppo, epochs=1, minibatches=2, **SMALL), partial(Gym, "CartPole-v1")),
        (partial(trpo, critic_minibatches=2, **SMALL), partial(CartPole, limit=7)),
        (partial(trpo, critic_minibatches=2, **SMALL), PointMass),
        (partial(vpg, critic_minibatches=2, **SMALL), partial(CartPole, limit=7)),
    ],
    ids=["ppo", "ppo normalized", "ppo value clip", "ppo gym", "trpo", "trpo continuous", "vpg"],
)
def test_systems_conform(make, problem):
    assert check_system(make, problem, fresh=False)[-1] == "resume is bitwise"


def test_ppo_conforms_in_a_fresh_process():
    make = partial(ppo, epochs=2, minibatches=2, **SMALL)
    assert check_system(make, CartPole)[-1] == "resume is bitwise in a fresh process"


def test_ppo_on_text_conforms(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    make = partial(ppo, epochs=2, minibatches=2, prompts=4, group=2, discount=1.0, kl=0.05, entropy_weight=0.01)
    assert check_system(make, TEXT, fresh=False)[-1] == "resume is bitwise"


@pytest.mark.slow
@pytest.mark.parametrize("make", [partial(ppo, normalize=True, epochs=2, **SMALL), partial(trpo, **SMALL)], ids=["ppo", "trpo"])
def test_systems_conform_on_halfcheetah(make):
    assert check_system(make, partial(Gym, "HalfCheetah-v5"))[-1] == "resume is bitwise in a fresh process"


# ---------------------------------------------------------------------------------- what a critic says


def test_what_follows_a_token_is_the_next_token_and_after_the_last_comes_nothing(tmp_path, monkeypatch):
    """Answers of several lengths side by side, every number in a plain loop. At discount and decay 1 the critic cancels out:
    value and advantage add up to the reward that is still to come."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    problem = TEXT()
    state, batch = state_and_batch(ppo(prompts=8, group=4, discount=1.0), problem)
    with torch.no_grad():
        state.critic.head.weight.normal_(generator=Stream(3).torch())  # its first word on everything is 0
        plain = state.critic.value(batch.obs, batch.action, batch.mask)
    batch = batch.having(reward=torch.randn(batch.mask.shape, generator=Stream(4).torch()) * batch.mask)
    value, later, terminated, truncated = values(state, batch)
    assert torch.equal(value, plain)
    assert not truncated.any()
    lengths = batch.mask.sum(1).long().tolist()
    assert len(set(lengths)) > 1
    advantage = gae(batch.reward, value, later, terminated, truncated, discount=1.0, decay=1.0)
    for n, length in enumerate(lengths):
        assert terminated[n].tolist() == [t >= length - 1 for t in range(batch.mask.shape[1])]
        for t in range(length):
            if t < length - 1:
                assert later[n, t] == value[n, t + 1]
            assert float(value[n, t] + advantage[n, t]) == pytest.approx(float(batch.reward[n, t:length].sum()), abs=1e-4)


def test_what_follows_a_step_is_the_true_successor_also_where_an_episode_ended():
    problem = CartPole(limit=9)
    state, batch = state_and_batch(vpg(**SMALL), problem)
    value, later, terminated, truncated = values(state, batch)
    with torch.no_grad():
        assert torch.allclose(value, state.critic.value(batch.obs, batch.action, batch.mask))
        assert torch.allclose(later, state.critic.value(batch.info["next_obs"], batch.action, batch.mask), atol=1e-6)
    assert torch.equal(terminated, batch.info["terminated"])
    assert torch.equal(truncated, batch.info["truncated"])
    ended = (terminated | truncated)[:, :-1]
    assert ended.any()
    assert not torch.isclose(later[:, :-1], value[:, 1:], atol=1e-5)[ended].any()  # what was seen next is another episode's


# ---------------------------------------------------------------------------------- limits


def state_and_batch(system, problem, seed=0):
    state = begin(system, problem, seed=seed)
    return state, system.collect(state, problem, Stream(seed, 0) / "collect")


def policy_step(state, before):
    return torch.cat([(p.detach() - q).reshape(-1) for p, q in zip(state.policy.parameters(), before, strict=True)])


def grad_log_pi(state, batch, discount=0.99, decay=0.95):
    """-grad of E log pi(a|s) A, written out: the policy gradient that one step should follow."""
    with torch.no_grad():
        value = state.critic.value(batch.obs, batch.action, batch.mask)
        later = state.critic.value(batch.info["next_obs"], batch.action, batch.mask)
    ended = batch.info["terminated"], batch.info["truncated"]
    advantage = standardize(gae(batch.reward, value, later, *ended, discount=discount, decay=decay), batch.mask)
    loss = -(state.policy.logp(batch.obs, batch.action, batch.mask) * advantage).mean()
    return torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, list(state.policy.parameters()))])


@pytest.mark.parametrize("problem", [CartPole(limit=9), PointMass(limit=9)], ids=["categorical", "gaussian"])
@pytest.mark.parametrize("clip_range", [0.2, math.inf])
def test_one_pass_of_ppo_is_the_policy_gradient(problem, clip_range):
    """At ratio 1 the clip is silent. SGD of rate 1 shows the gradient itself; the critic's part has its own parameters."""
    system = ppo(clip_range=clip_range, epochs=1, minibatches=1, max_grad_norm=math.inf, normalize=False, **SMALL)
    state, batch = state_and_batch(system, problem)
    expected = grad_log_pi(state, batch)
    before = [p.detach().clone() for p in state.policy.parameters()]
    state.optimizers["policy"] = torch.optim.SGD([*state.policy.parameters(), *state.critic.parameters()], 1.0)
    system.learn(state, batch, Stream(1))
    assert torch.allclose(-policy_step(state, before), expected, atol=1e-6)
    assert expected.norm() > 0.01


@pytest.mark.parametrize("problem", [CartPole(limit=9), PointMass(limit=9)], ids=["categorical", "gaussian"])
def test_ppo_without_a_band_in_one_step_is_vpg(problem):
    moves = []
    free = ppo(clip_range=math.inf, epochs=1, minibatches=1, max_grad_norm=math.inf, normalize=False, **SMALL)
    for system in (free, vpg(critic_minibatches=2, **SMALL)):
        state, batch = state_and_batch(system, problem)
        before = [p.detach().clone() for p in state.policy.parameters()]
        rest = [] if "critic" in state.optimizers else list(state.critic.parameters())
        state.optimizers["policy"] = torch.optim.SGD([*state.policy.parameters(), *rest], 1.0)
        system.learn(state, batch, Stream(1))
        moves.append(policy_step(state, before))
    assert torch.allclose(moves[0], moves[1], atol=1e-6)
    assert moves[0].norm() > 0.01


def test_one_pass_of_ppo_on_text_is_the_policy_gradient(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    system = ppo(epochs=1, minibatches=1, max_grad_norm=math.inf, prompts=8, group=4, discount=1.0, decay=0.9)
    state, batch = state_and_batch(system, TEXT())
    noise = torch.randn(batch.mask.shape, generator=Stream(4).torch())  # a policy this green earns nothing to learn from
    batch = batch.having(reward=noise * batch.mask)
    advantage = standardize(gae(batch.reward, *values(state, batch), discount=1.0, decay=0.9), batch.mask)
    params = [p for p in state.policy.parameters() if p.requires_grad]
    loss = -(state.policy.logp(batch.obs, batch.action, batch.mask) * advantage * batch.mask).sum() / batch.mask.sum()
    expected = torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, params)])
    before = [p.detach().clone() for p in params]
    state.optimizers["policy"] = torch.optim.SGD([*params, *state.critic.parameters()], 1.0)
    system.learn(state, batch, Stream(1))
    moved = torch.cat([(p.detach() - q).reshape(-1) for p, q in zip(params, before, strict=True)])
    assert expected.norm() > 0.01
    assert torch.allclose(-moved, expected, atol=1e-5)


def test_beyond_the_band_there_is_no_gradient_and_on_the_way_back_there_is():
    """An old policy that gave every action less or more: the advantages of the right sign alone are left to learn from."""
    free = ppo(epochs=1, minibatches=1, max_grad_norm=math.inf, clip_range=math.inf, **SMALL)
    band = ppo(epochs=1, minibatches=1, max_grad_norm=math.inf, clip_range=0.2, **SMALL)
    for shift, kept in ((-0.5, lambda a: a.clamp(max=0)), (0.5, lambda a: a.clamp(min=0))):
        state, batch = state_and_batch(band, CartPole(limit=9))
        batch = batch.having(logp=batch.logp + shift)  # ratios of e^0.5 and of e^-0.5
        advantage = standardize(gae(batch.reward, *values(state, batch), discount=0.99, decay=0.95), batch.mask)
        assert (advantage > 0).any()
        assert (advantage < 0).any()
        ratio = (state.policy.logp(batch.obs, batch.action, batch.mask) - batch.logp).exp()
        moves = {}
        for name, system in (("free", free), ("band", band)):
            one = copy.deepcopy(state)
            one.optimizers["policy"] = torch.optim.SGD([*one.policy.parameters(), *one.critic.parameters()], 1.0)
            before = [p.detach().clone() for p in one.policy.parameters()]
            system.learn(one, batch, Stream(1))
            moves[name] = policy_step(one, before)
        for name, weight in (("free", advantage), ("band", kept(advantage))):
            g = torch.autograd.grad((ratio * weight).mean(), list(state.policy.parameters()), retain_graph=True)
            assert torch.allclose(moves[name], torch.cat([x.reshape(-1) for x in g]), atol=1e-6)


@pytest.mark.parametrize("problem", [CartPole(limit=9), PointMass(limit=9)], ids=["categorical", "gaussian"])
def test_a_divergence_in_closed_form_is_that_of_the_policy_that_acted(problem):
    """The loss sees KL of what acted against what is trained, in both directions, minibatch by minibatch."""
    divergent = surrogate() + 0.5 * kl_old_new() + 0.5 * kl_new_old()
    system = ppo(loss=divergent, epochs=2, minibatches=2, lr=0.02, normalize=False, **SMALL)
    state, batch = state_and_batch(system, problem)
    metrics = system.learn(state, batch, Stream(1))
    assert metrics["kl_old_new"] > 0
    assert metrics["kl_new_old"] > 0
    before = begin(ppo(normalize=False, **SMALL), problem).policy  # the same seed: what acted
    objective = PolicyObjective(kl_old_new() + kl_new_old(), token_mean)
    old, now = before.distribution(batch.obs).detach(), state.policy.distribution(batch.obs).detach()
    whole = objective.weigh(batch.having(acted=old, advantage=batch.reward))
    terms = objective.terms(state, whole)
    assert torch.allclose(terms.kl_old_new, old.kl(now), atol=1e-6)
    assert torch.allclose(terms.kl_new_old, now.kl(old), atol=1e-6)
    assert not torch.allclose(terms.kl_old_new, terms.kl_new_old, atol=1e-6)
    rows = torch.tensor([2, 0])
    assert torch.allclose(objective.terms(state, whole.rows(rows)).kl_old_new, old.kl(now)[rows], atol=1e-6)


def test_a_large_weight_on_the_divergence_holds_the_policy_where_it_was():
    """Bug that it catches: a divergence taken from the policy in training itself, which is 0 and holds nothing."""

    def moved(weight):
        options = {"epochs": 10, "minibatches": 4, "lr": 3e-3, "envs": 8, "horizon": 64, "max_grad_norm": math.inf}
        system = ppo(loss=surrogate() + weight * kl_old_new(), **options)
        return max(record.metrics["kl_max"] for record in train(system, CartPole(), steps=3))

    assert moved(30.0) < 0.2 * moved(0.0)


def test_more_parts_in_state_are_drawn_from_their_own_address_and_saved():
    made = holding(ppo(**SMALL), extra=lambda state, problem, rng: torch.nn.Linear(2, state.live.count))
    with_, without = begin(made, CartPole()), begin(ppo(**SMALL), CartPole())
    assert set(with_.state_dict()) - set(without.state_dict()) == {"extra.weight", "extra.bias"}
    assert torch.equal(with_.policy.net.theta, without.policy.net.theta)


def test_many_passes_without_a_band_run_away_and_with_it_stay():
    told = {}
    for name, width in (("clip", 0.2), ("free", math.inf)):
        system = ppo(clip_range=width, epochs=10, minibatches=4, lr=3e-3, envs=8, horizon=64)
        told[name] = max(r.metrics["kl_max"] for r in train(system, CartPole(), steps=6))
    assert told["free"] > 3 * told["clip"]


def test_a_pass_that_went_too_far_is_the_last():
    whole = ppo(epochs=10, minibatches=4, lr=3e-3, **SMALL)
    short = ppo(epochs=10, minibatches=4, lr=3e-3, max_kl=1e-5, **SMALL)
    far, near = ([r.metrics["kl_mean"] for r in train(s, CartPole(), steps=3)] for s in (whole, short))
    assert max(near) < max(far)
    first = ppo(epochs=1, minibatches=4, lr=3e-3, **SMALL)
    assert near[0] == pytest.approx(next(iter(train(first, CartPole(), steps=1))).metrics["kl_mean"])


def test_the_learning_rate_is_annealed_to_nothing():
    rates = [r.metrics["lr"] for r in train(ppo(lr=0.01, anneal=4, epochs=1, minibatches=2, **SMALL), CartPole(), steps=4)]
    assert rates == pytest.approx([0.01, 0.0075, 0.005, 0.0025])


def test_moments_move_between_steps_and_never_inside_one():
    """What acted is what learns: before its first update a policy gives its own actions the ratio 1."""
    system = ppo(epochs=1, minibatches=1, normalize=True, **SMALL)
    problem = Pendulum(limit=20)
    state = begin(system, problem)
    counts = []
    for _ in train(system, problem, steps=3, state=state):
        counts.append(int(state.policy.norm.count))
        assert state.critic.norm is state.policy.norm
    assert counts == [64, 128, 192]
    batch = system.collect(state, problem, Stream(9))
    assert torch.allclose(state.policy.logp(batch.obs, batch.action, batch.mask), batch.logp, atol=2e-6)
    assert batch.reward.abs().max() <= 10


def test_it_normalises_where_actions_are_numbers_unless_told():
    def normalises(problem, **options):
        state = begin(ppo(**options, **SMALL), problem)
        assert (state.policy.norm is None) == (not hasattr(state, "return_scale"))
        return state.policy.norm is not None

    assert normalises(Pendulum())
    assert not normalises(CartPole())
    assert normalises(CartPole(), normalize=True)
    assert not normalises(Pendulum(), normalize=False)


def test_trpo_differs_from_vpg_in_the_policys_step_alone():
    one, two = (begin(make(critic_minibatches=2, **SMALL), CartPole()) for make in (trpo, vpg))
    assert sorted(one.optimizers) == ["critic"]
    assert sorted(two.optimizers) == ["critic", "policy"]
    assert torch.equal(one.policy.net.theta, two.policy.net.theta)
    a, b = (next(iter(train(make(critic_minibatches=2, **SMALL), CartPole(), steps=1))) for make in (trpo, vpg))
    assert torch.equal(a.state.critic.net.theta, b.state.critic.net.theta)
    assert not torch.equal(a.state.policy.net.theta, b.state.policy.net.theta)


# ---------------------------------------------------------------------------------- learning


@pytest.mark.parametrize(
    ("system", "steps", "reached"),
    [
        (ppo(epochs=10, minibatches=4, lr=3e-3, envs=8, horizon=64), 20, 100),
        (trpo(envs=8, horizon=64, critic_minibatches=4), 30, 80),
        (vpg(envs=8, horizon=64, lr=0.01, critic_minibatches=4), 30, 60),
    ],
    ids=["ppo", "trpo", "vpg"],
)
def test_a_pole_is_kept_up_for_longer(system, steps, reached):
    told = [r.metrics for r in train(system, CartPole(), steps=steps)]
    assert told[0]["return"] < 40
    assert sum(row.get("return", 500) for row in told[-5:]) / 5 > reached


def test_ppo_keeps_a_pole_up_for_150_steps_and_more():
    told = [r.metrics for r in train(ppo(epochs=10, minibatches=4, lr=1e-3, envs=8, horizon=128), CartPole(), steps=30)]
    assert sum(row.get("return", 500) for row in told[-5:]) / 5 > 150


def test_a_point_is_pushed_to_the_origin():
    told = list(train(ppo(normalize=True, epochs=10, minibatches=4, lr=3e-3, envs=8, horizon=64), PointMass(), steps=20))
    first, last = told[0].metrics["return"], told[-1].metrics["return"]
    assert first < -20
    assert last > first / 3


# ---------------------------------------------------------------------------------- claims and bad input


@pytest.mark.parametrize("claim", [ppo_claim, trpo_claim], ids=["ppo", "trpo"])
def test_claims_run_at_a_smaller_size(claim):
    assert isinstance(claim, Claim)
    for arm in (claim.ours, claim.baseline):
        metrics = [r.metrics for r in train(partial(arm, envs=4, horizon=32)(), claim.problem(), steps=2)]
        assert all(math.isfinite(row["kl_max"]) and claim.figure in row for row in metrics)


def test_nearness_is_the_worst_state_of_the_worst_update():
    from steepest.evidence.claim import Run

    assert nearness(Run(0, [{"kl_max": 0.01}, {"kl_max": 0.1}], None, None)) == pytest.approx(1.0)


def test_what_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match="clip_range must be positive"):
        ppo(clip_range=0.0)
    for options, message in (
        ({"envs": 0}, "envs must be at least 1"),
        ({"horizon": 0}, "horizon must be at least 1"),
        ({"prompts": 0}, "prompts must be at least 1"),
        ({"epochs": 0}, "count must be at least 1"),
        ({"minibatches": 0}, "minibatches must be at least 1"),
        ({"max_grad_norm": 0.0}, "max_norm must be positive"),
        ({"anneal": 0}, "annealed over at least 1 step"),
    ):
        with pytest.raises(ValueError, match=message):
            ppo(**options)
    with pytest.raises(ValueError, match=r"discount and decay must lie in \[0, 1\], not 1.5"):
        ppo(discount=1.5)
    with pytest.raises(ValueError, match="max_kl must be positive"):
        trpo(max_kl=-1.0)
    for rates in ({"lr": 0.0}, {"critic_lr": -1.0}):
        with pytest.raises(ValueError, match="learning rates must be positive"):
            vpg(**rates)
    with pytest.raises(ValueError, match="learning rates must be positive"):
        trpo(critic_lr=0.0)
    for bound in ("value_clip", "max_kl"):
        with pytest.raises(ValueError, match="value_clip and max_kl must be positive"):
            ppo(**{bound: -1.0})
    with pytest.raises(TypeError, match="AddCliff is no Control problem"):
        begin(trpo(), TEXT())
    with pytest.raises(ValueError, match="lr must be positive"):
        begin(ppo(lr=0.0), CartPole())
    with pytest.raises(ValueError, match="a batch of 64 rows cannot be cut into 100 minibatches"):
        list(train(ppo(minibatches=100, **SMALL), CartPole(), steps=1))
    assert clip(low=math.inf, high=math.inf).needs == reinforce().needs
