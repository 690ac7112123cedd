import pytest
import torch

from steepest.credit import centred, gae, group_relative, leave_one_out, reward_to_go, standardize


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def flags(*shape, seed, p=0.2):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) < p


def plain_gae(reward, value, next_value, terminated, truncated, discount, decay):
    """The definition as a double loop: A_t = sum_k (discount decay)^k d_{t+k} until the episode ends."""
    n, t = reward.shape
    out = torch.zeros_like(reward)
    for i in range(n):
        for start in range(t):
            factor = 1.0
            for k in range(start, t):
                bootstrap = 0.0 if terminated[i, k] else discount * next_value[i, k]
                out[i, start] += factor * (reward[i, k] + bootstrap - value[i, k])
                if terminated[i, k] or truncated[i, k]:
                    break
                factor *= discount * decay
    return out


@pytest.mark.parametrize(("discount", "decay"), [(0.99, 0.95), (1.0, 1.0), (0.9, 0.0)])
def test_gae_is_its_definition(discount, decay):
    reward, value, following = random(4, 9), random(4, 9, seed=1), random(4, 9, seed=2)
    terminated = flags(4, 9, seed=3)
    truncated = flags(4, 9, seed=4) & ~terminated
    before = reward.clone()
    got = gae(reward, value, following, terminated, truncated, discount=discount, decay=decay)
    assert torch.allclose(got, plain_gae(reward, value, following, terminated, truncated, discount, decay))
    assert torch.equal(reward, before)


def test_gae_at_its_two_ends():
    reward, value = random(3, 6), random(3, 6, seed=1)
    following = torch.cat([value[:, 1:], random(3, 1, seed=2)], 1)
    nothing = torch.zeros(3, 6, dtype=torch.bool)
    end = nothing.clone()
    end[:, -1] = True
    ones = torch.ones(3, 6, dtype=torch.float64)
    returns = reward_to_go(reward, ones, discount=0.9)
    assert torch.allclose(gae(reward, value, following, end, nothing, discount=0.9, decay=1.0), returns - value)
    one_step = gae(reward, value, following, nothing, nothing, discount=0.9, decay=0.0)
    assert torch.allclose(one_step, reward + 0.9 * following - value)


def test_truncation_bootstraps_and_termination_does_not():
    reward, value, following = torch.zeros(1, 2), torch.zeros(1, 2), torch.tensor([[5.0, 0.0]])
    first, never = torch.tensor([[True, False]]), torch.zeros(1, 2, dtype=torch.bool)
    assert gae(reward, value, following, never, first, discount=1.0, decay=1.0)[0, 0] == 5
    assert gae(reward, value, following, first, never, discount=1.0, decay=1.0)[0, 0] == 0


def test_gae_refuses_a_discount_that_is_none():
    x, f = torch.zeros(1, 1), torch.zeros(1, 1, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        gae(x, x, x, f, f, discount=1.1, decay=0.9)


def test_reward_to_go_is_a_double_loop_and_stops_at_an_end():
    reward, mask, ended = random(3, 7), torch.ones(3, 7, dtype=torch.float64), flags(3, 7, seed=5)
    got = reward_to_go(reward, mask, discount=0.8, ended=ended)
    for i in range(3):
        for t in range(7):
            total, factor = 0.0, 1.0
            for k in range(t, 7):
                total += factor * float(reward[i, k])
                if ended[i, k]:
                    break
                factor *= 0.8
            assert float(got[i, t]) == pytest.approx(total)


KEY = torch.tensor([4, 4, 4, 7, 7, 7])
SCORE = torch.tensor([1.0, 0.0, 0.0, 3.0, 5.0, 4.0], dtype=torch.float64)


def test_group_relative_by_hand():
    got = group_relative(SCORE, KEY, eps=0.0)
    third = SCORE[:3]
    assert torch.allclose(got[:3], (third - third.mean()) / third.std())
    assert torch.allclose(got[3:], torch.tensor([-1.0, 1.0, 0.0]).double())


def test_group_relative_ignores_scale_and_shift_and_equal_rewards():
    assert torch.allclose(group_relative(3 * SCORE + 2, KEY, eps=0.0), group_relative(SCORE, KEY, eps=0.0))
    assert not group_relative(torch.ones(6), KEY).any()


def test_groups_are_found_wherever_their_rows_lie():
    order = torch.tensor([5, 0, 3, 1, 4, 2])
    for credit in (centred, group_relative, leave_one_out):
        assert torch.allclose(credit(SCORE[order], KEY[order]), credit(SCORE, KEY)[order])


def test_leave_one_out_is_the_centred_score_over_its_degrees_of_freedom():
    assert torch.allclose(leave_one_out(SCORE, KEY), 3 / 2 * centred(SCORE, KEY))


def test_a_group_of_one_is_refused():
    with pytest.raises(ValueError, match="prompt 9 has a group of one"):
        leave_one_out(torch.zeros(3), torch.tensor([1, 1, 9]))


def test_standardize_sees_only_what_was_made():
    x, mask = random(5, 4), torch.ones(5, 4, dtype=torch.float64)
    mask[2:, 2:] = 0
    got = standardize(torch.where(mask > 0, x, 1e6), mask)
    made = got[mask > 0]
    assert float(made.mean()) == pytest.approx(0, abs=1e-9)
    assert float(made.std(correction=0)) == pytest.approx(1, abs=1e-6)
    assert not got[mask == 0].any()
    assert standardize(torch.ones(1, 1), torch.ones(1, 1)).item() == 0
