"""Group credits and the systems that are GRPO with another one: closed forms, sets by enumeration, the identities of the papers."""

import itertools
import math
from functools import partial

import pytest
import torch
from scipy.stats import beta as beta_distribution

from steepest.collectors.generate import asked_of, recognised
from steepest.core import Stream, begin, train
from steepest.core.batch import Batch
from steepest.core.check import check_system
from steepest.core.state import State
from steepest.credit import (
    across_prompts,
    answer_entropy,
    best_relative,
    beta_normalized,
    centred,
    group_relative,
    leave_one_out,
    mixed_certainty,
    set_relative,
)  # fmt: skip
from steepest.engines import by_score
from steepest.losses import token_mean
from steepest.losses.check import check_loss
from steepest.memory.quantiles import Quantiles
from steepest.problems.fixed import Fixed
from steepest.problems.language import AddCliff, ChainSum, ModeLottery
from steepest.systems.reasoning import copo as copo_file
from steepest.systems.reasoning.aapo import aapo, beyond_reference
from steepest.systems.reasoning.bnpo import bnpo
from steepest.systems.reasoning.copo import blended, copo
from steepest.systems.reasoning.gfpo import brevity, efficiency, gfpo
from steepest.systems.reasoning.grape import by_rubric, grape
from steepest.systems.reasoning.grpo import grpo
from steepest.systems.reasoning.mapo import mapo
from steepest.systems.reasoning.polychromic_ppo import polychromic_ppo
from steepest.systems.reasoning.riskpo import mixed_value_at_risk, papers, riskpo

SMALL = partial(AddCliff, width=2, least=1, warm=60, tests=32)
SIZES = {"prompts": 4, "group": 4, "lr": 1e-3}


def groups(*rows):
    """score [N] and key [N] of groups given as lists."""
    score = torch.tensor([x for row in rows for x in row], dtype=torch.float64)
    return score, torch.tensor([k for k, row in enumerate(rows) for _ in row])


def outcome(*right, of=8):
    """Groups of `of` answers, the given numbers of which are right."""
    return groups(*([1.0] * k + [0.0] * (of - k) for k in right))


def parameters(system, steps=1, seed=0, problem=SMALL):
    *_, last = train(system, problem(), steps=steps, seed=seed)
    return torch.cat([p.detach().flatten() for p in last.state.policy.parameters()])


def batch_of(score, key, **info):
    reward = torch.stack([torch.zeros_like(score), score], 1)
    return Batch({}, torch.zeros(len(score), 2, dtype=torch.long), None, reward, torch.ones_like(reward), key, info=info)


# --------------------------------------------------------------------------------------------- mapo


def test_a_certain_group_counts_by_its_mean_and_an_even_one_as_in_grpo():
    score, key = outcome(4, 7, 1)
    got, plain = mixed_certainty(score, key), group_relative(score, key)
    torch.testing.assert_close(got[:8], plain[:8])  # p = 1/2
    assert got[15].item() == pytest.approx(-1.65, abs=0.01)  # the one failure of eight; in GRPO -2.47
    assert plain[15].item() == pytest.approx(-2.47, abs=0.01)
    assert got[16].item() == pytest.approx(5.02, abs=0.01)  # the one success; in GRPO 2.47
    torch.testing.assert_close(got.view(3, 8).sum(1), torch.zeros(3, dtype=torch.float64), atol=1e-5, rtol=0)


def test_mixed_certainty_sees_the_zero_of_rewards_but_not_their_scale():
    score, key = outcome(2, 5)
    base = mixed_certainty(score, key, eps=0)
    torch.testing.assert_close(mixed_certainty(7 * score, key, eps=0), base)
    shifted = mixed_certainty(score + 1, key, success=1.5, eps=0)
    assert float((shifted - base).abs().max()) > 0.1
    near = groups([1.0] * 999 + [0.0])
    torch.testing.assert_close(mixed_certainty(*near), centred(*near) / 0.999, atol=0.13, rtol=0)
    agree = outcome(0, 8)
    assert not mixed_certainty(*agree).any()
    with pytest.raises(ValueError, match=r"score\[1\] is -1.*shift the rewards"):
        mixed_certainty(*groups([0.0, -1.0]))
    with pytest.raises(ValueError, match="success must not be negative"):
        mapo(success=-1)


# --------------------------------------------------------------------------------------------- bnpo


def test_beta_normalization_is_reinforce_and_grpo_in_its_two_fixed_cases(monkeypatch):
    score, key = outcome(1, 3, 6)
    rate = torch.tensor([1, 3, 6]).repeat_interleave(8) / 8
    monkeypatch.setattr("steepest.credit.success.beta_shape", lambda rates: (1.0, 1.0))
    torch.testing.assert_close(beta_normalized(score, key), centred(score, key))
    monkeypatch.setattr("steepest.credit.success.beta_shape", lambda rates: (1.5, 1.5))
    torch.testing.assert_close(beta_normalized(score, key), centred(score, key) / (rate * (1 - rate)).sqrt() * math.pi / 8)


def test_the_density_follows_the_spread_of_success_rates():
    score, key = outcome(3, 4, 5, 4)
    rates = torch.tensor([3, 4, 5, 4], dtype=torch.float64) / 8
    size = 0.25 / float(rates.var()) - 1
    density = beta_distribution.pdf(rates.numpy(), 1 + size / 6, 1 + size / 6)
    expected = centred(score, key) / torch.tensor(density).repeat_interleave(8)
    torch.testing.assert_close(beta_normalized(score, key), expected)
    torch.testing.assert_close(beta_normalized(score, key).view(4, 8).sum(1), torch.zeros(4, dtype=torch.float64))


@pytest.mark.parametrize("right", [(3,), (4, 4), (0, 8)])
def test_one_prompt_or_equal_rates_or_certain_ones_leave_the_plain_difference(right):
    score, key = outcome(*right)
    torch.testing.assert_close(beta_normalized(score, key), centred(score, key))


def test_bnpo_refuses_scores_that_are_no_rates():
    with pytest.raises(ValueError, match=r"score\[0\] is 2.0, outside \[0, 1\].*scale the rewards"):
        beta_normalized(*groups([2.0, 0.0], [0.0, 1.0]))


# --------------------------------------------------------------------------------------------- copo


def test_entropy_of_answers_in_bits():
    kind, key = torch.tensor([5, 5, 7, 7, 1, 1, 1, 1, 0, 1, 2, 3]), torch.arange(3).repeat_interleave(4)
    assert answer_entropy(kind, key).tolist() == [1.0] * 4 + [0.0] * 4 + [2.0] * 4


def test_prompts_are_compared_by_what_they_earn_and_how_their_answers_agree():
    score, key = groups([1, 1, 1, 1], [0, 0, 0, 0], [1, 1, 0, 0])
    kind = torch.tensor([3, 3, 3, 3, 0, 1, 2, 3, 4, 4, 5, 6])
    got = across_prompts(score, kind, key)
    worth = torch.tensor([1, 0, 0.5 * (1 - 0.75 / 2 * 1.5)], dtype=torch.float64)  # H = 1.5 bits, l = (1 - 1/4) / 2
    torch.testing.assert_close(got.view(3, 4)[:, 0], (worth - worth.mean()) / (worth.std() + 1e-6))
    assert not across_prompts(*(x[:8] for x in (torch.ones(12), kind * 0, key))).any()  # all equal: nothing to say
    with pytest.raises(ValueError, match=r"one prompt.*raise `prompts`"):
        across_prompts(score[:4], kind[:4], key[:4])


def blend(score, key, kind, **options):
    given = {"sharpness": 1.0, "turn": 0.5, **options}
    return {name: x[:, 0] for name, x in blended(State(), batch_of(score, key, kind=kind), **given).items()}


def test_where_answers_agree_the_prompt_is_what_teaches():
    score, key = groups([1, 1, 1, 1], [1, 0, 0, 1])
    kind = torch.tensor([2, 2, 2, 2, 2, 3, 4, 2])
    got = blend(score, key, kind)
    assert not got["local"][:4].any()
    torch.testing.assert_close(got["advantage"][:4], across_prompts(score, kind, key)[:4])  # forced: w = 0
    weight = 1 / (1 + math.exp(-(1.5 - 0.5)))
    torch.testing.assert_close(got["local"][4:], weight * group_relative(score, key)[4:])
    torch.testing.assert_close(got["advantage"] - got["local"], (1 - weight * (key == 1)) * across_prompts(score, kind, key))


def test_where_answers_differ_a_sharp_copo_is_grpo():
    score, key = groups([1, 0, 0, 0], [1, 1, 0, 0])
    kind = torch.tensor([0, 1, 2, 3, 0, 0, 1, 2])
    got = blend(score, key, kind, sharpness=1e4)
    torch.testing.assert_close(got["advantage"], group_relative(score, key))
    torch.testing.assert_close(got["local"], got["advantage"])


def test_the_loss_of_copo_obeys_every_law_and_is_two_clips():
    columns = {"local": lambda t: 0.3 * t.advantage.roll(1, 0) * t.mask}
    check_loss(copo_file.clip_twice(), columns=columns)


def test_groups_that_agree_teach_copo():
    class Parity(AddCliff):
        """All answers to a prompt earn the same."""

        def score(self, prompts, tokens, mask):
            return (prompts.key % 2).float()

    problem = Parity(width=2, least=1, warm=60)
    for make, skipped in ((grpo, True), (copo, False)):
        (record,) = train(make(kl=0.0, prompts=8, group=4), problem, steps=1)
        assert ("skipped" in record.metrics) == skipped
    with pytest.raises(ValueError, match="prompts must be at least 2"):
        copo(prompts=1)


# ---------------------------------------------------------------------- which answers are the same


def test_problems_say_which_answers_are_the_same():
    tokens = torch.tensor([[3, 4, 1], [3, 4, 1], [3, 1, 0], [3, 1, 9]])
    mask = torch.tensor([[1.0, 1, 1], [1, 1, 1], [1, 1, 0], [1, 1, 0]])
    add = AddCliff().kinds(None, tokens, mask)  # every token counts, what lies behind the end does not
    assert (add[:, None] == add).int().tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]]
    assert ChainSum().kinds(None, tokens, mask).tolist() == [4, 4, 3, 3]  # the digit said
    assert ModeLottery().kinds(None, tokens, mask).tolist() == [3] * 4  # the strategy named
    pool = Fixed(ModeLottery(), count=4)
    assert pool.kinds(pool.pick(torch.arange(4)), tokens, mask).tolist() == [3] * 4


def test_a_collector_brings_what_the_problem_recognises():
    problem, system = SMALL(), grpo(kl=0.0, **SIZES)
    state = begin(system, problem)
    batch = recognised()(prompts=3, group=4)(state, problem, Stream(1))
    expected = problem.kinds(asked_of(batch), batch.action, batch.mask)
    assert torch.equal(batch.info["kind"], expected)
    assert torch.equal(batch.rows(torch.tensor([5, 2])).info["kind"], expected[[5, 2]])


# --------------------------------------------------------------------------------------------- gfpo


def test_only_the_best_of_a_group_count():
    score, key = groups([1, 0, 1, 0], [0, 1, 1, 1])
    merit = torch.tensor([-5.0, -3, -2, -9, -4, -4, -4, -1])
    got = best_relative(score, key, merit, keep=2)
    assert got.round(decimals=3).tolist() == [0, -1, 1, 0, -1, 0, 0, 1]  # of equal merit the earlier; std with n
    order = torch.tensor([4, 0, 5, 1, 6, 2, 7, 3])  # groups that do not stand together
    assert torch.equal(best_relative(score[order], key[order], merit[order], keep=2), got[order])
    whole = best_relative(score, key, merit, keep=4)
    torch.testing.assert_close(whole, group_relative(score, key) * math.sqrt(4 / 3), atol=1e-4, rtol=1e-4)
    assert not best_relative(torch.ones(8), key, merit, keep=3).any()
    with pytest.raises(ValueError, match="4 answers cannot keep 5"):
        best_relative(score, key, merit, keep=5)


def test_gfpo_that_keeps_all_is_grpo_but_for_the_divisor_of_the_spread():
    same = {**SIZES, "kl": 0.1, "reduce": token_mean}
    both = parameters(gfpo(keep=4, entropy=0.0, **same)), parameters(grpo(**same))
    torch.testing.assert_close(*both, atol=2e-5, rtol=0)  # Adam hardly sees the factor sqrt(4/3)
    batch = batch_of(torch.tensor([1.0, 0.0]), torch.zeros(2, dtype=torch.long))
    assert brevity(batch).tolist() == [-2, -2]
    assert efficiency(batch).tolist() == [0.5, 0]
    for wrong in ({"keep": 1}, {"keep": 17}):
        with pytest.raises(ValueError, match="keep must lie between 2 and group = 16"):
            gfpo(**wrong)
    with pytest.raises(ValueError, match="entropy must not be negative"):
        gfpo(entropy=-1)


# --------------------------------------------------------------------------------------------- aapo


def gained(score, key, reference):
    return beyond_reference(State(), batch_of(score, key, reference_score=reference), low=0.2, high=0.28)[:, 0]


def test_a_gain_over_the_reference_is_added_within_bounds():
    score, key = groups([1, 1], [1, 0])
    plain = group_relative(score, key, eps=1e-4)
    torch.testing.assert_close(gained(score, key, score), plain)
    extra = gained(score, key, torch.tensor([0.0, 1, 0.9, 1])) - plain
    torch.testing.assert_close(extra, torch.tensor([0.28, 0, 0.1, -0.2], dtype=torch.float64), atol=1e-7, rtol=0)
    with pytest.warns(UserWarning, match="scores reach 9"):
        gained(9 * score, key, score)


def test_the_reference_answers_too_and_stays_what_it_was():
    problem, system = SMALL(), aapo(**SIZES)
    state = begin(system, problem)
    first = [p.clone() for p in state.reference.parameters()]
    batch = system.collect(state, problem, Stream(0))
    assert batch.info["reference_score"].shape == (16,)
    assert not torch.equal(batch.info["reference_score"], batch.score)
    *_, last = train(system, problem, steps=2, state=state)
    assert all(torch.equal(a, b) for a, b in zip(first, last.state.reference.parameters(), strict=True))
    assert not torch.equal(first[0], next(last.state.policy.parameters()))
    with pytest.raises(ValueError, match="must not be negative, not -1 and"):
        aapo(low=-1)


# ------------------------------------------------------------------------------------------- riskpo


LOW, HIGH = torch.tensor(1.0), torch.tensor(4.0)


def risk(paper, tail=1.5):
    return mixed_value_at_risk(torch.tensor(paper), LOW, HIGH, levels=(0.2, 0.9), tail=tail)


def test_the_mixture_of_values_at_risk():
    torch.testing.assert_close(risk([4.0, 5.0]), torch.zeros(2))  # nothing is short
    torch.testing.assert_close(risk([0.0], tail=0.0), torch.tensor([-3 / 0.7]))  # flat below the low quantile
    torch.testing.assert_close(risk([1.0, 2.0, 3.0], tail=0.0), torch.tensor([-3.0, -2, -1]) / 0.7)  # affine between
    torch.testing.assert_close(risk([0.0]), torch.tensor([(-3 / 0.7 - 1.5 * 1 / 0.2) / 2.5]))
    assert bool((risk([0.0, 0.5, 1.0, 2.0, 4.0, 5.0]).diff() >= 0).all())


def test_papers_hold_one_answer_to_each_prompt_of_a_bundle():
    score = torch.arange(12.0)  # prompts of three answers: 0 1 2, 3 4 5, 6 7 8, 9 10 11
    assert papers(score, torch.arange(4).repeat_interleave(3), bundle=2, group=3).tolist() == [[3, 5, 7], [15, 17, 19]]
    with pytest.raises(ValueError, match="12 answers do not fill bundles of 4 prompts with 2 answers"):
        papers(score, torch.arange(6).repeat_interleave(2), bundle=4, group=2)
    with pytest.raises(ValueError, match="prompts must be a multiple of bundle, not 16 and 5"):
        riskpo(prompts=16)
    with pytest.raises(ValueError, match="0 < low < high < 1"):
        riskpo(low=0.9, high=0.2)


def test_quantiles_are_tracked():
    tracked = Quantiles((0.2, 0.9), rate=0.05)
    numbers = torch.rand(4000, generator=torch.Generator().manual_seed(0)) * 2
    assert tracked.read(numbers[:50]).tolist() == pytest.approx(numbers[:50].quantile(torch.tensor([0.2, 0.9])).tolist())
    tracked.write(torch.zeros(5))  # far off
    for chunk in numbers.split(20):
        tracked.write(chunk)
    assert tracked.read(numbers).tolist() == pytest.approx([0.4, 1.8], abs=0.1)
    with pytest.raises(ValueError, match="must ascend"):
        Quantiles((0.9, 0.2))


def test_riskpo_learns_from_the_papers_scores():
    problem, system = SMALL(), riskpo(bundle=2, group=4, prompts=4, lr=1e-3)
    state = begin(system, problem)
    (record,) = train(system, problem, steps=1, state=state)
    assert bool(torch.isfinite(state.quantiles.value).all())
    assert "skipped" not in record.metrics


# ------------------------------------------------------------------------------------------ polychromic


def listed(score, kind, size):
    """The same by listing all sets."""
    sets = list(itertools.combinations(range(len(score)), size))
    worth = [float(score[list(s)].mean()) * len({int(kind[i]) for i in s}) / size for s in sets]
    with_each = [sum(w for s, w in zip(sets, worth, strict=True) if i in s) / sum(i in s for s in sets) for i in range(len(score))]
    return torch.tensor(with_each, dtype=torch.float64) - sum(worth) / len(worth)


@pytest.mark.parametrize("size", [2, 3, 4, 5])
@pytest.mark.parametrize("kind", [[0, 1, 2, 3, 4, 5], [0, 0, 0, 0, 0, 0], [0, 0, 0, 1, 1, 2], [3, 3, 3, 3, 3, 7]])
def test_sets_are_counted_as_if_they_were_listed(size, kind):
    score, kind = torch.tensor([1.0, 0, 0.5, 1, 0, 0], dtype=torch.float64), torch.tensor(kind)
    got = set_relative(score, torch.zeros(6, dtype=torch.long), kind, size=size)
    torch.testing.assert_close(got, listed(score, kind, size), atol=1e-12, rtol=0)
    assert float(got.sum()) == pytest.approx(0, abs=1e-12)


def test_where_all_answers_differ_a_set_is_its_mean():
    """The other members cancel in expectation: what is left of each answer is its own reward, as in REINFORCE."""
    score, key = groups([1, 0, 0.5, 1, 0, 0], [0, 1, 0, 0, 0, 0])
    got = set_relative(score, key, torch.arange(12), size=4)
    torch.testing.assert_close(got, centred(score, key) * (6 - 4) / (4 * 5))


def test_a_failure_of_another_kind_is_better_than_one_of_the_same():
    score, kind = torch.tensor([1.0, 1, 1, 0, 0]), torch.tensor([0, 0, 0, 0, 1])
    got = set_relative(score, torch.zeros(5, dtype=torch.long), kind, size=3)
    assert got[4] > got[3]
    assert not set_relative(0 * score, torch.zeros(5, dtype=torch.long), kind, size=3).any()  # all fail: nothing to share
    with pytest.raises(ValueError, match=r"5 answers: sets of 5 need more"):
        set_relative(score, torch.zeros(5, dtype=torch.long), kind, size=5)
    with pytest.raises(ValueError, match="size must be at least 2 and less than group, not 8 and 8"):
        polychromic_ppo(size=8)


def test_polychromic_refuses_rewards_that_no_share_can_scale():
    class Negative(AddCliff):
        def score(self, prompts, tokens, mask):
            return -torch.ones(len(mask))

    with pytest.raises(ValueError, match=r"score\[0\] is -1.*must lie in \[0, 1\]"):
        list(train(polychromic_ppo(prompts=2), Negative(width=2, least=1, warm=60), steps=1))


# -------------------------------------------------------------------------------------------- grape


def test_weights_of_a_rubric_are_refused_where_none_counts():
    with pytest.raises(ValueError, match="nor all 0"):
        grape(weights=(0.0,))


def test_a_rubric_is_weighed_by_confidence_and_weights():
    item, sure = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.5], [1.0, 0.0]])  # mean confidence 1 and 1/4
    batch = Batch(None, None, None, torch.zeros(2, 1), torch.ones(2, 1), torch.zeros(2, dtype=torch.long))
    told = by_rubric(None, batch, rubric=lambda state, batch: (item, sure), weights=None)
    torch.testing.assert_close(told, torch.tensor([[0.6], [-0.6]]))
    told = by_rubric(None, batch, rubric=lambda state, batch: (item, sure), weights=(1.0, 4.0))
    torch.testing.assert_close(told, torch.zeros(2, 1))


def test_with_the_verdict_alone_grape_is_grpo_without_the_spread():
    assert torch.equal(parameters(grape(**SIZES)), parameters(grpo(credit=by_score(leave_one_out), **SIZES)))


# ------------------------------------------------------------------------------------------- all


SYSTEMS = {
    "mapo": mapo, "bnpo": bnpo, "copo": copo, "gfpo": partial(gfpo, keep=2), "aapo": aapo, "riskpo": partial(riskpo, bundle=2),
    "polychromic_ppo": partial(polychromic_ppo, size=2), "grape": grape,
}  # fmt: skip


@pytest.mark.parametrize("make", SYSTEMS.values(), ids=SYSTEMS)
def test_it_conforms(make):
    check_system(partial(make, **SIZES), SMALL, half=1)


def test_the_cut_changes_nothing_for_a_loss_with_a_column_of_its_own():
    torch.testing.assert_close(parameters(copo(**SIZES)), parameters(copo(micro=3, **SIZES)), atol=1e-6, rtol=0)
