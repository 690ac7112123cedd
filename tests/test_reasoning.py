"""REINFORCE, RLOO and GRPO: their gradients by enumeration, the identities between them, and that they learn."""

import itertools
from functools import partial

import pytest
import torch

from steepest.core import Stream, begin, train
from steepest.core.check import check_system
from steepest.credit import centred, group_relative, leave_one_out
from steepest.engines import by_score, kl_penalty
from steepest.losses import Terms, loss, sequence_mean
from steepest.losses import reinforce as score_function
from steepest.problems.control import CartPole
from steepest.problems.language import AddCliff
from steepest.systems.reasoning.grpo import grpo
from steepest.systems.reasoning.reinforce import against_batch, reinforce
from steepest.systems.reasoning.rloo import rloo

SMALL = partial(AddCliff, width=2, least=1, warm=60, tests=32)
LEARN = partial(AddCliff, width=3, least=3, warm=400, tests=256)
SIZES = {"prompts": 4, "group": 4, "lr": 1e-3}


# ------------------------------------------------------------------------- a task that can be enumerated

ANSWERS = torch.tensor(list(itertools.product(range(3), repeat=2)))  # two tokens of three kinds
REWARD = torch.tensor([0.0, 1.0, 0.5, 0.0, 0.0, 2.0, -1.0, 0.3, 0.0], dtype=torch.float64)


def logits():
    g = torch.Generator().manual_seed(0)
    return torch.randn(2, 3, generator=g, dtype=torch.float64).requires_grad_()


def log_probs(theta):
    """[answers, tokens]"""
    return theta.log_softmax(-1)[torch.arange(2), ANSWERS]


def exact_gradient():
    theta = logits()
    (g,) = torch.autograd.grad(-(log_probs(theta).sum(1).exp() * REWARD).sum(), theta)
    return g


def gradient(index, chance, advantage):
    """Of the score-function loss, summed over answers and expected over draws: index [D, G], chance [D], advantage [D, G]."""
    theta = logits()
    new = log_probs(theta)[index].flatten(0, 1)
    terms = Terms(new, new.detach(), advantage.flatten()[:, None].expand(-1, 2), torch.ones_like(new))
    loss = score_function()(terms).loss.sum(1).view(index.shape).mean(1)
    (g,) = torch.autograd.grad((chance * loss).sum(), theta)
    return g


def draws(group):
    """Every way to draw `group` answers to the prompt, with its probability."""
    index = torch.tensor(list(itertools.product(range(9), repeat=group)))
    p = log_probs(logits()).detach().sum(1).exp()
    return index, p[index].prod(1)


@pytest.mark.parametrize("baseline", [0.0, 0.7, -30.0])
def test_a_constant_baseline_leaves_the_expected_gradient_alone(baseline):
    index, chance = draws(1)
    torch.testing.assert_close(gradient(index, chance, REWARD[index] - baseline), exact_gradient(), atol=1e-12, rtol=0)


def advantages(rule, index):
    key = torch.arange(len(index)).repeat_interleave(index.shape[1])
    return rule(REWARD[index].flatten(), key).view(index.shape)


def test_leave_one_out_is_unbiased_and_the_others_are_not():
    index, chance = draws(3)
    true = exact_gradient()
    torch.testing.assert_close(gradient(index, chance, advantages(leave_one_out, index)), true, atol=1e-12, rtol=0)
    own = gradient(index, chance, advantages(centred, index))  # each answer counts in its own baseline
    torch.testing.assert_close(own, true * 2 / 3, atol=1e-12, rtol=0)
    scaled = gradient(index, chance, advantages(group_relative, index))
    assert float((scaled / scaled.norm() - true / true.norm()).norm()) > 0.01  # the standard deviation changes the direction


def test_the_mean_of_the_batch_shortens_the_gradient_by_one_nth():
    index, chance = draws(3)
    got = gradient(index, chance, REWARD[index] - REWARD[index].mean(1, keepdim=True))
    torch.testing.assert_close(got, exact_gradient() * (1 - 1 / 3), atol=1e-12, rtol=0)
    score = torch.tensor([1.0, 2.0, 6.0])
    assert against_batch(score, torch.zeros(3)).tolist() == [-2, -1, 3]


def test_leave_one_out_varies_less_than_the_mean_of_a_batch_of_prompts():
    """Two prompts, of which one always pays 10 more: that difference is noise to a baseline they share."""
    index, chance = draws(2)

    def spread(advantage):
        theta = logits()
        score = torch.stack([torch.autograd.grad(x, theta, retain_graph=True)[0].flatten() for x in log_probs(theta).sum(1)])
        g = (advantage[..., None] * score[index]).mean(1)
        return float((chance * (g**2).sum(1)).sum())  # both have the same mean, so the second moment decides

    easy = REWARD[index] + 10.0
    shared = easy - (REWARD.mean() + 5.0)
    assert spread(advantages(leave_one_out, index)) < 0.2 * spread(shared)


# ------------------------------------------------------------------------- identities on a real language model


def parameters(system, steps=1, seed=0):
    *_, last = train(system, SMALL(), steps=steps, seed=seed)
    return torch.cat([p.detach().flatten() for p in last.state.policy.parameters()])


def test_with_one_update_grpo_is_a_weighted_policy_gradient():
    a = parameters(grpo(kl=0, **SIZES))
    b = parameters(grpo(kl=0, loss=score_function(), **SIZES))
    torch.testing.assert_close(a, b, atol=1e-7, rtol=0)
    far = parameters(grpo(kl=0, credit=by_score(centred), **SIZES))
    assert float((a - far).abs().max()) > 1e-5


def test_grpo_does_not_see_the_scale_of_rewards():
    score, key = torch.rand(12, dtype=torch.float64), torch.arange(3).repeat_interleave(4)
    base = group_relative(score, key, eps=0)
    for scale, shift in ((3.0, 0.0), (0.01, -5.0)):
        torch.testing.assert_close(group_relative(scale * score + shift, key, eps=0), base)


def test_groups_that_agree_move_nothing():
    problem = SMALL()

    class Flat(AddCliff):
        def score(self, prompts, tokens, mask):
            return torch.ones(len(mask))

    system, flat = grpo(kl=0.04, **SIZES), Flat(width=2, least=1, warm=60)
    state = begin(system, problem)
    before = [p.clone() for p in state.policy.parameters()]
    (record,) = train(system, flat, steps=1, state=state)
    assert record.metrics["skipped"] == 1
    assert all(torch.equal(a, b) for a, b in zip(before, state.policy.parameters(), strict=True))


def test_the_gradient_does_not_depend_on_the_cut():
    torch.testing.assert_close(parameters(grpo(**SIZES)), parameters(grpo(micro=3, **SIZES)), atol=1e-6, rtol=0)
    torch.testing.assert_close(parameters(reinforce(**SIZES)), parameters(reinforce(micro=5, **SIZES)), atol=1e-6, rtol=0)


@loss("whole", "key", "success")
def against_the_whole(t):
    """Its strength depends on all ratios of the minibatch, on the group's other answers and on a column of its own."""
    strength = (t.whole.ratio * t.whole.mask).sum() / t.whole.mask.sum()
    mates = ((t.whole.key == t.key[:, :1, None]) * t.whole.new.exp() * t.whole.mask).sum((1, 2))
    return -t.ratio * t.advantage * (strength + mates[:, None] + t.extra["success"])


def test_nor_does_that_of_a_loss_that_looks_at_the_whole_minibatch():
    def credit(state, batch):
        return {"advantage": centred(batch.score, batch.key)[:, None], "success": batch.score[:, None]}

    def after(micro):
        return parameters(grpo(kl=0, loss=against_the_whole(), credit=credit, epochs=2, minibatches=2, micro=micro, **SIZES), 2)

    torch.testing.assert_close(after(3), after(None), atol=1e-6, rtol=0)


def test_rloo_is_reinforce_with_another_baseline():
    given = {**SIZES, "kl": 0.1}
    assert torch.equal(parameters(rloo(**given)), parameters(reinforce(credit=by_score(leave_one_out), **given)))


def test_a_penalty_takes_the_divergence_off_the_reward():
    system, problem = reinforce(kl=0.5, **SIZES), SMALL()
    state = begin(system, problem)
    batch = system.collect(state, problem, Stream(0))
    untouched = kl_penalty(0.5)(state, batch)
    assert torch.equal(untouched.reward, batch.reward)  # the policy still is its reference
    assert untouched.info["kl_ref"] == 0
    assert kl_penalty(0.0)(state, batch) is batch
    with torch.no_grad():
        state.policy.model.lm_head.weight.mul_(1.5)
        away = state.policy.logp(batch.obs, batch.action, batch.mask) - state.reference.logp(batch.obs, batch.action, batch.mask)
    paid = kl_penalty(0.5)(state, batch)
    torch.testing.assert_close(paid.score, batch.score - 0.5 * (away * batch.mask).sum(1))
    assert paid.info["kl_ref"] == pytest.approx(float((away * batch.mask).sum(1).mean()), abs=1e-6)
    with pytest.raises(ValueError, match="must not be negative"):
        kl_penalty(-1.0)


SYSTEMS = {
    "reinforce": reinforce, "rloo": rloo, "grpo": grpo, "grpo without reference": partial(grpo, kl=0.0),
    "grpo, two passes": partial(grpo, epochs=2, minibatches=2),
}  # fmt: skip


@pytest.mark.parametrize("make", SYSTEMS.values(), ids=SYSTEMS)
def test_it_conforms(make):
    check_system(partial(make, **SIZES), SMALL, half=1, fresh=make is grpo)


def test_sequence_mean_is_the_papers_average():
    mask = torch.tensor([[1.0, 1, 1, 1], [1, 0, 0, 0]])
    assert sequence_mean(mask).tolist() == [[0.125] * 4, [0.5, 0, 0, 0]]


@pytest.mark.parametrize("make", [partial(reinforce, kl=0.0), partial(rloo, kl=0.0), grpo], ids=["reinforce", "rloo", "grpo"])
def test_it_learns(make):
    problem = LEARN()
    system = make(prompts=16, group=8, lr=5e-4)
    state = begin(system, problem)
    before = problem.evaluate(state.policy, Stream(0))["accuracy"]
    *_, last = train(system, problem, steps=40, state=state)
    assert problem.evaluate(last.state.policy, Stream(0))["accuracy"] > before + 0.15


@pytest.mark.parametrize("make", [reinforce, rloo, grpo])
def test_bad_input_is_refused_before_any_work(make):
    with pytest.raises(TypeError, match="CartPole is no Language problem"):
        begin(make(), CartPole())
    with pytest.raises(ValueError, match="negative"):
        make(kl=-0.1)
    with pytest.raises(ValueError, match="micro must be at least 1"):
        make(micro=0)
    with pytest.raises(ValueError, match="prompts must be at least 1"):
        make(prompts=0)


@pytest.mark.parametrize("make", [rloo, grpo])
def test_a_group_of_one_has_nobody_to_compare_with(make):
    with pytest.raises(ValueError, match=r"at least 2 answers.*reinforce"):
        make(group=1)
