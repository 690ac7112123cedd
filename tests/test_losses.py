import pytest
import torch

from steepest.losses import (
    Missing,
    Terms,
    clip,
    constant_norm,
    entropy,
    k3,
    kl_new_old,
    kl_old_new,
    loss,
    reinforce,
    sequence_mean,
    sequence_sum,
    squared,
    squared_clip,
    surrogate,
    token_mean,
)  # fmt: skip
from steepest.losses.check import check_loss, example, gradient

ALL = ("on_policy", "zero_advantage", "order", "padding", "finite", "pure", "cut")


@pytest.mark.parametrize(
    "objective",
    [
        surrogate(),
        clip(),
        clip(low=0.1, high=0.3) + 0.04 * k3() + 0.5 * squared() - 0.01 * entropy(),
        surrogate() + kl_old_new() + 2.0 * kl_new_old(),
    ],
    ids=str,
)
def test_policy_gradient_losses_obey_every_law(objective):
    assert check_loss(objective) == list(ALL)


def test_reinforce_obeys_every_law():
    assert check_loss(reinforce()) == list(ALL)


# ------------------------------------------------- every law is seen to catch the loss that breaks it


@loss()
def wrong_sign(t):
    return t.ratio * t.advantage


@loss()
def biased(t):
    return -t.ratio * (t.advantage - t.ratio.detach())


@loss()
def ordered(t):
    return -t.ratio * t.advantage * torch.arange(len(t.mask))[:, None].clamp(max=1) - t.ratio * t.advantage[:1] * 0


@loss()
def looks_at_padding(t):
    return -t.ratio * t.advantage * (t.old.min() / t.old.min().detach() if t.old.min() > -9 else 2.0)


@loss()
def overflows(t):
    return -(t.new - t.old).double().mul(20).exp() * t.advantage / 20


@loss()
def edits(t):
    t.advantage.mul_(1.0 + 1e-12)
    return -t.ratio * t.advantage


@loss()
def noisy(t):
    return -t.ratio * t.advantage + 0 * torch.rand(())


@loss()
def whole_batch(t):
    return -t.ratio * t.advantage * (1 + (t.ratio * t.mask).sum().detach() - t.mask.sum()) ** 0 * (1.0 + len(t.mask) / 100 - 0.06)


@pytest.mark.parametrize(
    ("objective", "law"),
    [
        (wrong_sign, "on_policy"),
        (biased, "on_policy"),
        (ordered, "on_policy"),
        (looks_at_padding, "padding"),
        (overflows, "finite"),
        (edits, "pure"),
        (noisy, "pure"),
        (whole_batch, "cut"),
    ],
    ids=lambda x: getattr(x, "__name__", x),
)
def test_a_broken_law_is_caught(objective, law):
    with pytest.raises(AssertionError, match=f"breaks `{law}`"):
        check_loss(objective())


def test_an_order_dependent_loss_is_caught():
    @loss()
    def first_row_weighs_double(t):
        position = torch.ones_like(t.mask)
        position[0] = 2.0
        return -t.ratio.detach() * t.new * t.advantage + (position - 1) * (t.ratio - 1) ** 2

    with pytest.raises(AssertionError, match="breaks `order`"):
        check_loss(first_row_weighs_double())


def test_a_loss_with_a_push_of_its_own_is_caught():
    @loss()
    def pushes(t):
        return -t.ratio * t.advantage + (t.advantage == 0) * t.new

    with pytest.raises(AssertionError, match="breaks `zero_advantage`"):
        check_loss(pushes())


def test_a_ratio_that_one_loss_reads_without_gradient_keeps_it_for_the_next():
    @loss()
    def looks(t):
        with torch.no_grad():
            return 0.0 * t.ratio + 0.0 * t.log_ratio

    terms = example()
    both, alone = (gradient(loss, terms.each(lambda _, x: x)) for loss in (looks() + surrogate(), surrogate()))
    assert torch.equal(both, alone)
    assert float(alone.abs().sum()) > 0


@loss("whole")
def largest(t):
    """Looks at the whole minibatch as it should."""
    return -t.ratio * t.advantage * (t.whole.mask.sum() / t.whole.mask.sum())


@loss("success", "key")
def successful(t):
    """Reads a column of its own, and which group a decision belongs to."""
    return -t.ratio * t.advantage + 0 * t.extra["success"] * t.key


def test_a_loss_may_look_at_the_whole_minibatch_and_at_columns_of_its_own():
    assert check_loss(largest()) == list(ALL)
    assert check_loss(successful(), columns={"success": lambda t: 0.5 * t.mask}) == list(ALL)
    with pytest.raises(Missing, match=r"needs Terms.success.*column of that name"):
        check_loss(successful())


def test_an_exemption_must_be_needed():
    with pytest.raises(AssertionError, match="drop the exemption"):
        check_loss(clip(), exempt=("on_policy",))
    with pytest.raises(ValueError, match="no law"):
        check_loss(clip(), exempt=("beauty",))
    assert "on_policy" not in check_loss(wrong_sign(), exempt=("on_policy",))


# --------------------------------------------------------------------------------------- formulas


def one(new=0.0, old=0.0, advantage=1.0, **more):
    def cell(x):
        return torch.tensor([[float(x)]], dtype=torch.float64)

    return Terms(cell(new).requires_grad_(), cell(old), cell(advantage), cell(1), **{k: cell(v) for k, v in more.items()})


@pytest.mark.parametrize(
    ("log_ratio", "advantage", "moves"),
    [(0.3, 1, False), (0.1, 1, True), (-0.3, -1, False), (-0.3, 1, True), (0.3, -1, True)],
)
def test_clip_stops_exactly_where_the_band_is_left_on_the_gaining_side(log_ratio, advantage, moves):
    t = one(new=log_ratio, advantage=advantage)
    value, metrics = clip()(t)
    value.sum().backward()
    assert (t.new.grad.abs().item() > 0) == moves
    assert metrics["clipped"].item() == float(abs(torch.tensor(log_ratio).exp() - 1) > 0.2)


def test_k3_is_an_unbiased_estimate_of_the_divergence_and_never_negative():
    p, q = torch.tensor([0.5, 0.3, 0.2]).double(), torch.tensor([0.2, 0.2, 0.6]).double()
    t = Terms(p.log()[None], p.log()[None], torch.zeros(1, 3), torch.ones(1, 3), ref=q.log()[None])
    value = k3()(t).loss[0]
    assert (value >= 0).all()
    assert torch.allclose((p * value).sum(), (p * (p / q).log()).sum())


def test_clipped_value_loss_is_the_larger_of_two_squares():
    assert squared_clip(width=0.2)(one(value=1.0, old_value=0.0, target=2.0)).loss.item() == pytest.approx(0.5 * 1.8**2)
    assert squared_clip(width=0.2)(one(value=-1.0, old_value=0.0, target=2.0)).loss.item() == pytest.approx(0.5 * 3.0**2)
    assert squared()(one(value=1.0, target=3.0)).loss.item() == pytest.approx(2.0)


def test_log_ratios_are_bounded_before_exp():
    assert torch.isfinite(surrogate()(one(new=1000.0)).loss).all()


def test_losses_add_and_scale():
    terms = example()
    a, b = clip(), k3()
    both = (a + 0.5 * b - 2.0 * a)(terms)
    assert torch.allclose(both.loss, a(terms).loss + 0.5 * b(terms).loss - 2 * a(terms).loss)
    assert set(both.metrics) == {"clipped", "kl_ref"}
    assert (a + b).needs == {"ref"}


def test_a_missing_term_says_what_to_do():
    with pytest.raises(Missing, match=r"needs Terms.ref, which is None: give the State a `reference`"):
        k3()(one())


# ------------------------------------------------------------------------------------- reductions


def test_reductions_by_hand():
    mask = torch.tensor([[1.0, 1, 1, 1], [1, 0, 0, 0]])
    assert torch.allclose(token_mean(mask), mask / 5)
    assert torch.allclose(sequence_mean(mask).sum(1), torch.tensor([0.5, 0.5]))
    assert torch.allclose(sequence_sum(mask), mask / 2)
    assert torch.allclose(constant_norm(10)(mask), mask / 20)
    with pytest.raises(ValueError, match="positive"):
        constant_norm(0)


def test_constant_norm_gives_a_token_the_same_weight_in_long_and_short_answers():
    mask = torch.tensor([[1.0, 1, 1, 1], [1, 0, 0, 0]])
    weight = constant_norm(4)(mask)
    assert weight[0, 0] == weight[1, 0]
    assert sequence_mean(mask)[0, 0] != sequence_mean(mask)[1, 0]
