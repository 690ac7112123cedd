"""Policy optimization as least squares: the papers' losses pair by pair, their optima by enumeration, and one gradient for all."""

from functools import partial

import pytest
import torch

from steepest.collectors.generate import generate, of_reference
from steepest.core import Stream, begin, train
from steepest.core.check import check_system
from steepest.credit import centred
from steepest.engines import by_score
from steepest.losses import Terms, from_reference, regress, regress_pairs, regress_value, sequence_sum
from steepest.losses import reinforce as score_function
from steepest.losses.check import check_loss, example
from steepest.problems.fixed import Fixed
from steepest.problems.language import AddCliff
from steepest.systems.reasoning.a_star_po import a_star_po, optimal_advantage, optimal_value
from steepest.systems.reasoning.copg import copg
from steepest.systems.reasoning.grpo import grpo
from steepest.systems.reasoning.kimi_k15 import forget_moments, kimi_k15
from steepest.systems.reasoning.rebel import rebel
from steepest.systems.reasoning.tbrm import ended, tbrm

SMALL = partial(AddCliff, width=2, least=1, warm=60, tests=32)
SIZES = {"prompts": 4, "lr": 1e-3}


def pool():
    return Fixed(SMALL(), count=12)


def parameters(system, steps=1, seed=0, problem=SMALL):
    *_, last = train(system, problem(), steps=steps, seed=seed)
    return torch.cat([p.detach().flatten() for p in last.state.policy.parameters()])


# ------------------------------------------------------------------------------------------- losses


@pytest.mark.parametrize("scale", [0.5, 10.0])
@pytest.mark.parametrize("make", [regress, regress_pairs])
def test_the_squares_obey_every_law(make, scale):
    check_loss(make(scale=scale))
    check_loss(from_reference(make(scale=scale)))


def test_with_a_value_that_learns_the_first_step_is_not_reinforces():
    check_loss(regress_value(scale=2.0), exempt=("on_policy", "zero_advantage"))


def whole_answers(spread=0.5):
    """Terms whose advantage is one number an answer, centred in its group of three."""
    terms = example(spread=spread)
    score = torch.tensor([1.0, 0, 0.3, 0, 2, 1], dtype=torch.float64)
    away = centred(score, terms.key[:, 0])
    return terms.each(lambda name, x: away[:, None].expand_as(x) if name == "advantage" else x), score


def answers_value(loss, terms):
    """The loss of each answer, as `sequence_sum` adds it up."""
    return torch.where(terms.mask > 0, loss(terms).loss, 0.0).sum(1)


def movement(terms, start):
    return torch.where(terms.mask > 0, terms.new - start, 0.0).sum(1)


def slope(value, terms):
    return torch.autograd.grad(value, terms.new, retain_graph=True)[0]


def test_rebel_pair_by_pair():
    terms, score = whole_answers()
    eta = 0.7
    x = movement(terms, terms.old) / eta - score
    pairs = [(x[i] - x[j]) ** 2 for i in range(6) for j in range(6) if i != j and i // 3 == j // 3]
    theirs = torch.stack(pairs).mean()
    ours = (answers_value(regress_pairs(scale=eta), terms)).mean()
    assert float(theirs.detach()) == pytest.approx(float(ours.detach()) * 4 * 3 / (eta * 2))  # 4 G / (eta (G - 1))
    torch.testing.assert_close(slope(theirs, terms), slope(ours, terms) * 4 * 3 / (eta * 2))


def test_rebels_first_step_pushes_the_better_answer_of_a_pair():
    terms, score = whole_answers(spread=0.0)
    eta = 0.7
    x = movement(terms, terms.old) / eta - score
    got = slope((x[0] - x[1]) ** 2, terms)
    expected = -2 / eta * (score[0] - score[1]) * terms.mask
    torch.testing.assert_close(got[0], expected[0])
    torch.testing.assert_close(got[1], -expected[1])


def test_copg_is_the_contrastive_gradient():
    """(R(y) - R(y')) grad log pi(y) + (R(y') - R(y)) grad log pi(y'), R = r - beta log pi/ref held fixed."""
    terms, score = whole_answers()
    beta = 0.3
    reward = (score - beta * movement(terms, terms.ref)).detach()
    log_pi = torch.where(terms.mask > 0, terms.new, 0.0).sum(1)
    contrast = sum((reward[i] - reward[j]) * log_pi[i] for i in range(6) for j in range(6) if i // 3 == j // 3)
    ours = answers_value(from_reference(regress_pairs(scale=1 / beta)), terms).sum()
    torch.testing.assert_close(slope(ours, terms), -slope(contrast, terms) / 3)


def test_preferences_of_a_half_make_it_ipo():
    """Rewards of +-1/2 leave (beta difference - 1)^2, which is IPO's square, (difference - 1 / beta)^2, times beta^2."""
    terms = example()
    pair = terms.each(lambda _, x: x[:2])
    pair = pair.each(lambda name, x: torch.tensor([[0.5], [-0.5]]).double().expand_as(x) if name == "advantage" else x)
    beta = 0.3
    away = movement(pair, pair.ref)
    ours = answers_value(from_reference(regress_pairs(scale=1 / beta)), pair).sum()
    assert float(ours.detach()) == pytest.approx(float(((away[0] - away[1]).detach() - 1 / beta) ** 2 * beta / 4))


def test_kimis_gradient():
    terms, _ = whole_answers()
    tau = 0.2
    away = movement(terms, terms.old)
    stated = -(terms.advantage[:, 0] * away - tau / 2 * away**2).sum()
    ours = answers_value(regress(scale=1 / tau), terms).sum()
    torch.testing.assert_close(slope(ours, terms), slope(stated, terms))
    small = answers_value(regress(scale=1e9), terms).sum()  # tau -> 0: REINFORCE with the group's mean
    torch.testing.assert_close(slope(small, terms), slope((score_function()(terms).loss * terms.mask).sum(), terms))


def test_tbrm_with_a_value_that_is_a_table_is_a_star_po():
    terms, score = whole_answers()
    beta, table = 0.4, torch.tensor([0.3, 0.3, 0.3, -0.2, -0.2, -0.2], dtype=torch.float64)[:, None]
    given = {"value": table, "advantage": score[:, None]}
    flat = terms.each(lambda name, x: given[name].expand_as(x) if name in given else x)
    against = terms.each(lambda name, x: (score[:, None] - beta * table).expand_as(x) if name == "advantage" else x)
    tb, star = (answers_value(loss, t) for loss, t in (
        (regress_value(scale=1 / beta), flat), (from_reference(regress(scale=1 / beta)), against),
    ))  # fmt: skip
    torch.testing.assert_close(slope(tb.sum(), flat), slope(star.sum(), against))
    square = beta / 2 * (table[:, 0] + movement(terms, terms.ref) - score / beta) ** 2
    torch.testing.assert_close(tb, square)
    torch.testing.assert_close(star, square)


# --------------------------------------------------------------------------- optima, where all can be listed


REWARD = torch.tensor([1.0, 0.2, 0.0, 0.7], dtype=torch.float64)
START = torch.tensor([0.1, 0.5, 0.3, 0.1], dtype=torch.float64).log()


def arms(logits, advantage, **more):
    """One decision among four, all of them seen, as answers to one prompt."""
    new = logits.log_softmax(0)[:, None]
    key = torch.zeros(4, 1, dtype=torch.long)
    return Terms(new, START[:, None], advantage[:, None], torch.ones(4, 1).double(), START[:, None], key=key, **more)


def solved(loss, advantage, chance, steps=500):
    """The policy that minimises the loss over answers drawn with the given chances, by gradient descent."""
    logits = START.clone().requires_grad_()
    optimizer = torch.optim.Adam([logits], 0.1)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 0.1 * (1 - step / steps)
        optimizer.zero_grad()
        (chance * loss(arms(logits, advantage)).loss[:, 0]).sum().backward()
        optimizer.step()
    return logits.detach().softmax(0)


EVEN = torch.full((4,), 0.25, dtype=torch.float64)
SKEW = torch.tensor([0.02, 0.08, 0.3, 0.6], dtype=torch.float64)


def test_rebel_with_all_pairs_is_a_natural_policy_gradient_step():
    eta = 1.5
    got = solved(regress_pairs(scale=eta), REWARD - REWARD.mean(), EVEN)
    torch.testing.assert_close(got, (START + eta * REWARD).softmax(0), atol=1e-4, rtol=0)
    there = arms(START + eta * REWARD, REWARD - REWARD.mean())
    assert float(answers_value(regress_pairs(scale=eta), there).sum()) == pytest.approx(0, abs=1e-12)


def test_rebel_and_copg_do_not_see_a_shift_of_a_prompts_rewards():
    key = torch.zeros(4, dtype=torch.long)
    torch.testing.assert_close(centred(REWARD + 3, key), centred(REWARD, key))


@pytest.mark.parametrize("chance", [EVEN, SKEW], ids=["even", "skew"])
def test_the_squares_from_the_reference_have_one_optimum_whoever_answers(chance):
    """With the optimal value known, A*-PO ends at ref exp(r / beta) / Z from any answers; a policy gradient without ratios at a
    vertex of what it was shown."""
    beta = 0.5
    best = (START + REWARD / beta).softmax(0)
    value = beta * (START + REWARD / beta).logsumexp(0)
    got = solved(from_reference(regress(scale=1 / beta)), REWARD - value, chance)
    torch.testing.assert_close(got, best, atol=1e-4, rtol=0)
    there = arms(START + REWARD / beta, REWARD - REWARD.mean())
    pairs = answers_value(from_reference(regress_pairs(scale=1 / beta)), there)
    torch.testing.assert_close(pairs, torch.zeros(4).double(), atol=1e-12, rtol=0)  # all pairs agree: no sampling changes that
    lost = solved(score_function(), REWARD - (chance * REWARD).sum(), chance)
    assert float((lost - best).abs().max()) > 0.2


def test_tbrm_is_zero_at_the_soft_optimum_of_a_tree():
    """Two tokens of three kinds: soft values backwards, and the loss of every leaf."""
    g = torch.Generator().manual_seed(0)
    ref = [torch.randn(3, generator=g).double(), torch.randn(3, 3, generator=g).double()]
    reward, beta = torch.rand(3, 3, generator=g).double(), 0.3
    second = ref[1] + reward / beta  # soft action values over beta, and the reference's logits
    later = second.logsumexp(1) - ref[1].logsumexp(1)
    first = ref[0] + later
    log_pi = first.log_softmax(0)[:, None].expand(3, 3), second.log_softmax(1)
    log_ref = ref[0].log_softmax(0)[:, None].expand(3, 3), ref[1].log_softmax(1)
    new, start = (torch.stack(pair, -1).view(9, 2) for pair in (log_pi, log_ref))
    value = (first.logsumexp(0) - ref[0].logsumexp(0)).expand(9, 2)
    terms = Terms(new, start, reward.view(9, 1).expand(9, 2), torch.ones(9, 2).double(), start, value=value)
    torch.testing.assert_close(answers_value(regress_value(scale=1 / beta), terms), torch.zeros(9).double(), atol=1e-10, rtol=0)
    logits = torch.randn(5, 7, generator=g).double()  # residuals f(s, a) - V(s') telescope, whatever the logits are
    chosen = torch.randint(7, (5,), generator=g)
    took = logits[torch.arange(5), chosen]
    after = torch.cat([logits[1:].logsumexp(1), torch.zeros(1).double()])
    assert float((took - after).sum()) == pytest.approx(
        float(logits[0].logsumexp(0) + (took - logits.logsumexp(1)).sum()), abs=1e-10
    )


def test_the_optimal_value_lies_between_mean_and_maximum():
    score = torch.tensor([[1.0, 0, 0, 1, 0.5, 0, 0, 0]], dtype=torch.float64)
    assert float(optimal_value(score, 1e4)) == pytest.approx(float(score.mean()), abs=1e-4)
    assert float(optimal_value(score, 1e-3)) == pytest.approx(1.0, abs=1e-2)
    assert float(score.mean()) < float(optimal_value(score, 0.5)) < 1.0
    torch.testing.assert_close(optimal_value(score + 2, 0.5), optimal_value(score, 0.5) + 2)


# ------------------------------------------------------------------------------------------ systems


def test_rebels_first_step_is_that_of_reinforce_with_the_groups_mean():
    a = parameters(rebel(group=3, **SIZES))
    b = parameters(grpo(group=3, kl=0.0, credit=by_score(centred), loss=score_function(), reduce=sequence_sum, **SIZES))
    torch.testing.assert_close(a, b, atol=1e-6, rtol=0)


@pytest.mark.parametrize("make", [rebel, copg, kimi_k15])
def test_the_gradient_does_not_depend_on_the_cut(make):
    given = {**SIZES, "group": 4, "epochs": 3}
    torch.testing.assert_close(parameters(make(**given)), parameters(make(micro=3, **given)), atol=2e-6, rtol=0)


def test_the_reference_can_answer():
    problem, system = SMALL(), copg(**SIZES)
    state = begin(system, problem)
    with torch.no_grad():
        state.policy.model.lm_head.weight.mul_(1.5)
    there, here = (gather(prompts=4, group=2)(state, problem, Stream(3)) for gather in (of_reference(), generate))
    asked = {name: there.obs[name] for name in ("ids", "mask")}
    torch.testing.assert_close(there.logp, state.reference.logp(asked, there.action, there.mask))
    assert here.action.shape != there.action.shape or not torch.equal(here.action, there.action)


def test_every_prompt_has_its_optimal_value_before_training():
    system, problem = a_star_po(draws=8, **SIZES), pool()
    state = begin(system, problem)
    value = state.optimal.value
    assert value.shape == (12,)
    assert bool(((value >= 0) & (value <= 1)).all())
    assert len(value.unique()) > 1
    batch = system.collect(state, problem, Stream(0))
    torch.testing.assert_close(optimal_advantage(state, batch)[:, 0], batch.score - value[batch.key])
    with pytest.raises(TypeError, match=r"needs `size`, which AddCliff.*does not have"):
        begin(system, SMALL())
    with pytest.raises(ValueError, match="must be positive and draws at least 1"):
        a_star_po(beta2=0)


def test_the_logits_are_the_value_and_it_starts_at_zero():
    problem, system = SMALL(), tbrm(**SIZES)
    state = begin(system, problem)
    batch = system.collect(state, problem, Stream(0))
    zero = state.critic.value(batch.obs, batch.action, batch.mask)
    torch.testing.assert_close(zero, torch.zeros_like(batch.mask), atol=1e-6, rtol=0)
    plain = state.policy.logits(batch.obs, batch.action)[:, 0].logsumexp(-1)
    torch.testing.assert_close(state.policy.log_partition(batch.obs), plain, atol=1e-4, rtol=1e-5)
    state.policy.fast = False
    torch.testing.assert_close(state.policy.log_partition(batch.obs), plain)
    *_, last = train(system, problem, steps=3, state=state)
    moved = last.state.critic.value(batch.obs, batch.action, batch.mask)
    assert float(moved.abs().max()) > 1e-3
    assert moved.requires_grad


def test_answers_that_were_cut_off_are_left_out():
    problem, system = SMALL(), tbrm(**SIZES)
    state = begin(system, problem)
    batch = system.collect(state, problem, Stream(0))
    whole = ended(state, batch)
    last = whole.action.gather(1, whole.length.long()[:, None] - 1)
    assert bool((last == 1).all())
    none = batch.having(action=torch.full_like(batch.action, 5))
    with pytest.raises(ValueError, match=r"cut off before their end token: raise max_new"):
        ended(state, none)
    with pytest.raises(ValueError, match="beta must be positive, not 0"):
        tbrm(beta=0)


def test_the_length_reward_waits_and_moments_are_forgotten():
    early = parameters(kimi_k15(group=4, short_after=5, **SIZES), steps=2)
    assert torch.equal(early, parameters(kimi_k15(group=4, short=0.0, **SIZES), steps=2))
    *_, last = train(kimi_k15(group=4, **SIZES), SMALL(), steps=1)
    assert not last.state.optimizers["policy"].state
    assert forget_moments(last.state, None) is None


@pytest.mark.parametrize(
    ("make", "wrong"), [(rebel, {"eta": 0}), (copg, {"beta": 0}), (kimi_k15, {"tau": 0}), (kimi_k15, {"short": -1})]
)
def test_bad_prices_are_refused(make, wrong):
    with pytest.raises(ValueError, match="must be positive"):
        make(**wrong)


SYSTEMS = {
    "rebel": (rebel, SMALL), "copg": (copg, SMALL), "a_star_po": (partial(a_star_po, epochs=2), pool), "tbrm": (tbrm, SMALL),
    "kimi_k15": (partial(kimi_k15, group=4, epochs=2, minibatches=2), SMALL),
}  # fmt: skip


@pytest.mark.parametrize(("make", "problem"), SYSTEMS.values(), ids=SYSTEMS)
def test_it_conforms(make, problem):
    check_system(partial(make, **SIZES), problem, half=1)
