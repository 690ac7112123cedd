"""HAPO: every one of its four parts by hand, all of them off is DAPO's clip, and it conforms."""

from functools import partial

import pytest
import torch

from steepest.core import Stream, begin
from steepest.core.check import check_system
from steepest.credit import group_relative, token_relative
from steepest.credit.nature import Scale, nature, scale_of
from steepest.losses import Terms, clip, hapo
from steepest.losses.check import check_loss
from steepest.problems.language import AddCliff
from steepest.systems.reasoning.grpo import grpo
from steepest.systems.reasoning.hapo_token import hapo_token, judged, warmer

SMALL = partial(AddCliff, width=2, least=1, warm=60, tests=32)
SIZES = {"prompts": 4, "group": 4, "lr": 1e-3}
COLUMN = {"nature": lambda t: (t.old + 2).tanh()}


def test_the_law_that_it_breaks_is_the_one_on_policy():
    laws = check_loss(hapo(), columns=COLUMN, exempt=("on_policy",))
    assert laws == ["zero_advantage", "order", "padding", "finite", "pure", "cut"]
    assert "on_policy" in check_loss(hapo(boost=0.0), columns=COLUMN)


def test_nature_runs_from_sure_to_hesitant():
    entropy = torch.tensor([[0.0, 0.01, 0.1], [0.5, 0.7, 9.0]])
    mask = torch.tensor([[0.0, 1, 1], [1, 1, 1]])
    scale = scale_of(entropy, mask, share=0.5)
    h = nature(entropy, scale)
    assert h[0, 1].item() == -1
    assert h[1, 0].item() == pytest.approx(0, abs=1e-6)
    assert h[1, 2].item() == pytest.approx(1)
    assert bool((h[mask > 0].diff() > 0).all())
    assert bool((h.abs() <= 1).all())
    assert not nature(torch.full((2, 3), 0.4), scale_of(torch.full((2, 3), 0.4), torch.ones(2, 3))).any()
    assert not nature(torch.zeros(2, 3), scale_of(torch.zeros(2, 3), torch.ones(2, 3))).any()


def one(ratio, advantage, h):
    def cell(x):
        return torch.tensor([[float(x)]], dtype=torch.float64)

    return Terms(cell(ratio).log().requires_grad_(), cell(0), cell(advantage), cell(1), extra={"nature": cell(h)})


@pytest.mark.parametrize(
    ("h", "ratio", "advantage", "moves"),
    [
        (1.0, 1.39, 1, True), (1.0, 1.41, 1, False), (1.0, 0.79, -1, False), (0.0, 1.21, 1, False), (0.0, 1.19, 1, True),
        (-1.0, 0.61, -1, True), (-1.0, 0.59, -1, False), (-1.0, 1.21, 1, False),
    ],
)  # fmt: skip
def test_the_band_of_a_decision_is_its_own(h, ratio, advantage, moves):
    terms = one(ratio, advantage, h)
    (g,) = torch.autograd.grad(hapo()(terms).loss.sum(), terms.new)
    assert bool(g.any()) == moves


@pytest.mark.parametrize(
    ("h", "ratio", "strength"),
    [(0.5, 1.0, 1.0), (0.5, 1.15, 1.5), (0.5, 0.85, 1.5), (-0.5, 1.0, 0.5), (-0.5, 1.15, 1.0), (0.0, 1.0, 1.0)],
)
def test_the_advantage_of_a_decision_is_its_own(h, ratio, strength):
    assert hapo()(one(ratio, 2.0, h)).metrics["strength"].item() == strength
    assert hapo()(one(ratio, -2.0, h)).loss.item() == pytest.approx(2 * strength * ratio)


def test_with_all_of_it_off_it_is_the_clip():
    g = torch.Generator().manual_seed(0)
    old = torch.randn(6, 5, generator=g, dtype=torch.float64)
    new = (old + 0.4 * torch.randn(6, 5, generator=g, dtype=torch.float64)).requires_grad_()
    terms = Terms(new, old, torch.randn(6, 1, generator=g).double().expand(6, 5), torch.ones(6, 5), extra={"nature": old.tanh()})
    assert torch.equal(hapo(widen=0.0, boost=0.0)(terms).loss, clip(dual=10.0)(terms).loss)
    assert not torch.equal(hapo()(terms).loss, clip(dual=10.0)(terms).loss)


def test_every_token_is_a_sample_of_its_group():
    score, key = torch.tensor([1.0, 0.0, 0.0, 1.0, 1.0, 0.0]), torch.tensor([0, 0, 0, 1, 1, 1])
    length = torch.tensor([6.0, 1, 1, 2, 2, 2])
    got = token_relative(score, key, length)
    tokens = torch.cat([torch.full((int(n),), x) for x, n in zip(score[:3].tolist(), length[:3].tolist(), strict=True)])
    expected = (score[:3] - tokens.mean()) / tokens.std(unbiased=False)
    torch.testing.assert_close(got[:3], expected, atol=1e-4, rtol=0)
    equal = group_relative(score, key)[3:]  # of equal length: GRPO's, over the population's standard deviation
    torch.testing.assert_close(got[3:], equal * (3 / 2) ** 0.5, atol=1e-4, rtol=0)
    length[0] = 60.0  # the two short ones would now count for more than 5
    torch.testing.assert_close(token_relative(score, key, length)[:3], group_relative(score, key)[:3])
    torch.testing.assert_close(token_relative(score, key, length)[3:], got[3:])


def test_hesitant_decisions_are_sampled_warmer():
    state = begin(hapo_token(minibatches=1, **SIZES), SMALL())
    log_probs = torch.tensor([[0.97, 0.01, 0.02], [0.3, 0.3, 0.4]]).log()
    assert warmer(0.05, state)(log_probs).tolist() == [1, 1]  # nothing is known before the first batch
    for name, x in Scale(middle=-1.0, top=1.0, bottom=1.0)._asdict().items():
        state.scale.write(torch.zeros(1, dtype=torch.long), name, torch.tensor([x]))
    sure, hesitant = warmer(0.05, state)(log_probs).tolist()
    log = torch.special.entr(log_probs.exp()).sum(1).log()
    assert sure == pytest.approx(1 + 0.05 * max(-1.0, float(log[0]) + 1))
    assert sure < 1
    assert hesitant == pytest.approx(1.05)


def test_the_scale_of_a_batch_serves_the_next():
    problem, system = SMALL(), hapo_token(minibatches=1, **SIZES)
    state = begin(system, problem)
    batch = system.collect(state, problem, Stream(0))
    known = judged(state, batch)
    system.learn(state, batch, Stream(1))
    assert state.scale.middle.item() == pytest.approx(known.info["nature_middle"])
    assert state.scale.top.item() > 0
    assert float(known.extra["nature"].min()) == -1
    assert float(known.extra["nature"].max()) == 1


def test_a_first_batch_is_sampled_as_ever():
    problem = SMALL()
    ours, plain = hapo_token(**SIZES), grpo(kl=0, **SIZES)
    a, b = (system.collect(begin(system, problem), problem, Stream(0)) for system in (ours, plain))
    assert torch.equal(a.action, b.action)


def test_it_conforms():
    check_system(partial(hapo_token, minibatches=2, **SIZES), SMALL, half=1)


@pytest.mark.parametrize("wrong", [{"swing": 1.0}, {"widen": 9.0}, {"boost": 2.0}, {"dual": 1.0}, {"width": 0.0}], ids=str)
def test_bad_input_is_refused_before_any_work(wrong):
    with pytest.raises(ValueError, match="needs swing"):
        hapo_token(**wrong)
