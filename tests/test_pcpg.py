"""PCPG: windows by their definition, what it equals at the ends of its options, the noisy strings, and it conforms."""

from functools import partial

import pytest
import torch

from steepest.collectors.demonstrations import demonstrations
from steepest.core import Stream, begin, train
from steepest.core.check import check_system
from steepest.credit import cer, sliding
from steepest.problems.noisy import NoisyCopy
from steepest.problems.symbolic import ZERO, places
from steepest.systems.reasoning.pcpg import beside_own, pcpg, weighed
from steepest.systems.reasoning.sft import sft

SMALL = partial(NoisyCopy, width=4, least=2, warm=40, tests=16)
SIZES = {"prompts": 8, "lr": 1e-3}


def parameters(system, steps=3):
    *_, last = train(system, SMALL(), steps=steps)
    return torch.cat([p.detach().flatten() for p in last.state.policy.parameters()])


def example(dtype=torch.float64):
    g = torch.Generator().manual_seed(0)
    reward, logp = torch.randn(2, 5, 9, generator=g, dtype=dtype)
    mask = (torch.arange(9) < torch.tensor([9, 6, 0, 1, 5])[:, None]).to(dtype)
    return reward, logp, mask


@pytest.mark.parametrize("width", [1, 2, 5, 9])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_it_is_the_mean_over_windows_of_excess_reward_times_mean_log_probability(width, stride):
    reward, logp, mask = example()
    means, likelihoods = [], []
    for r, p, length in zip(reward, logp, mask.sum(1).long().tolist(), strict=True):
        if not length:
            continue
        size = min(width, length)
        for start in range(0, length - size + 1, stride):
            means.append(r[start : start + size].mean())
            likelihoods.append(p[start : start + size].mean())
    means, likelihoods = torch.stack(means), torch.stack(likelihoods)
    expected = ((means - means.mean()) * likelihoods).mean()
    advantage = sliding(reward, mask, width=width, stride=stride)
    torch.testing.assert_close((advantage * logp).sum(), expected)
    assert not advantage[mask == 0].any()


def test_single_decisions_are_judged_by_themselves():
    reward, _, mask = example()
    mean = (reward * mask).sum() / mask.sum()
    torch.testing.assert_close(sliding(reward, mask, width=1), (reward - mean) * mask / mask.sum())


def test_what_lies_under_the_mask_and_a_common_reward_change_nothing():
    reward, _, mask = example()
    advantage = sliding(reward, mask, width=3)
    torch.testing.assert_close(sliding(reward.where(mask > 0, 700.0), mask, width=3), advantage)
    torch.testing.assert_close(sliding(reward + 2.0, mask, width=3), advantage)
    assert not sliding(torch.ones_like(mask), mask, width=3).abs().gt(1e-12).any()


def test_windows_steady_the_gradient():
    """Independent rewards of steps: the variance of a window's mean, and that of the direction it gives, fall with its width."""
    g = torch.Generator().manual_seed(1)
    reward = torch.randn(4000, 8, generator=g, dtype=torch.float64)
    score = torch.randn(4000, 8, generator=g, dtype=torch.float64)  # d log pi of each token
    mask = torch.ones_like(reward)

    def spread(width):
        return float((len(mask) * (sliding(reward, mask, width=width) * score).sum(1)).var())

    assert spread(1) == pytest.approx(1 / 8, rel=0.1)
    assert spread(5) < spread(1) / 2
    assert spread(8) == pytest.approx(1 / 64, rel=0.1)  # one window: one mean of 8 times another


def batch_of(width=2, problem=SMALL):
    state = begin(pcpg(width=width, **SIZES), problem())
    return state, beside_own(demonstrations, width)(prompts=6)(state, problem(), Stream(3))


def test_rewards_of_own_answers_sum_to_what_they_take_off_the_error_rate():
    _, batch = batch_of()
    shown = batch.extra["shown"][:, 0] > 0
    assert shown.tolist() == [True] * 6 + [False] * 6
    assert torch.equal(batch.key[:6], batch.key[6:])
    demo, own = batch.rows(slice(0, 6)), batch.rows(slice(6, 12))
    rate = cer(own.action, own.mask, demo.action, demo.mask)
    torch.testing.assert_close(own.score, 1 - rate)
    assert batch.info["cer"] == pytest.approx(float(rate.mean()))
    assert float(rate.max()) > 0


def test_at_width_one_it_is_cross_entropy_and_a_plain_policy_gradient():
    state, batch = batch_of()
    shown = batch.extra["shown"]
    logp = state.policy.logp(batch.obs, batch.action, batch.mask).detach()
    told, own = batch.mask * shown, batch.mask * (1 - shown)
    mean = (own * batch.reward).sum() / own.sum()
    plain = -0.3 * (own * (batch.reward - mean) * logp).sum() / own.sum() - 0.7 * (told * logp).sum() / told.sum()
    advantage = weighed(state, batch, share=0.3, ramp=0, width=1, stride=1)
    torch.testing.assert_close(-(advantage * logp).sum() / batch.mask.sum(), plain)


def test_the_share_grows_to_its_end():
    state, batch = batch_of()

    def at(step, share=0.5, ramp=10):
        state.step = step
        return weighed(state, batch, share=share, ramp=ramp, width=2, stride=1)

    assert torch.equal(at(0), at(7, share=0.0))
    torch.testing.assert_close(at(5), at(0, share=0.25, ramp=0))
    assert torch.equal(at(10), at(30))


def test_without_a_share_it_is_sft():
    plain = parameters(sft(**SIZES))
    torch.testing.assert_close(parameters(pcpg(share=0.0, width=2, **SIZES)), plain, atol=1e-5, rtol=0)
    assert not torch.allclose(parameters(pcpg(share=0.5, ramp=0, width=2, **SIZES)), plain, atol=1e-4)


def test_pieces_have_the_gradient_of_the_whole():
    whole, pieces = (parameters(pcpg(ramp=2, width=2, micro=micro, **SIZES)) for micro in (None, 5))
    torch.testing.assert_close(pieces, whole, atol=2e-5, rtol=0)


def test_noise_changes_what_is_heard_and_not_what_is_right():
    g = torch.Generator().manual_seed(0)
    clear, loud = NoisyCopy(noise=0.0), NoisyCopy(noise=0.2)
    drawn = clear.prompts(200, g)
    right = clear.right(drawn.key)
    said = right.masked_fill(right < ZERO, clear.symbol("_"))
    assert torch.equal(said[:, :8], drawn.ids[:, :8])
    steps = (right[:, 1:5] - right[:, :4]) % 10
    assert set(steps.flatten().tolist()) == {1, 3}
    drawn = loud.prompts(2000, g)
    length = drawn.key // 10**8 % 10
    heard = (drawn.ids[:, :8] != loud.symbol("_")).sum(1)
    assert float((length - heard).sum() / length.sum()) == pytest.approx(0.1, abs=0.01)  # lost
    whole = heard == length
    clean = ZERO + places(drawn.key, 8)
    there = torch.arange(8) < length[:, None]
    replaced = ((drawn.ids[:, :8] != clean) & there)[whole].sum() / there[whole].sum()
    assert float(replaced) == pytest.approx(0.1 / 0.9, abs=0.015)
    assert len(drawn.key.unique()) == 2000


def test_the_teacher_slips():
    g = torch.Generator().manual_seed(0)
    prompts, tokens, mask = NoisyCopy().teach(2000, g)
    right = NoisyCopy().right(prompts.key)
    digits = right >= ZERO
    assert float((tokens != right)[digits].float().mean()) == pytest.approx(0.1, abs=0.01)
    assert torch.equal(tokens[~digits], right[~digits])
    assert torch.equal(mask.sum(1).long(), prompts.key // 10**8 % 10 + 1)


def test_it_conforms():
    check_system(partial(pcpg, width=2, ramp=3, **SIZES), SMALL, half=1)


@pytest.mark.parametrize("wrong", [{"share": -0.1}, {"share": 1.1}, {"ramp": -1}], ids=str)
def test_shares_outside_their_range_are_refused(wrong):
    with pytest.raises(ValueError, match=r"share must lie in \[0, 1\] and ramp not be negative"):
        pcpg(**wrong)


@pytest.mark.parametrize("wrong", [{"width": 0}, {"stride": 0}], ids=str)
def test_empty_windows_are_refused(wrong):
    with pytest.raises(ValueError, match="at least 1 token and a stride"):
        pcpg(**wrong)
    with pytest.raises(ValueError, match="at least 1 decision and a stride"):
        sliding(torch.ones(1, 2), torch.ones(1, 2), **wrong)


def test_a_window_that_never_fits_is_refused():
    with pytest.raises(ValueError, match="a window of 7 tokens never fits into answers of at most 6"):
        next(train(pcpg(width=7, **SIZES), SMALL(), steps=1))


@pytest.mark.parametrize("wrong", [{"least": 1}, {"width": 9}, {"noise": 1.5}, {"tests": 0}], ids=str)
def test_strings_outside_their_range_are_refused(wrong):
    with pytest.raises(ValueError, match="needs 2 <= least <= width <= 8"):
        NoisyCopy(**wrong)


