"""CAPO: the step it foresees is the step that is taken, and what it says of a token is what autograd says."""

from functools import partial

import pytest
import torch

from steepest.collectors.generate import generate
from steepest.core import Stream, begin, train
from steepest.core.check import check_system
from steepest.credit import group_relative
from steepest.credit.curvature import predicted, pull
from steepest.losses import sequence_mean
from steepest.problems.language import AddCliff
from steepest.systems.reasoning.capo import adam_step, capo, foreseen
from steepest.systems.reasoning.grpo import grpo

SMALL = partial(AddCliff, width=2, least=1, warm=60, tests=32)
SIZES = {"prompts": 4, "group": 4, "lr": 1e-3}


def case(size=0.3):
    g = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(7, 11, generator=g, dtype=torch.float64)
    shift = size * torch.randn(7, 11, generator=g, dtype=torch.float64)
    return logits, shift, torch.randint(11, (7,), generator=g), torch.randn(7, generator=g, dtype=torch.float64)


def test_gradient_and_curvature_are_autograds():
    logits, shift, token, advantage = case()
    gain, moved = predicted(logits.log_softmax(1), shift, token, advantage)
    old = logits.log_softmax(1)

    def along(t):
        new = (logits + t[:, None] * shift).log_softmax(1)
        ratio = (new - old).gather(1, token[:, None]).squeeze(1).exp()
        return advantage * ratio, (old.exp() * (old - new)).sum(1)

    for which, said in enumerate((gain, moved)):
        t = torch.zeros(7, dtype=torch.float64, requires_grad=True)
        (first,) = torch.autograd.grad(along(t)[which].sum(), t, create_graph=True)
        (second,) = torch.autograd.grad(first.sum(), t)
        torch.testing.assert_close(said, (first + second / 2).detach())
    assert (moved >= 0).all()


def test_for_small_steps_it_is_the_divergence():
    logits, shift, token, advantage = case(0.05)
    old, new = logits.log_softmax(1), (logits + shift).log_softmax(1)
    true = (old.exp() * (old - new)).sum(1)
    _, moved = predicted(old, shift, token, advantage)
    assert float(((moved - true) / true).abs().max()) < 0.05


def test_the_pull_is_the_gradient_of_the_log_probability():
    logits, _, token, weight = case()
    logits.requires_grad_()
    (true,) = torch.autograd.grad((logits.log_softmax(1).gather(1, token[:, None]).squeeze(1) * weight).sum(), logits)
    torch.testing.assert_close(pull(logits.detach().log_softmax(1), token, weight), true)


def test_a_step_of_this_token_alone_has_a_closed_form():
    """s (e_y - p): x = s |e_y - p|^2, and its variance under p."""
    logits, _, token, advantage = case()
    p, s, at = logits.softmax(1), 0.1, token[:, None]
    _, moved = predicted(logits.log_softmax(1), s * pull(logits.log_softmax(1), token, torch.ones(7)), token, advantage)
    own, square, cube = p.gather(1, at).squeeze(1), (p**2).sum(1), (p**3).sum(1)
    torch.testing.assert_close(moved, s**2 / 2 * (own - 2 * own**2 + cube - (own - square) ** 2))


@pytest.mark.parametrize("fast", [True, False])
def test_the_step_that_is_foreseen_is_the_step_that_is_taken(fast):
    problem, system = SMALL(), grpo(kl=0, max_grad_norm=float("inf"), temperature=1.3, **SIZES)
    state = begin(system, problem)
    state.policy.fast = fast
    mixed = torch.tensor([0.0, 1.0, 1.0, 1.0]).repeat(4)[:, None]  # in every group, so that no step is skipped
    for step in range(3):  # Adam has moments
        batch = generate(prompts=4, group=4)(state, problem, Stream(step))
        batch = batch.having(reward=batch.mask * (torch.arange(batch.mask.shape[1]) == 0) * mixed)
        if step < 2:
            system.learn(state, batch, Stream(10))
    head = state.policy.model.lm_head.weight
    before = head.detach().clone()
    gain, moved, step = foreseen(state, batch, group_relative(batch.score, batch.key)[:, None], sequence_mean)
    assert len(gain) == len(moved) == int(batch.mask.sum())
    system.learn(state, batch, Stream(10))
    assert float(step.abs().max()) > 1e-4
    torch.testing.assert_close(head.detach() - before, step, atol=2e-6, rtol=1e-3)


def test_adam_begins_with_a_step_of_one_learning_rate():
    weight = torch.zeros(3, requires_grad=True)
    optimizer = torch.optim.Adam([weight], 0.1, eps=1e-12)
    torch.testing.assert_close(adam_step(optimizer, weight, torch.tensor([5.0, -0.1, 1.0])), torch.tensor([-0.1, 0.1, -0.1]))


def parameters(system, steps):
    *_, last = train(system, SMALL(), steps=steps)
    return torch.cat([p.detach().flatten() for p in last.state.policy.parameters()]), last.metrics


def test_with_no_bound_it_is_grpo_and_with_one_it_rejects():
    free = {"least_gain": -float("inf"), "most_move": float("inf")}
    ours, told = parameters(capo(**free, **SIZES), 3)
    plain, _ = parameters(grpo(kl=0, **SIZES), 3)
    assert torch.equal(ours, plain)
    assert told["rejected"] == 0
    _, told = parameters(capo(least_gain=-float("inf"), settle=2, quantile=0.5, **SIZES), 3)
    assert 0 < told["rejected"] < 1
    _, told = parameters(capo(least_gain=-float("inf"), most_move=0.0, **SIZES), 2)
    assert told["rejected"] > 0.9


def test_it_conforms():
    check_system(partial(capo, settle=2, **SIZES), SMALL, half=2)


@pytest.mark.parametrize("wrong", [{"least_gain": 1.0, "most_gain": 0.0}, {"quantile": 0.0}, {"settle": 0}], ids=str)
def test_bad_input_is_refused_before_any_work(wrong):
    with pytest.raises(ValueError, match="needs least_gain"):
        capo(**wrong)


def test_a_head_that_is_not_trained_is_refused():
    state = begin(capo(**SIZES), SMALL())
    batch = generate(prompts=2, group=2)(state, SMALL(), Stream(0))
    state.optimizers["policy"].param_groups[0]["params"] = [state.policy.model.model.embed_tokens.weight]
    with pytest.raises(ValueError, match="no output layer that is trained"):
        foreseen(state, batch, torch.ones(4, 1), sequence_mean)
