"""Preference pairs: losses in closed form, DPO's optimum, RLHF, and the same DPO on a table and on texts."""

import dataclasses
import math
from functools import partial

import pytest
import torch
from torch.nn.functional import logsigmoid

from steepest.collectors.pairs import pairs
from steepest.core import Stream, begin, train
from steepest.core.check import check_system
from steepest.core.pairs import Pairs
from steepest.losses.preference import PairTerms, hinge, logistic, robust_logistic, square
from steepest.models.tabular import TabularSoftmax
from steepest.optimize.mirror import mirror_step
from steepest.problems.control import CartPole
from steepest.problems.language import AddCliff
from steepest.problems.preferences import PrefBandit
from steepest.systems.preferences.dpo import answer_logp, dpo
from steepest.systems.preferences.rlhf import rlhf

TEXT = partial(AddCliff, width=2, least=1, warm=60, tests=16)


@pytest.fixture(autouse=True, scope="module")
def warmups(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STEEPEST_CACHE", str(tmp_path_factory.mktemp("warmups")))
        yield


# --------------------------------------------------------------------------------------------- losses


def terms(n=5, seed=0):
    g = torch.Generator().manual_seed(seed)
    chosen, rejected, *ref = (torch.randn(n, generator=g, dtype=torch.float64) - 3 for _ in range(4))
    return PairTerms(chosen.requires_grad_(), rejected.requires_grad_(), *ref)


def test_the_losses_are_their_formulas():
    t, beta = terms(), 0.3
    margin = (t.chosen - t.ref_chosen) - (t.rejected - t.ref_rejected)
    for objective, expected in (
        (logistic(beta=beta), -logsigmoid(beta * margin)),
        (logistic(beta=beta, smoothing=0.2), -0.8 * logsigmoid(beta * margin) - 0.2 * logsigmoid(-beta * margin)),
        (robust_logistic(beta=beta, flip=0.2), (-0.8 * logsigmoid(beta * margin) + 0.2 * logsigmoid(-beta * margin)) / 0.6),
        (square(beta=beta), (margin - 1 / 0.6) ** 2),
        (hinge(beta=beta), torch.maximum(1 - beta * margin, torch.zeros(5))),
    ):
        assert torch.allclose(objective(t).loss, expected)


def test_dpos_gradient_by_hand():
    t, beta = terms(), 0.3
    logistic(beta=beta)(t).loss.sum().backward()
    pull = -beta * torch.sigmoid(-beta * t.margin)
    assert torch.allclose(t.chosen.grad, pull)
    assert torch.allclose(t.rejected.grad, -pull)


def test_at_the_reference_the_loss_is_log_two():
    ref = terms()
    t = PairTerms(ref.ref_chosen, ref.ref_rejected, ref.ref_chosen, ref.ref_rejected)
    assert torch.allclose(logistic()(t).loss, torch.full((5,), math.log(2)).double())


def test_a_shift_of_one_question_changes_nothing():
    """The reward is known up to a function of the question: both log-ratios may move together."""
    t = terms()
    moved = dataclasses.replace(t, chosen=t.chosen + 1.7, rejected=t.rejected + 1.7)
    for objective in (logistic(), robust_logistic(), square(), hinge()):
        assert torch.allclose(objective(moved).loss, objective(t).loss)


def at(margin, **options):
    """One pair with that margin: its loss's derivative there."""
    m, zero = torch.tensor([margin], dtype=torch.float64, requires_grad=True), torch.zeros(1, dtype=torch.float64)
    (slope,) = torch.autograd.grad(options.pop("loss")(**options)(PairTerms(m, zero, zero, zero)).loss, m)
    return float(slope)


def test_where_the_minima_lie():
    assert at(0.0, loss=logistic, beta=0.5, smoothing=0.5) == pytest.approx(0, abs=1e-12)  # coin-flip labels teach nothing
    z = math.log(0.9 / 0.1) / 0.5  # smoothed labels: sigmoid(beta D) = 1 - e
    assert at(z, loss=logistic, beta=0.5, smoothing=0.1) == pytest.approx(0, abs=1e-12)
    assert at(1 / (2 * 0.5), loss=square, beta=0.5) == pytest.approx(0, abs=1e-12)
    assert at(2.1, loss=hinge, beta=0.5) == 0  # satisfied pairs push no more
    assert at(1.9, loss=hinge, beta=0.5) == -0.5


def test_the_robust_loss_is_unbiased_under_flipped_labels():
    """(1 - f) L(z) + f L(-z) = l(z): what a flipper's labels say on average is the clean loss. arXiv:2403.00409"""
    t, flip = terms(), 0.3
    swapped = PairTerms(t.rejected, t.chosen, t.ref_rejected, t.ref_chosen)
    objective = robust_logistic(beta=0.4, flip=flip)
    assert torch.allclose((1 - flip) * objective(t).loss + flip * objective(swapped).loss, logistic(beta=0.4)(t).loss)


def test_losses_of_pairs_add_like_others():
    t = terms()
    both = logistic(beta=0.2) + 0.5 * square(beta=0.2)
    assert torch.allclose(both(t).loss, logistic(beta=0.2)(t).loss + 0.5 * square(beta=0.2)(t).loss)


@pytest.mark.parametrize(
    ("objective", "said"),
    [
        (logistic(beta=0.0), "beta must be positive, not 0.0"),
        (hinge(beta=-1.0), "beta must be positive"),
        (logistic(smoothing=0.6), r"smoothing must lie in \[0, 1/2\]"),
        (robust_logistic(flip=0.5), "labels that are wrong half of the time"),
    ],
)
def test_options_without_meaning_are_refused(objective, said):
    with pytest.raises(ValueError, match=said):
        objective(terms())


def test_a_reference_with_gradient_is_refused():
    t = terms()
    with pytest.raises(ValueError, match="ref_chosen carries a gradient: the reference is frozen"):
        PairTerms(t.chosen, t.rejected, t.chosen, t.ref_rejected)


# ---------------------------------------------------------------------------------------------- pairs


def test_rows_share_out_the_weight_again():
    data = PrefBandit(contexts=2, answers=3, count=0).data
    some = data.rows(torch.tensor([0, 3, 4]))
    assert float(some.weight.sum()) == pytest.approx(1)
    assert torch.allclose(some.weight[0] / some.weight[1], data.weight[0] / data.weight[3])
    assert torch.equal(some.chosen, data.chosen[[0, 3, 4]])


def test_pairs_that_do_not_fit_are_refused():
    one = torch.ones(2, 3)
    ids, weight = torch.zeros(2, 3, dtype=torch.long), torch.full((2,), 0.5)
    empty = torch.tensor([[1.0, 0, 0], [0, 0, 0]])
    with pytest.raises(ValueError, match="the rejected answer of pair 1 has no decision"):
        Pairs(ids, ids, one, ids, empty, weight)
    with pytest.raises(ValueError, match=r"pairs.chosen has shape \[2, 3\], its mask \[2, 2\]"):
        Pairs(ids, ids, one[:, :2], ids, one, weight)


def test_all_pairs_are_weighted_as_infinitely_many_would_be():
    problem = PrefBandit(contexts=2, answers=4, count=0, seed=3)
    data, ref = problem.data, problem.log_reference.exp()
    assert len(data) == 2 * 4 * 3
    assert float(data.weight.sum()) == pytest.approx(1)
    found = torch.zeros(2, 4, 4).double()
    for row in range(len(data)):
        x, a, b = (int(getattr(data, name)[row]) for name in ("obs", "chosen", "rejected"))
        found[x, a, b] = data.weight[row]
    won = found / (found + found.transpose(1, 2))
    gap = problem.reward[:, :, None] - problem.reward[:, None]
    off = ~torch.eye(4, dtype=torch.bool)
    assert torch.allclose(won[:, off], torch.sigmoid(gap)[:, off])
    met = found + found.transpose(1, 2)
    assert torch.allclose(met[0, 0, 1] / met[0, 2, 3], ref[0, 0] * ref[0, 1] / (ref[0, 2] * ref[0, 3]))


def test_drawn_pairs_are_preferred_as_often_as_bradley_and_terry_say():
    problem = PrefBandit(contexts=1, answers=2, count=20000, spread=1.0, seed=1)
    data = problem.data
    won = float((data.chosen == 0).double().mean())
    assert won == pytest.approx(float(torch.sigmoid(problem.reward[0, 0] - problem.reward[0, 1])), abs=0.012)
    assert (data.chosen != data.rejected).all()


def test_a_draw_of_pairs_follows_the_generator_and_the_weights():
    problem = PrefBandit(contexts=1, answers=3, count=0, seed=2)
    a, b = (problem.pairs(5, Stream(7).torch()) for _ in range(2))
    assert torch.equal(a.chosen, b.chosen)
    assert a.weight.tolist() == [0.2] * 5
    assert problem.pairs(6, Stream(7).torch()) is problem.data
    many = dataclasses.replace(problem, count=40)
    drawn = torch.cat([many.pairs(39, Stream(s).torch()).chosen for s in range(100)])
    share = torch.bincount(drawn[:, 0], minlength=3) / len(drawn)
    assert torch.allclose(share, torch.bincount(many.data.chosen[:, 0], minlength=3) / 40, atol=0.03)


def test_the_optimum_is_the_reference_tilted_by_the_reward():
    problem = PrefBandit(contexts=2, answers=4, beta=0.3)
    tilt = problem.log_reference.exp() * torch.exp(problem.reward / 0.3)
    assert torch.allclose(problem.optimum.exp(), tilt / tilt.sum(-1, keepdim=True))
    best = problem.evaluate(TabularSoftmax(problem.optimum), Stream(0))
    assert best["regret"] == pytest.approx(0, abs=1e-12)
    assert best["value"] == pytest.approx(best["reward"] - 0.3 * best["kl"])
    # the highest value is beta log of the normaliser, and no other policy has it
    assert best["value"] == pytest.approx(float(0.3 * tilt.sum(-1).log().mean()))
    for seed in range(20):
        other = TabularSoftmax(problem.optimum + 0.1 * torch.randn(2, 4, generator=Stream(seed).torch()).double())
        assert problem.evaluate(other, Stream(0))["regret"] > 0


@pytest.mark.parametrize("options", [{"contexts": 0}, {"answers": 1}, {"count": -1}, {"beta": 0.0}])
def test_a_bandit_without_meaning_is_refused(options):
    with pytest.raises(ValueError, match="must be"):
        PrefBandit(**options)


# ------------------------------------------------------------------------------------------------ dpo


def objective_of(problem, policy, loss):
    data = problem.data
    reference = answer_logp(TabularSoftmax(problem.log_reference).requires_grad_(False), data)
    return (data.weight * loss(PairTerms(*answer_logp(policy, data), *reference)).loss).sum()


def test_with_all_pairs_the_minimum_is_the_tilted_reference():
    """The heart of the paper, found by LBFGS and by the gradient at the closed form."""
    problem, beta = PrefBandit(contexts=2, answers=4, count=0, beta=0.5, seed=1), 0.5
    star = TabularSoftmax(mirror_step(problem.log_reference, problem.reward, 1 / beta))
    (slope,) = torch.autograd.grad(objective_of(problem, star, logistic(beta=beta)), star.logits)
    assert float(slope.abs().max()) < 1e-12
    policy = TabularSoftmax(problem.log_reference)
    optimizer = torch.optim.LBFGS([policy.logits], max_iter=300, tolerance_grad=1e-12, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        value = objective_of(problem, policy, logistic(beta=beta))
        value.backward()
        return value

    optimizer.step(closure)
    kl = (problem.optimum.exp() * (problem.optimum - policy.log_probs().detach())).sum(-1)
    assert float(kl.max()) < 1e-6


def test_dpo_trains_to_the_optimum():
    problem = PrefBandit(contexts=2, answers=4, count=0, beta=0.5, seed=1)
    system = dpo(beta=0.5, lr=3e-3, count=24)
    records = [(r.metrics, problem.evaluate(r.state.policy, Stream(0))) for r in train(system, problem, steps=1500)]
    assert records[0][0]["loss"] == pytest.approx(math.log(2))
    assert records[-1][1]["regret"] < 0.002 < records[0][1]["regret"]


def test_a_step_of_dpo_by_hand():
    problem = PrefBandit(contexts=1, answers=3, count=0, seed=4)
    record = next(train(dpo(lr=0.01, count=6), problem, steps=1))
    logits = problem.log_reference.clone().requires_grad_()
    logp = logits.log_softmax(-1)[0]
    data = problem.data
    margin = (logp - problem.log_reference[0].log_softmax(-1))[data.chosen[:, 0]]
    margin = margin - (logp - problem.log_reference[0].log_softmax(-1))[data.rejected[:, 0]]
    (slope,) = torch.autograd.grad(-(data.weight * logsigmoid(0.1 * margin)).sum(), logits)
    # RMSprop's first step: g / (sqrt(0.01) |g| + eps)
    expected = problem.log_reference - 0.01 * slope / ((0.01 * slope**2).sqrt() + 1e-8)
    assert torch.allclose(record.state.policy.logits, expected, atol=1e-9)
    assert record.metrics["accuracy"] == 0  # no margin yet
    assert record.metrics["pairs"] == 6


def test_ipos_margin_is_bounded_where_dpos_grows():
    """One pair whose label always agrees: 1 / (2 beta) is all that IPO asks, DPO asks for ever more."""
    problem = PrefBandit(contexts=1, answers=2, count=1)
    margins = {}
    for loss in (square, logistic):
        records = list(train(dpo(lr=0.02, beta=0.5, loss=loss), problem, steps=600))
        margins[loss] = [records[i].metrics["margin"] for i in (299, 599)]
    assert margins[square] == pytest.approx([1.0, 1.0], abs=0.06)
    assert margins[logistic][1] > margins[logistic][0] + 1 > 3


# ---------------------------------------------------------------------------------------------- texts


def test_pairs_of_texts_are_ranked_by_the_score():
    problem = TEXT()
    state = begin(dpo(), problem)
    batch = pairs(count=24)(state, problem, Stream(5))
    assert 0 < len(batch) < 24  # ties are dropped
    assert float(batch.weight.sum()) == pytest.approx(1)
    for answer, mask in ((batch.chosen, batch.chosen_mask), (batch.rejected, batch.rejected_mask)):
        assert torch.equal(mask.bool().sum(1), mask.sum(1).long())
        assert answer.shape == mask.shape
    asked = problem.prompts(24, (Stream(5) / "prompts").torch())
    rows = [next(i for i in range(24) if torch.equal(asked.ids[i], ids)) for ids in batch.obs["ids"]]
    prompts = dataclasses.replace(asked, ids=asked.ids[rows], mask=asked.mask[rows], key=asked.key[rows])
    won = problem.score(prompts, batch.chosen, batch.chosen_mask)
    assert (won > problem.score(prompts, batch.rejected, batch.rejected_mask)).all()


def test_dpo_learns_to_prefer_on_texts():
    problem = TEXT()
    records = list(train(dpo(lr=3e-4, count=48), problem, steps=30))
    assert records[0].metrics["loss"] == pytest.approx(math.log(2), abs=1e-4)
    last = [record.metrics for record in records[-10:]]
    assert sum(m["margin"] for m in last) / 10 > 0.5
    assert sum(m["accuracy"] for m in last) / 10 > 0.6  # on pairs that it had never seen
    assert not any(p.requires_grad for p in records[-1].state.reference.parameters())


def test_what_is_masked_adds_nothing():
    problem = TEXT()
    state = begin(dpo(), problem)
    batch = pairs(count=12)(state, problem, Stream(5))
    wild = dataclasses.replace(batch, chosen=torch.where(batch.chosen_mask > 0, batch.chosen, 3))
    with torch.no_grad():
        for one, two in zip(answer_logp(state.policy, batch), answer_logp(state.policy, wild), strict=True):
            assert torch.allclose(one, two, atol=1e-5)


def test_a_batch_of_ties_teaches_nothing():
    problem = TEXT()
    system = dpo()
    state = begin(system, problem)
    batch = pairs(count=4)(state, problem, Stream(5))
    none = Pairs({k: x[:0] for k, x in batch.obs.items()}, *(getattr(batch, f)[:0] for f in list(vars(batch))[1:]))
    before = {name: x.clone() for name, x in state.policy.state_dict().items()}
    assert system.learn(state, none, Stream(0)) == {"pairs": 0, "skipped": 1.0}
    assert all(torch.equal(x, before[name]) for name, x in state.policy.state_dict().items())


# ----------------------------------------------------------------------------------------------- rlhf


def test_rlhf_fits_the_reward_and_then_the_policy():
    problem = PrefBandit(contexts=2, answers=4, count=0, beta=0.5, seed=1)
    system = rlhf(beta=0.5, fit=400, fit_lr=0.03, count=24, lr=0.02, group=64)
    start = begin(system, problem).policy.logits.detach().clone()
    for record in train(system, problem, steps=900):
        if record.step == 400:
            assert torch.equal(record.state.policy.logits, start)  # only the reward learned so far
            got, true = record.state.reward.table.detach(), problem.reward
            assert torch.allclose(got - got.mean(1, keepdim=True), true - true.mean(1, keepdim=True), atol=0.02)
    assert problem.evaluate(record.state.policy, Stream(0))["regret"] < 0.02


def test_the_policys_reward_pays_for_the_divergence():
    problem = PrefBandit(contexts=2, answers=3, seed=1)
    system = rlhf(beta=0.3, fit=1, group=4)
    state = begin(system, problem)
    state.step = 1
    with torch.no_grad():
        state.policy.logits.add_(torch.tensor([1.0, 0.0, -1.0]))
        state.reward.table.add_(torch.arange(6).view(2, 3))
    batch = system.collect(state, problem, Stream(0)).check()
    assert batch.key.tolist() == [0] * 4 + [1] * 4
    for n in range(8):
        x, a = int(batch.obs[n, 0]), int(batch.action[n, 0])
        away = state.policy.log_probs()[x, a] - problem.log_reference[x, a]
        assert float(batch.reward[n, 0]) == pytest.approx(float((state.reward.table[x, a] - 0.3 * away).detach()))


# ----------------------------------------------------------------------------------------- conformance


@pytest.mark.parametrize(
    ("make", "problem"),
    [(partial(dpo, lr=0.01), PrefBandit), (partial(rlhf, fit=2), PrefBandit), (partial(dpo, count=8), TEXT)],
    ids=["dpo", "rlhf", "dpo on texts"],
)
def test_they_conform(make, problem):
    assert any("resume is bitwise" in law for law in check_system(make, problem, fresh=False))


def test_unsound_options_and_problems_are_refused():
    for make, said in (
        (partial(dpo, beta=0.0), "beta, lr and max_grad_norm must be positive"),
        (partial(dpo, count=0), "count must be at least 1"),
        (partial(rlhf, group=1), "group >= 2"),
        (partial(rlhf, fit=0), "fit >= 1"),
    ):
        with pytest.raises(ValueError, match=said):
            make()
    with pytest.raises(TypeError, match="does not fit AddCliff"):
        begin(rlhf(), TEXT())
    with pytest.raises(TypeError, match="CartPole is neither a Preferences nor a Language problem"):
        begin(dpo(), CartPole())
    with pytest.raises(TypeError, match="CartPole has no pairs"):
        pairs()(begin(dpo(), PrefBandit()), CartPole(), Stream(0))
