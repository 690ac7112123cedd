"""Methods for answers that are no longer the policy's: weights and bounds in closed form, the queue, and that they conform."""

import itertools
from dataclasses import replace
from functools import partial

import pytest
import torch

from steepest.collectors.generate import generate
from steepest.collectors.stale import delayed, stale
from steepest.core import Stream, begin, train
from steepest.core.check import check_system
from steepest.credit import group_relative, leave_one_out
from steepest.engines import by_score
from steepest.losses import (
    Terms,
    bapo,
    cispo,
    clip,
    cpgd,
    gspo,
    hapo,
    m2po,
    nft,
    rapid,
    reinforce,
    sequence_mean,
    surrogate,
    topr,
)  # fmt: skip
from steepest.losses.bounds import balanced, pulls, second_moment
from steepest.losses.check import check_loss
from steepest.memory import Queue
from steepest.problems.language import AddCliff
from steepest.systems.reasoning import bapo as bapo_file
from steepest.systems.reasoning import cpgd as cpgd_file
from steepest.systems.reasoning import m2po as m2po_file
from steepest.systems.reasoning import nft as nft_file
from steepest.systems.reasoning import rapid as rapid_file
from steepest.systems.reasoning import topr as topr_file
from steepest.systems.reasoning.grpo import grpo

SMALL = partial(AddCliff, width=2, least=1, warm=60, tests=32)
SIZES = {"prompts": 4, "group": 4, "lr": 1e-3}
ALL = ["on_policy", "zero_advantage", "order", "padding", "finite", "pure", "cut"]


def slope(loss, terms):
    """d loss / d new at every decision."""
    (g,) = torch.autograd.grad(loss(terms).loss[terms.mask > 0].sum(), terms.new, retain_graph=True)
    return g


def one(ratio, advantage, **extra):
    """One decision of a given ratio."""

    def cell(x):
        return torch.tensor([[float(x)]], dtype=torch.float64)

    own = {name: cell(x) for name, x in extra.items()}
    return Terms(cell(ratio).log().requires_grad_(), cell(0), cell(advantage), cell(1), extra=own)


def parameters(system, steps=1, seed=0):
    *_, last = train(system, SMALL(), steps=steps, seed=seed)
    return torch.cat([p.detach().flatten() for p in last.state.policy.parameters()])


@pytest.mark.parametrize(
    "objective",
    [cpgd(), cpgd(drift=1.0), bapo(), bapo(target=1.5), m2po(), m2po(budget=1e-3, low=0.01, high=0.01), topr(), rapid()],
    ids=str,
)
def test_every_loss_obeys_every_law(objective):
    assert check_loss(objective) == ALL


def share_of_right(terms):
    return 0.1 + 0.8 * terms.old.sigmoid()


@pytest.mark.parametrize("floor", [0.1, 1.0])
def test_nft_obeys_every_law_with_its_column(floor):
    assert check_loss(nft(floor=floor), columns={"success": share_of_right}) == ALL


@pytest.mark.parametrize("objective", [clip(), cpgd(), bapo(), m2po(), topr(), rapid(), cispo(), gspo(), hapo(), nft()], ids=str)
@pytest.mark.parametrize("first", [True, False])
def test_what_stands_beside_a_loss_keeps_its_gradient(objective, first):
    """The ratio is computed once for both: it must not have been computed where no gradient is recorded."""

    def terms():
        given = stale_terms(0.0)
        return replace(given, extra={"success": share_of_right(given), "nature": given.old.tanh()})

    both = slope(objective + surrogate() if first else surrogate() + objective, terms())
    torch.testing.assert_close(both, slope(objective, terms()) + slope(surrogate(), terms()))


# -------------------------------------------------------------------------------------------- CPGD


@pytest.mark.parametrize("ratio", [0.01, 0.7, 0.9, 1.0, 1.1, 1.5, 1000.0])
@pytest.mark.parametrize("advantage", [-2.0, 0.5])
def test_no_ratio_multiplies_the_gradient_of_cpgd(ratio, advantage):
    left = (ratio > 1.2 and advantage > 0) or (ratio < 0.8 and advantage < 0)
    assert slope(cpgd(drift=0.0), one(ratio, advantage)).item() == pytest.approx(0.0 if left else -advantage)
    drift = slope(cpgd(drift=1.0), one(ratio, 0.0)).item()
    assert drift == pytest.approx(min(ratio - 1, 0.2))


def test_the_ppo_gradient_of_a_bad_token_grows_with_the_ratio():
    assert slope(clip(), one(1000.0, -2.0)).item() == pytest.approx(2000.0)
    assert slope(cpgd(drift=0.01), one(1000.0, -2.0)).item() == pytest.approx(2.0 + 0.002)


def test_the_drift_is_the_divergences_gradient():
    """KL(old || pi) over a whole distribution: sum of old (r - 1) grad log pi, as long as no ratio exceeds the cap."""
    old = torch.tensor([0.2, 0.3, 0.5]).double()
    theta = torch.tensor([0.25, 0.29, 0.46]).double().log().requires_grad_()
    new = theta.log_softmax(-1)[None]
    terms = Terms(new, old.log()[None], torch.zeros(1, 3), torch.ones(1, 3))
    estimate = (cpgd(drift=1.0, cap=10.0)(terms).loss * old).sum()
    (got,) = torch.autograd.grad(estimate, theta, retain_graph=True)
    (true,) = torch.autograd.grad((old * (old.log() - new[0])).sum(), theta)
    torch.testing.assert_close(got, true)


# -------------------------------------------------------------------------------------------- BAPO


def stale_terms(bias, n=40, t=6):
    g = torch.Generator().manual_seed(3)
    old = torch.randn(n, t, generator=g, dtype=torch.float64) - 2
    new = (old + 0.6 * torch.randn(n, t, generator=g, dtype=torch.float64)).requires_grad_()
    advantage = torch.randn(n, 1, generator=g, dtype=torch.float64).expand(n, t) - bias
    return Terms(new, old, advantage, (torch.rand(n, t, generator=g) > 0.2).double())


SEARCH = {"start": (0.8, 1.2), "most": (0.95, 2.0), "step": (0.05, 0.1)}


@pytest.mark.parametrize("bias", [-3.0, 0.0, 0.3, 3.0])
@pytest.mark.parametrize("target", [0.0, 0.5, 1.0, 2.0])
def test_bounds_move_no_further_than_they_must(bias, target):
    terms = stale_terms(bias).detached()
    low, high = balanced(terms, target, **SEARCH)
    assert 0.8 <= low <= 0.95
    assert 1.2 <= high <= 2.0
    good, bad = pulls(terms, low, high)
    reached = bool(good >= target * bad)
    assert reached or (low, high) == (0.95, 2.0)
    if (low, high) != (0.8, 1.2):
        before = (low, high - 0.1) if high > 1.2 else (low - 0.05, high)
        good, bad = pulls(terms, *before)
        assert good < target * bad


def test_on_the_way_the_good_gain_on_the_bad():
    terms = stale_terms(0.5).detached()
    path = [(0.8, 1.2), (0.85, 1.2), (0.9, 1.2), (0.95, 1.2), (0.95, 1.3), (0.95, 1.6), (0.95, 2.0)]
    shares = [float(good / bad) for good, bad in (pulls(terms, *bounds) for bounds in path)]
    assert shares == sorted(shares)
    assert shares[-1] > 1.5 * shares[0]


def test_without_a_target_or_without_anything_bad_bapo_is_ppo():
    terms = stale_terms(0.3)
    plain = clip(dual=3.0)
    assert torch.equal(bapo(target=0.0)(terms).loss, plain(terms).loss)
    good = Terms(terms.new, terms.old, terms.advantage.abs(), terms.mask)
    assert torch.equal(bapo(target=9.0)(good).loss, plain(good).loss)
    assert not torch.equal(bapo(target=2.0)(terms).loss, plain(terms).loss)


# -------------------------------------------------------------------------------------------- M2PO


@pytest.mark.parametrize("budget", [1e-4, 0.01, 0.04, 0.2])
def test_the_second_moment_of_what_is_pushed_away_is_the_budget(budget):
    terms = stale_terms(0.0)
    away = (terms.new - terms.old).detach()
    square = away[(terms.mask > 0) & (away * terms.advantage > 0)] ** 2
    tau = second_moment(terms.detached(), budget)
    assert float(square.minimum(tau**2).mean()) == pytest.approx(min(budget, float(square.mean())), rel=1e-9)


def test_what_is_not_pushed_away_is_never_cut():
    terms = stale_terms(0.0)
    helped = (terms.new - terms.old) * terms.advantage < 0
    ours, free = (slope(loss, terms) for loss in (m2po(budget=1e-4, low=0.0, high=0.0), surrogate()))
    assert torch.equal(ours[helped], free[helped])
    assert (ours[~helped & (terms.mask > 0)] == 0).float().mean() > 0.5


def test_m2po_between_no_clip_and_ppos():
    terms = stale_terms(0.0)
    assert torch.equal(slope(m2po(budget=1e9), terms), slope(surrogate(), terms))
    assert torch.equal(slope(m2po(budget=1e-12, low=0.2, high=0.2), terms), slope(clip(), terms))
    still = Terms(terms.old.clone().requires_grad_(), terms.old, terms.advantage, terms.mask)
    assert second_moment(still.detached(), 0.04) == torch.inf  # nothing is pushed away yet
    torch.testing.assert_close(slope(m2po(), still), slope(clip(), still))


# -------------------------------------------------------------------------------------------- TOPR and RAPID


def answer(ratios, advantage):
    """One answer, whose tokens have these ratios."""
    new = torch.tensor([ratios]).double().log().requires_grad_()
    return Terms(new, torch.zeros_like(new), torch.full_like(new, advantage), torch.ones_like(new))


def test_topr_tapers_what_was_wrong_by_the_ratio_of_the_whole_answer():
    for ratios, product in (((0.5, 0.5), 0.25), ((2.0, 0.1), 0.2), ((3.0, 1.0), 1.0), ((1e-6, 1e-4), 0.0)):
        torch.testing.assert_close(slope(topr(), answer(ratios, -1.0)), torch.full((1, 2), product).double(), atol=1e-8, rtol=0)
        assert (slope(topr(), answer(ratios, 1.0)) == -1).all()
    naive = topr(good_low=1.0, good_high=1.0, bad_low=1.0, bad_high=1.0)
    terms = stale_terms(0.0)
    torch.testing.assert_close(naive(terms).loss, reinforce()(terms).loss)


def test_a_mask_hides_ratios_from_the_whole():
    terms = answer((0.5, 0.25, 100.0), -1.0)
    hidden = Terms(terms.new, terms.old, terms.advantage, torch.tensor([[1.0, 1, 0]]).double())
    assert slope(topr(), hidden)[0, 0].item() == pytest.approx(0.125)
    assert slope(rapid(), hidden)[0, 0].item() == pytest.approx(0.125)


def test_the_baseline_sets_the_share_of_the_upward_pull():
    for right, baseline in itertools.product((0.1, 0.5, 0.9), (-0.8, 0.0, 0.6)):
        up, down = right * (1 - baseline), (1 - right) * (1 + baseline)
        assert topr_file.positive_share(right, baseline) == pytest.approx(up / (up + down))
        formula = right * (1 - baseline) / (1 + baseline * (1 - 2 * right))
        assert topr_file.positive_share(right, baseline) == pytest.approx(formula)
    assert topr_file.positive_share(0.0, -1.0) == 0


def scored(score):
    state = begin(grpo(**SIZES), SMALL())
    batch = generate(prompts=1, group=4)(state, SMALL(), Stream(0))
    reward = torch.zeros_like(batch.reward)
    reward[:, 0] = torch.tensor(score)
    return state, batch.having(reward=reward)


def test_topr_reads_verdicts():
    assert topr_file.signed(0.0)(*scored([0.0, 1.0, 1.0, 0.5])).tolist() == [[-1], [1], [1], [0]]
    assert topr_file.signed(-1.0)(*scored([0.0, 1.0, 1.0, 0.0])).tolist() == [[0], [2], [2], [0]]  # wrong ones do not count
    with pytest.raises(ValueError, match="answer 3 has score 2"):
        topr_file.signed(0.0)(*scored([0.0, 1.0, 1.0, 2.0]))


@pytest.mark.parametrize("ratio", [0.1, 1.0, 1.9, 2.5, 1e6])
def test_no_weight_of_rapid_exceeds_its_bound(ratio):
    assert slope(rapid(most=2.0), one(ratio, 3.0)).item() == pytest.approx(-3.0 * min(ratio, 2.0))


def test_without_a_bound_rapid_has_the_gradient_of_the_policy_that_did_not_answer():
    """Three answers of two tokens drawn from another policy, all 729 draws enumerated, leave-one-out baseline."""
    answers = torch.tensor(list(itertools.product(range(3), repeat=2)))
    reward = torch.tensor([0.0, 1.0, 0.5, 0.0, 0.0, 2.0, -1.0, 0.3, 0.0]).double()
    g = torch.Generator().manual_seed(1)
    theta = torch.randn(2, 3, generator=g, dtype=torch.float64).requires_grad_()
    other = torch.randn(2, 3, generator=g, dtype=torch.float64).log_softmax(-1)[torch.arange(2), answers]

    def logp():
        return theta.log_softmax(-1)[torch.arange(2), answers]

    (true,) = torch.autograd.grad(-(logp().sum(1).exp() * reward).sum(), theta)
    index = torch.tensor(list(itertools.product(range(9), repeat=3)))
    chance = other.sum(1).exp()[index].prod(1)
    # the baseline must be of the trained policy's expectation for no bias: a constant is, and 0 is one
    for bound, exact in ((float("inf"), True), (1.0, False)):
        new, old = logp()[index].flatten(0, 1), other[index].flatten(0, 1)
        terms = Terms(new, old, reward[index].flatten()[:, None].expand(-1, 2), torch.ones_like(new))
        value = rapid(most=bound)(terms).loss.sum(1).view(index.shape).mean(1)
        (got,) = torch.autograd.grad((chance * value).sum(), theta)
        assert torch.allclose(got, true, atol=1e-12) == exact


# -------------------------------------------------------------------------------------------- NFT


@pytest.mark.parametrize("right", [1, 3, 7])
def test_at_ratio_one_nft_is_grpo_or_dr_grpo(right):
    """Of 8 answers: its advantages against the group's, over the population's standard deviation, or over nothing."""
    score, key = (torch.arange(8) < right).double(), torch.zeros(8, dtype=torch.long)
    q = torch.tensor(right / 8).double()
    ours = torch.where(score > 0, 1.0, -q / (1 - q)) * nft_file.hard_first(q)
    torch.testing.assert_close(ours, group_relative(score, key, eps=0) * (8 / 7) ** 0.5)
    ours = torch.where(score > 0, 1.0, -q / (1 - q)) * nft_file.plain(q)
    torch.testing.assert_close(ours, leave_one_out(score, key) * 7 / 8)


@pytest.mark.parametrize(
    ("ratio", "q", "floor"), [(1.0, 0.5, 1.0), (0.5, 0.25, 1.0), (1.8, 0.5, 1.0), (1.8, 0.5, 0.1), (30.0, 0.9, 0.1)]
)
def test_nft_by_hand(ratio, q, floor):
    left = (1 - q * ratio) / (1 - q)
    wrong = one(ratio, -q / (1 - q), success=q)  # w = 1
    assert nft(floor=floor)(wrong).loss.item() == pytest.approx(-torch.tensor(max(left, floor)).log().item(), abs=1e-6)
    assert slope(nft(floor=floor), wrong).item() == pytest.approx(q * ratio / (1 - q) / max(left, floor))
    assert slope(nft(), one(ratio, 1.0, success=q)).item() == pytest.approx(-1.0)


def test_the_two_parts_make_up_the_old_policy():
    q, ratio, old = 0.3, torch.tensor([0.5, 1.0, 1.5]), torch.tensor([0.3, 0.3, 0.4])
    right, wrong = ratio * old, (1 - q * ratio) / (1 - q) * old
    torch.testing.assert_close(q * right + (1 - q) * wrong, old)


def test_nft_reads_verdicts_and_leaves_groups_that_agree_alone():
    credit = nft_file.verdicts(nft_file.plain)
    given = credit(*scored([0.0, 1.0, 1.0, 1.0]))
    assert given["success"].flatten().tolist() == [0.75] * 4
    torch.testing.assert_close(given["advantage"].flatten(), torch.tensor([-0.75, 0.25, 0.25, 0.25]))
    for same in (0.0, 1.0):
        assert not credit(*scored([same] * 4))["advantage"].any()
    with pytest.raises(ValueError, match=r"answer 1 has score 0.5"):
        credit(*scored([0.0, 0.5, 1.0, 1.0]))


# -------------------------------------------------------------------------------------------- the queue


def test_first_in_first_out():
    queue = Queue(2, x=torch.zeros(1), n=torch.zeros(1, dtype=torch.long))
    with pytest.raises(ValueError, match="the queue is empty"):
        queue.read()
    for i in range(5):
        queue.write(x=torch.tensor([i / 2]), n=torch.tensor([i]))
        assert len(queue) == min(i + 1, 2)
        assert queue.read()["n"].item() == max(0, i - 1)
    assert queue.read()["x"].item() == 1.5
    for wrong, fault in (({"x": torch.zeros(1)}, "has columns"), ({"x": torch.zeros(2), "n": torch.zeros(1)}, "have shape")):
        with pytest.raises(ValueError, match=fault):
            queue.write(**wrong)
    with pytest.raises(ValueError, match="at least one entry"):
        Queue(0, x=torch.zeros(1))


def seen(lag, steps=6):
    """Fingerprints of the batches that are learned from, and of those that each step would have sampled, with their policy."""
    problem, learned, fresh = SMALL(), [], []
    plain = grpo(kl=0, **SIZES)
    system = delayed(grpo(kl=0, collect=stale(lag), **SIZES), lag, rows=16, room=8)
    state = begin(system, problem)
    for step in range(steps):
        rng = Stream(0, step) / "collect"
        sampled = plain.collect(state, problem, rng)
        logp = state.policy.logp(sampled.obs, sampled.action, sampled.mask).detach()
        fresh.append((sampled.action.masked_select(sampled.mask > 0).tolist(), logp[sampled.mask > 0]))
        batch = system.collect(state, problem, rng).check()
        learned.append((batch.action.masked_select(batch.mask > 0).tolist(), batch.logp[batch.mask > 0] if lag else None, batch))
        system.learn(state, batch, Stream(0, step) / "learn")
    return learned, fresh, state


def test_a_batch_is_learned_from_lag_updates_after_it_was_sampled():
    learned, fresh, state = seen(2)
    for step in range(2, 6):
        assert learned[step][0] == fresh[step - 2][0]
        torch.testing.assert_close(learned[step][1], fresh[step - 2][1], atol=1e-5, rtol=0)
    batch = learned[5][2]
    now = state.policy.logp(batch.obs, batch.action, batch.mask)
    assert float((now - batch.logp).abs().max()) > 0.01  # the policy has moved on since
    assert batch.obs["ids"].shape == learned[0][2].obs["ids"].shape


def test_without_a_lag_nothing_waits():
    learned, fresh, state = seen(0, steps=2)
    assert [x[0] for x in learned] == [x[0] for x in fresh]
    assert not hasattr(state, "queue")
    assert stale(0) is generate
    with pytest.raises(ValueError, match="lag is at least 0"):
        stale(-1)


def test_a_prompt_that_does_not_fit_says_so():
    system = delayed(grpo(kl=0, collect=stale(1), **SIZES), 1, rows=16, room=3)
    with pytest.raises(ValueError, match=r"a prompt of 5 tokens does not fit the queue, which has room for 3: raise `room`"):
        list(train(system, SMALL(), steps=1))


# -------------------------------------------------------------------------------------------- systems


def test_with_one_fresh_update_they_are_grpo():
    plain = parameters(grpo(kl=0, reduce=sequence_mean, **SIZES))
    near = partial(torch.testing.assert_close, atol=1e-7, rtol=0)
    for make in (cpgd_file.cpgd, bapo_file.bapo, partial(m2po_file.m2po, lag=0)):
        near(parameters(make(reduce=sequence_mean, **SIZES)), plain)
    alone = parameters(topr_file.topr(**SIZES))
    near(alone, parameters(grpo(kl=0, loss=reinforce(), credit=topr_file.signed(0.0), **SIZES)))
    # of one minibatch RAPID is RLOO, but for G / (G - 1), which Adam's first step does not see
    a, b = (parameters(make, steps=1) for make in (
        rapid_file.rapid(minibatches=1, **SIZES),
        grpo(kl=0, credit=by_score(leave_one_out), loss=reinforce(), reduce=lambda mask: mask / len(mask), **SIZES),
    ))  # fmt: skip
    near(a, b, atol=2e-5)


def test_the_gradient_does_not_depend_on_the_cut():
    for make in (partial(m2po_file.m2po, budget=1e-4, low=0.0, high=0.0), partial(bapo_file.bapo, target=2.0)):
        whole, cut = (parameters(make(lag=1, room=8, micro=micro, **SIZES), 3) for micro in (None, 3))
        torch.testing.assert_close(whole, cut, atol=2e-6, rtol=0)


SYSTEMS = {
    "cpgd": partial(cpgd_file.cpgd, epochs=2), "bapo": partial(bapo_file.bapo, lag=1, room=8),
    "m2po": partial(m2po_file.m2po, lag=3, room=8), "topr": partial(topr_file.topr, lag=1, room=8),
    "nft": partial(nft_file.nft, minibatches=2), "rapid": partial(rapid_file.rapid, minibatches=2),
}  # fmt: skip


@pytest.mark.parametrize("name", SYSTEMS)
def test_it_conforms(name):
    check_system(partial(SYSTEMS[name], **SIZES), SMALL, half=1)


@pytest.mark.parametrize(
    ("make", "wrong"),
    [
        (cpgd_file.cpgd, {"width": 1.0}), (cpgd_file.cpgd, {"drift": -0.1}), (bapo_file.bapo, {"low": 0.96}),
        (bapo_file.bapo, {"high": 2.5}), (bapo_file.bapo, {"target": -1.0}), (bapo_file.bapo, {"low_step": 0.0}),
        (m2po_file.m2po, {"budget": 0.0}), (m2po_file.m2po, {"lag": -1}), (topr_file.topr, {"baseline": 1.0}),
        (topr_file.topr, {"bad_low": 2.0}), (rapid_file.rapid, {"most": 0.5}), (rapid_file.rapid, {"minibatches": 7}),
        (nft_file.nft, {"floor": 0.0}),
    ],
)  # fmt: skip
def test_bad_input_is_refused_before_any_work(make, wrong):
    with pytest.raises(ValueError, match=r"must|needs|lag is at least|do not divide"):
        make(**wrong)
