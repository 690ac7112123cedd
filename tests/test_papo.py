"""PAPO: the divergence by enumeration, what is hidden and what is not, nothing hidden is GRPO, and it conforms."""

from dataclasses import dataclass, replace
from functools import partial

import pytest
import torch

from steepest.collectors.generate import generate
from steepest.collectors.hidden import with_hidden
from steepest.core import Stream, begin, train
from steepest.core.check import check_system
from steepest.engines.policy_gradient import PolicyObjective
from steepest.losses import Missing, Terms, clip, double_entropy, perception, token_mean
from steepest.losses.check import check_loss
from steepest.problems.language import AddCliff, BlindSpot
from steepest.systems.reasoning.grpo import grpo
from steepest.systems.reasoning.papo import papo

SMALL = partial(BlindSpot, warm=60, tests=32)
SIZES = {"prompts": 6, "group": 4, "lr": 1e-3}
ONE = {**SIZES, "minibatches": 1, "kl": 0.0}


@dataclass(frozen=True)
class HalfText(BlindSpot):
    """Prompts with an even first digit have no context that could be hidden."""

    def hidden(self, prompts):
        dark = super().hidden(prompts)
        return replace(dark, ids=prompts.ids.where(prompts.key[:, None] % 2 == 0, dark.ids))


@dataclass(frozen=True)
class Text(BlindSpot):
    def hidden(self, prompts):
        return prompts


def parameters(system, steps=3, problem=SMALL):
    *_, last = train(system, problem(), steps=steps)
    return torch.cat([p.detach().flatten() for p in last.state.policy.parameters()])


def collected(share=0.6, problem=SMALL, prompts=6, group=4):
    state = begin(grpo(kl=0.0, **SIZES), problem())
    return state, with_hidden(share)(prompts=prompts, group=group)(state, problem(), Stream(3))


def test_the_laws_that_its_losses_break():
    assert check_loss(perception(), exempt=("on_policy",))[0] == "zero_advantage"
    assert check_loss(double_entropy(seeing=0.03, blind=0.02), exempt=("on_policy", "zero_advantage"))[0] == "order"
    assert "on_policy" in check_loss(clip() - 0.1 * perception())  # where both sides agree it has no slope


def terms(new, blind):
    return Terms(new, new.detach(), torch.zeros_like(new), torch.ones_like(new), blind=blind)


def test_over_a_policys_own_answers_it_is_the_divergence():
    g = torch.Generator().manual_seed(0)
    seeing, blind = torch.randn(2, 7, generator=g, dtype=torch.float64).log_softmax(-1).unbind()
    each = -perception()(terms(seeing[None], blind[None])).loss[0]
    assert bool((each >= 0).all())
    expected = (seeing.exp() * (seeing - blind)).sum()
    torch.testing.assert_close((seeing.exp() * each).sum(), expected)
    assert float((blind.exp() * each).sum()) != pytest.approx(float(expected))  # the blind side's answers would not do


def test_it_pushes_the_two_sides_apart_and_no_further_than_its_cap():
    new, blind = (torch.tensor([[x]], requires_grad=True) for x in (-1.0, -2.0))
    down = torch.autograd.grad(perception()(terms(new, blind)).loss.sum(), (new, blind))
    assert down[0] < 0 < down[1]  # a step up for the seeing side, down for the blind one
    torch.testing.assert_close(down[0], torch.tensor([[-1 + torch.tensor(-1.0).exp()]]))
    far = terms(torch.tensor([[-9.0]], requires_grad=True), torch.tensor([[-1.0]]))
    value = perception()(far).loss
    assert value.item() == -10
    assert torch.autograd.grad(value.sum(), far.new)[0].item() == 0


def test_both_entropies_are_kept_low():
    t = terms(torch.tensor([[-1.0]], requires_grad=True), torch.tensor([[-3.0]], requires_grad=True))
    value = double_entropy(seeing=0.5, blind=0.1)(t).loss
    assert value.item() == pytest.approx(0.5 * 1 + 0.1 * 3)
    assert [g.item() for g in torch.autograd.grad(value.sum(), (t.new, t.blind))] == pytest.approx([-0.5, -0.1])


def test_a_share_of_the_context_is_hidden_and_nothing_else():
    _, batch = collected(0.6, prompts=100, group=2)
    changed = batch.obs["blind"] != batch.obs["ids"]
    assert not changed[:, 6:].any()
    assert float(changed[:, :6].float().mean()) == pytest.approx(0.6, abs=0.05)
    assert batch.info["hidden"] == pytest.approx(float(changed[:, :6].float().mean()))
    assert bool((batch.obs["blind"][changed] == BlindSpot().symbol("#")).all())
    assert not torch.equal(changed[0], changed[1])  # two answers to one prompt
    _, plain = collected(0.0)
    _, whole = collected(1.0)
    assert torch.equal(plain.obs["blind"], plain.obs["ids"])
    assert bool((whole.obs["blind"][:, :6] == BlindSpot().symbol("#")).all())
    assert torch.equal(plain.action, whole.action)  # what is answered does not depend on it


def test_the_blind_side_is_the_same_policy_on_the_hidden_prompt():
    state, batch = collected()
    batch = batch.having(advantage=torch.zeros_like(batch.mask))
    found = PolicyObjective(perception(), token_mean).terms(state, batch)
    expected = state.policy.logp({"ids": batch.obs["blind"], "mask": batch.obs["mask"]}, batch.action, batch.mask)
    assert torch.equal(found.blind, expected)
    assert found.blind.requires_grad
    assert not torch.equal(found.blind, found.new)
    seen = PolicyObjective(clip(), token_mean).terms(state, batch)
    assert seen.blind is None  # no second pass that nobody asked for


def test_prompts_without_a_context_count_for_nothing():
    state, batch = collected(1.0, partial(HalfText, warm=60))
    objective = PolicyObjective(perception(), token_mean)
    value = objective.loss(objective.terms(state, batch.having(advantage=batch.mask))).loss
    text = batch.key % 2 == 0
    assert bool(text.any()) > bool(text.all())
    assert not value[text].any()
    assert bool((value[~text][:, 0] < 0).all())


def test_with_nothing_hidden_or_no_weight_it_is_grpo():
    plain = parameters(grpo(loss=clip(low=0.2, high=0.3, dual=3.0), reduce=token_mean, kl=0.0, **SIZES))
    assert torch.equal(parameters(papo(gamma=0.0, **ONE)), plain)
    torch.testing.assert_close(parameters(papo(gamma=0.5, hide=0.0, **ONE)), plain, atol=1e-6, rtol=0)
    assert not torch.allclose(parameters(papo(gamma=0.5, **ONE)), plain, atol=1e-4)


def test_pieces_of_a_minibatch_have_its_gradient():
    whole, pieces = (parameters(papo(gamma=0.5, blind=0.03, micro=micro, **ONE)) for micro in (None, 5))
    torch.testing.assert_close(pieces, whole, atol=2e-5, rtol=0)


def test_the_sides_part_where_it_has_weight():
    def apart(gamma):
        rows = [r.metrics for r in train(papo(gamma=gamma, **ONE), SMALL(), steps=12)]
        return sum(r["perception"] for r in rows[-4:] if "perception" in r)

    assert apart(3.0) > 2 * apart(1e-9)


def test_it_conforms():
    make = partial(papo, gamma=0.2, seeing=0.03, blind=0.03, minibatches=2, **SIZES)
    check_system(make, SMALL, half=1)


@pytest.mark.parametrize("wrong", [{"gamma": -0.1}, {"seeing": -1.0}, {"blind": -1.0}], ids=str)
def test_negative_weights_are_refused(wrong):
    with pytest.raises(ValueError, match="gamma, seeing and blind must not be negative"):
        papo(**wrong)


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_a_share_is_a_share(share):
    with pytest.raises(ValueError, match=r"lies in \[0, 1\]"):
        papo(hide=share)


def test_a_problem_without_a_context_is_refused():
    with pytest.raises(TypeError, match="it needs `hidden`, which AddCliff"):
        next(train(papo(**ONE), AddCliff(width=1, least=1, warm=5), steps=1))
    with pytest.raises(ValueError, match="none of 24 prompts of Text has a context that can be hidden"):
        next(train(papo(**ONE), Text(warm=60), steps=1))


def test_its_loss_says_what_it_lacks():
    with pytest.raises(Missing, match=r"needs Terms.blind, which is None: collect with a hidden context"):
        next(train(grpo(loss=perception(), collect=generate, kl=0.0, **SIZES), SMALL(), steps=1))
