"""Learning dynamics: what one step does to other answers, against closed forms and against what really happened."""

import itertools
from functools import partial

import pytest
import torch
from torch import nn

from steepest.collectors.pairs import irrelevant
from steepest.core import begin, train
from steepest.core.check import check_system
from steepest.optimize.influence import correlation, slopes
from steepest.problems.control import CartPole
from steepest.problems.language import AddCliff
from steepest.systems.preferences.dpo import dpo
from steepest.systems.reasoning.learning_dynamics import learning_dynamics

TASK = partial(AddCliff, width=2, least=1, warm=60, tests=16)


class Softmax(nn.Module):
    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(logits)

    def logp(self, x):
        return (x @ self.logits).log_softmax(-1)


def test_the_first_order_is_the_papers_product_of_three():
    """-lr A K G: A = I - 1 p', K = <x_o, x_u> I, G = p_u - e_y, for a linear softmax model."""
    g = torch.Generator().manual_seed(0)
    policy, x = Softmax(torch.randn(5, 4, generator=g, dtype=torch.float64)), torch.randn(2, 5, generator=g, dtype=torch.float64)
    p, lr = policy.logp(x).exp().detach(), 1e-3
    seen, other = x
    rows = slopes(policy, policy.logp(other))
    (step,) = torch.autograd.grad(-policy.logp(seen)[2], policy.logits)  # imitation of answer 2
    residual = p[0] - torch.eye(4, dtype=torch.float64)[2]
    product = -lr * (torch.eye(4, dtype=torch.float64) - p[1]) @ ((other @ seen) * residual)
    torch.testing.assert_close(rows @ (-lr * step).flatten(), product, atol=1e-15, rtol=1e-12)


def test_half_the_step_leaves_a_quarter_of_the_error():
    g = torch.Generator().manual_seed(1)
    x, logits = torch.randn(3, 5, generator=g, dtype=torch.float64), torch.randn(5, 4, generator=g, dtype=torch.float64)
    errors = []
    for lr in (0.02, 0.01, 0.005):
        policy = Softmax(logits.clone())
        before = policy.logp(x)[:, 1]
        rows = slopes(policy, before)
        (step,) = torch.autograd.grad(-policy.logp(x)[:, 0].sum(), policy.logits)
        with torch.no_grad():
            policy.logits -= lr * step
        errors.append(float((policy.logp(x)[:, 1] - before - rows @ (-lr * step).flatten()).norm().detach()))
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.1)
    assert errors[1] / errors[2] == pytest.approx(4, rel=0.1)


def test_influence_on_one_another_is_symmetric_and_positive():
    state = begin(learning_dynamics(watch=8, count=4), TASK())
    kept = state.watched.read()
    rows = slopes(state.policy, state.policy.logp(kept.obs, kept.chosen, kept.chosen_mask).sum(1)).double()
    kernel = rows @ rows.T
    assert torch.equal(kernel, kernel.T)
    assert float(torch.linalg.eigvalsh(kernel)[0]) > -1e-6 * float(kernel.trace())


@pytest.mark.parametrize("target", [1, 2, 3])
def test_a_negative_step_squeezes_mass_onto_the_likeliest(target):
    """Down with one answer of a softmax: the likeliest other rises, and of the others the likelier gain more, relatively."""
    policy = Softmax(torch.tensor([[2.0, -1.0, 0.5, -2.0, 0.0]], dtype=torch.float64))
    x = torch.ones(1, dtype=torch.float64)
    before = policy.logp(x).exp().detach()
    (step,) = torch.autograd.grad(policy.logp(x)[target], policy.logits)  # descent on log p: unlearning
    with torch.no_grad():
        policy.logits -= 0.5 * step
    growth = (policy.logp(x).exp() / before).detach()
    assert growth[0] > 1
    assert growth[target] < 1
    others = [i for i in before.argsort(descending=True).tolist() if i != target]
    assert all(growth[a] >= growth[b] - 1e-12 for a, b in itertools.pairwise(others))


def test_small_steps_are_foretold_and_dpo_is_untouched():
    options = {"lr": 3e-6, "count": 16, "beta": 0.3}
    *records, last = train(learning_dynamics(every=1, watch=24, **options), TASK(), steps=3)
    assert min(r.metrics["foretold"] for r in (*records, last)) > 0.98
    *_, plain = train(dpo(**options), TASK(), steps=3)
    for a, b in zip(last.state.policy.parameters(), plain.state.policy.parameters(), strict=True):
        assert torch.equal(a, b)
    assert correlation(torch.ones(4), torch.arange(4.0)) == 0


def test_imitation_comes_first():
    system = learning_dynamics(imitate=31, every=10, watch=24, count=48, lr=1e-5, imitate_lr=3e-4, source=irrelevant)
    steps = [record.metrics for record in train(system, TASK(), steps=32)]
    assert all("margin" not in told for told in steps[:31])
    assert "margin" in steps[31]
    both = [told["chosen"] + told["rejected"] for told in (steps[0], steps[30])]
    assert both[1] > both[0] + 0.4


def test_it_conforms():
    check_system(partial(learning_dynamics, count=16, watch=16, every=2, imitate=1), TASK)


def test_bad_input_is_refused_before_any_work():
    for options in ({"every": 0}, {"watch": 0}, {"imitate": -1}):
        (name,) = options
        with pytest.raises(ValueError, match=f"{name} must"):
            learning_dynamics(**options)
    with pytest.raises(TypeError, match="dpo learns from pairs"):
        begin(learning_dynamics(), CartPole())
    with pytest.raises(ValueError, match="none has a right and a wrong answer"):
        begin(learning_dynamics(watch=1), AddCliff(width=8, least=8, warm=1))
