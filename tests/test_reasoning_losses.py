"""Systems that differ from GRPO in the ratio, the clip or the weight: closed forms, identities, and that they conform."""

import itertools
from functools import partial

import pytest
import torch

from steepest.collectors.generate import generate
from steepest.collectors.refilled import refilled, unequal
from steepest.core import Batch, Stream, begin, train
from steepest.core.check import check_system
from steepest.credit import centred, leave_one_out
from steepest.credit.length import overlong
from steepest.losses import (
    Terms,
    cispo,
    clip,
    constant_norm,
    gspo,
    loss,
    sequence_mean,
    sequence_sum,
    token_mean,
)  # fmt: skip
from steepest.losses.check import check_loss, example
from steepest.problems.language import AddCliff
from steepest.systems.reasoning import cispo as cispo_file
from steepest.systems.reasoning import gspo as gspo_file
from steepest.systems.reasoning.dapo import dapo, soft_end
from steepest.systems.reasoning.dr_grpo import dr_grpo
from steepest.systems.reasoning.grpo import grpo
from steepest.systems.reasoning.reinforce_pp import reinforce_pp

SMALL = partial(AddCliff, width=2, least=1, warm=60, tests=32)
SIZES = {"prompts": 4, "group": 4, "lr": 1e-3}


def slope(loss, terms):
    """d loss / d new at every decision."""
    (g,) = torch.autograd.grad(loss(terms).loss[terms.mask > 0].sum(), terms.new)
    return g


def one(ratio, advantage, **more):
    """One decision of a given ratio."""

    def cell(x):
        return torch.tensor([[float(x)]], dtype=torch.float64)

    return Terms(cell(ratio).log().requires_grad_(), cell(0), cell(advantage), cell(1), **more)


def parameters(system, steps=1, seed=0):
    *_, last = train(system, SMALL(), steps=steps, seed=seed)
    return torch.cat([p.detach().flatten() for p in last.state.policy.parameters()])


# ------------------------------------------------------------------------------------------ losses


@pytest.mark.parametrize("objective", [clip(dual=3.0), gspo(), gspo(low=0.2, high=0.3), cispo(), cispo(low=0.5, high=2.0)], ids=str)
def test_every_loss_obeys_every_law(objective):
    assert check_loss(objective) == ["on_policy", "zero_advantage", "order", "padding", "finite", "pure", "cut"]


def test_a_dual_clip_bounds_what_a_bad_action_costs():
    assert clip(dual=3.0)(one(50.0, -2.0)).loss.item() == pytest.approx(6.0)
    assert clip(dual=3.0)(one(2.0, -2.0)).loss.item() == clip()(one(2.0, -2.0)).loss.item() == pytest.approx(4.0)
    assert not slope(clip(dual=3.0), one(50.0, -2.0)).any()
    assert clip(dual=3.0)(one(50.0, 2.0)).loss.item() == clip()(one(50.0, 2.0)).loss.item()


@pytest.mark.parametrize("width", [0.02, 0.2, 5.0])
def test_gspo_has_the_gradient_of_the_clipped_ratio_of_the_answer(width):
    terms = example()
    advantage = terms.advantage[:, :1].expand_as(terms.mask)
    terms = Terms(terms.new, terms.old, advantage, terms.mask)
    got = torch.autograd.grad((gspo(low=min(width, 0.9), high=width)(terms).loss * sequence_mean(terms.mask)).sum(), terms.new)[0]
    s = (((terms.new - terms.old) * terms.mask).sum(1) / terms.mask.sum(1)).exp()
    a = advantage[:, 0]
    formula = -torch.minimum(s * a, s.clamp(1 - min(width, 0.9), 1 + width) * a).mean()
    torch.testing.assert_close(got, torch.autograd.grad(formula, terms.new)[0])


def test_of_one_decision_gspo_is_ppo():
    for ratio, advantage in itertools.product((0.5, 0.9, 1.0, 1.1, 3.0), (-1.5, 2.0)):
        a, b = gspo(low=0.2, high=0.2), clip()
        assert a(one(ratio, advantage)).loss.item() == pytest.approx(b(one(ratio, advantage)).loss.item())
        torch.testing.assert_close(slope(a, one(ratio, advantage)), slope(b, one(ratio, advantage)))


@pytest.mark.parametrize("ratio", [0.01, 0.7, 1.0, 1.27, 4.0, 1000.0])
@pytest.mark.parametrize("advantage", [-2.0, 0.5])
def test_cispo_bounds_the_weight_of_a_decision_and_never_takes_it_out(ratio, advantage):
    terms = one(ratio, advantage)
    g = slope(cispo(), terms)
    assert g.item() == pytest.approx(-advantage * min(ratio, 1.28))
    assert 0 < abs(g.item()) <= 1.28 * abs(advantage)
    assert bool(cispo()(terms).metrics["clipped"]) == (ratio > 1.28)


def test_where_ppo_has_no_gradient_cispo_has():
    terms = example()
    assert (slope(clip(), terms)[terms.mask > 0] == 0).float().mean() > 0.1
    assert not (slope(cispo(), terms)[terms.mask > 0] == 0).any()


# ------------------------------------------------------------------------------------ dynamic sampling


def scores(*groups):
    """A batch of answers of one token: of each group its prompt and the scores."""
    key = torch.tensor([key for key, values in groups for _ in values])
    reward = torch.tensor([[float(x)] for _, values in groups for x in values])
    n = len(key)
    obs = {"ids": torch.ones(n, 2, dtype=torch.long), "mask": torch.ones(n, 2)}
    return Batch(obs, torch.zeros(n, 1, dtype=torch.long), None, reward, torch.ones(n, 1), key, info={"truncated": 0.0})


def fed(*rounds):
    """A collector that hands out these batches, one a round."""

    def gather(*, prompts, group):
        return lambda state, problem, rng: rounds[rng.path[-1] - 1]

    return gather


FIRST = scores((5, (1, 1)), (6, (0, 1)), (7, (0, 0)))
SECOND = scores((8, (1, 0)), (9, (1, 0)), (4, (0.5, 0.25)))


def test_groups_that_agree_are_asked_again():
    assert unequal(FIRST).tolist() == [False, False, True, True, False, False]
    full = refilled(rounds=5, gather=fed(FIRST, SECOND))(prompts=3, group=2)(None, None, Stream(0))
    assert full.key.tolist() == [6, 6, 8, 8, 9, 9]
    assert full.info == {"truncated": 0.0, "rounds": 2.0, "kept": 0.5}
    assert bool(unequal(full).all())


def test_nothing_is_asked_twice_where_all_say_something():
    full = refilled(rounds=5, gather=fed(SECOND))(prompts=3, group=2)(None, None, Stream(0))
    assert full.key.tolist() == SECOND.key.tolist()
    assert (full.info["rounds"], full.info["kept"]) == (1.0, 1.0)


def test_a_batch_stays_as_large_as_ever_when_nothing_can_be_found():
    full = refilled(rounds=2, gather=fed(FIRST, FIRST))(prompts=3, group=2)(None, None, Stream(0))
    assert full.key.tolist() == [6, 6, 6, 6, 5, 5]
    assert full.info["kept"] == pytest.approx(1 / 3)
    with pytest.raises(ValueError, match="rounds must be at least 1"):
        refilled(rounds=0)


def test_on_a_language_model_every_group_says_something():
    problem = AddCliff(width=3, least=1, warm=200)
    system = grpo(kl=0, prompts=6, group=4, collect=refilled(rounds=30))
    state = begin(system, problem)
    for step in range(3):
        batch = system.collect(state, problem, Stream(step)).check()
        assert len(batch) == 24
        assert bool(unequal(batch).all())
        assert 0 < batch.info["kept"] <= 1


# ------------------------------------------------------------------------------------ length


def test_the_soft_end_by_hand():
    paid = overlong(torch.tensor([0.0, 16.0, 18.0, 20.0, 25.0]), most=20, buffer=4)
    assert paid.tolist() == [0, 0, -0.5, -1, -1]
    with pytest.raises(ValueError, match="0 < buffer <= most"):
        overlong(torch.ones(1), most=20, buffer=21)


def test_it_is_paid_on_the_last_token():
    problem = SMALL()
    state = begin(dapo(**SIZES), problem)
    batch = generate(prompts=4, group=4)(state, problem, Stream(0))
    paid = soft_end(0.5)(state, batch)  # of 4 tokens at most, the last 2
    expected = {2.0: 0.0, 3.0: -0.5, 4.0: -1.0}
    gained = (paid.score - batch.score).tolist()
    assert gained == [expected[x] for x in batch.length.clamp(min=2).tolist()]
    assert torch.equal(paid.reward * (1 - batch.mask), torch.zeros_like(batch.mask))
    assert paid.info["overlong"] == pytest.approx(sum(gained) / 16)


# ------------------------------------------------------------------------------------ identities


def test_with_one_update_a_clip_is_no_clip():
    plain = parameters(grpo(kl=0, **SIZES))
    near = partial(torch.testing.assert_close, atol=1e-7, rtol=0)
    near(parameters(gspo_file.gspo(minibatches=1, **SIZES)), plain)
    near(parameters(cispo_file.cispo(minibatches=1, reduce=sequence_mean, **SIZES)), plain)
    near(parameters(cispo_file.cispo(minibatches=1, **SIZES)), parameters(grpo(kl=0, reduce=token_mean, **SIZES)))
    far = parameters(gspo_file.gspo(minibatches=2, **SIZES))
    assert float((far - plain).abs().max()) > 1e-5


def test_dr_grpo_is_rloo_but_for_two_constants():
    """Per token: (r - mean) / longest against (G / (G - 1)) (r - mean), both summed over the answer."""
    score, key = torch.rand(12), torch.arange(3).repeat_interleave(4)
    mask = (torch.rand(12, 5) > 0.4).float()
    ours = centred(score, key)[:, None] * constant_norm(30.0)(mask)
    torch.testing.assert_close(ours, leave_one_out(score, key)[:, None] * sequence_sum(mask) * 3 / 4 / 30)
    with pytest.raises(ValueError, match="positive number of decisions"):
        dr_grpo(longest=0)


def test_dr_grpo_weighs_a_token_by_nothing_but_its_group():
    """A long wrong answer and a short one: the same pull on every token; GRPO pulls less on the longer one's."""
    system, problem = dr_grpo(**SIZES), SMALL()
    state = begin(system, problem)
    *_, record = train(system, problem, steps=1, state=state)
    assert record.metrics["grad_norm"] > 0
    mask = torch.tensor([[1.0, 1, 1, 1], [1, 0, 0, 0]])
    assert constant_norm(4)(mask)[0, 0] == constant_norm(4)(mask)[1, 0]
    assert sequence_mean(mask)[0, 0] == sequence_mean(mask)[1, 0] / 4


def advantages(make, score, tokens):
    """Of the decisions that a step of `make(loss=...)` learns from: three prompts with two answers of up to `tokens` tokens each,
    which score as told."""
    caught = []

    @loss()
    def spy(t):
        caught.append(t.advantage[t.mask > 0])
        return -t.new * t.advantage

    problem, system = SMALL(), make(loss=spy())
    state = begin(system, problem)
    batch = generate(prompts=3, group=2)(state, problem, Stream(0))
    mask = batch.mask * (torch.arange(batch.mask.shape[1]) < tokens)
    reward = torch.zeros_like(mask).scatter_(1, mask.sum(1, keepdim=True).long() - 1, score[:, None])
    system.learn(state, batch.having(key=torch.arange(3).repeat_interleave(2), mask=mask, reward=reward), Stream(1))
    return caught[0]


def test_reinforce_pp_standardises_over_all_tokens_of_the_batch():
    got = advantages(reinforce_pp, torch.tensor([0.0, 1.0, 5.0, 6.0, -2.0, -1.0]), 4)
    assert len(got) > 6
    assert got.mean().item() == pytest.approx(0, abs=1e-6)
    assert got.std(unbiased=False).item() == pytest.approx(1, abs=1e-5)


def test_with_a_baseline_and_groups_of_equal_spread_it_is_grpo_but_for_one_factor():
    score = torch.tensor([0.0, 1.0, 5.0, 6.0, -2.0, -1.0])
    ours = advantages(partial(reinforce_pp, kl=0.0, relative=centred), score, 1)
    theirs = advantages(partial(grpo, kl=0.0, group=2), score, 1)
    torch.testing.assert_close(ours / ours[0], theirs / theirs[0], atol=1e-4, rtol=0)
    plain = advantages(partial(reinforce_pp, kl=0.0), score, 1)
    assert float((plain / plain[0] - theirs / theirs[0]).abs().max()) > 0.5


SYSTEMS = {
    "gspo": partial(gspo_file.gspo, minibatches=2), "cispo": partial(cispo_file.cispo, minibatches=2),
    "dr_grpo": partial(dr_grpo, longest=4.0), "dapo": partial(dapo, minibatches=2),
    "reinforce_pp": partial(reinforce_pp, kl=0.1, minibatches=2),
    "reinforce_pp, baseline": partial(reinforce_pp, kl=0.0, relative=centred),
}  # fmt: skip


@pytest.mark.parametrize("name", SYSTEMS)
def test_it_conforms(name):
    check_system(partial(SYSTEMS[name], **SIZES), SMALL, half=1, fresh="," not in name)


@pytest.mark.parametrize(
    ("make", "wrong"),
    [
        (gspo_file.gspo, {"low": 0.0}), (cispo_file.cispo, {"high": -0.1}), (dapo, {"dual": 1.0}), (dapo, {"soft": 2.0}),
        (reinforce_pp, {"discount": 0.0}), (reinforce_pp, {"clip_range": 0.0}), (reinforce_pp, {"kl": -1.0}),
    ],
)  # fmt: skip
def test_bad_input_is_refused_before_any_work(make, wrong):
    with pytest.raises(ValueError, match=r"must|needs"):
        make(**wrong)
