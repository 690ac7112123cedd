"""SPG: its chain begins as the classifier, its credit is that of a plain loop, and padding and replicas leave no trace."""

from functools import partial

import pytest
import torch
from torch.nn.functional import cross_entropy

from steepest.core import Stream, begin, train
from steepest.core.check import check_system
from steepest.evidence.claim import Run
from steepest.evidence.on_policy.spg_hpo import claim
from steepest.models.classifier import Classifier, ReplicaChain
from steepest.problems.labelled import Digits, Examples, Moons
from steepest.systems.on_policy.spg_hpo import spg_hpo

SMALL = partial(Moons, train=50, test=40)
make = partial(spg_hpo, batch=16, pretrain=5, hidden=8)


def chain(drops, hidden=8):
    with Stream(0).fork():
        return ReplicaChain(Classifier(2, 2, hidden), drops)


def state_and_batch(seed=0, **options):
    system = make(**options)
    state = begin(system, SMALL(), seed=seed)
    return system, state, system.collect(state, SMALL(), Stream(seed, 0) / "collect")


def grads(state):
    return {name: torch.zeros_like(p) if p.grad is None else p.grad.clone() for name, p in state.policy.named_parameters()}


def test_conforms():
    assert check_system(make, SMALL)[-1] == "resume is bitwise in a fresh process"


@pytest.mark.parametrize("problem", [SMALL, partial(Digits, train=30, test=20)])
def test_examples_are_a_function_of_the_seed_and_some_labels_are_wrong(problem):
    one, two, other = problem().data, problem().data, problem(seed=1).data
    assert torch.equal(one.x, two.x)
    assert not torch.equal(one.x, other.x)
    true = problem(wrong=0.0, train=2000).data
    told = problem(wrong=0.2, train=2000).data
    assert torch.equal(true.x, told.x)
    assert float((true.y != told.y).float().mean()) == pytest.approx(0.2, abs=0.03)
    assert len(problem().held_out) == problem().test


def test_digits_without_noise_can_be_told_apart_by_their_pixels():
    data = Digits(train=400, spread=0.0, wrong=0.0).data
    shown = (data.x.view(-1, 8, 8) > 0).float()
    count = {digit: {int(n) for n in shown[data.y == digit].sum((1, 2))} for digit in range(10)}
    assert all(len(lit) == 1 for lit in count.values())  # the same segments wherever the digit stands
    assert count[8] == {max(max(lit) for lit in count.values())}


def test_without_dropout_every_replica_begins_as_the_classifier():
    net = chain((0.0, 0.0, 0.0))
    x = torch.randn(5, 2, generator=Stream(1).torch())
    found = net.distribution({"x": x, "keep": net.keep(5, Stream(2).torch())})
    assert torch.allclose(found.logits, net.base(x).log_softmax(-1)[:, None].expand(-1, 4, -1), atol=1e-6)


def test_dropout_grows_along_the_chain():
    """What is left after t replicas is prod (1 - p_k) of the features."""
    net = chain((0.5, 0.2), hidden=64)
    kept = net.keep(400, Stream(0).torch())
    assert float((kept[:, 0] > 0).float().mean()) == pytest.approx(0.5, abs=0.02)
    assert float((kept.prod(1) > 0).float().mean()) == pytest.approx(0.4, abs=0.02)
    assert float(kept.mean()) == pytest.approx(1.0, abs=0.02)


def test_the_classifier_has_the_keys_that_it_has_without_replicas():
    with Stream(0).fork():
        assert chain((0.1,)).base.state_dict().keys() == Classifier(2, 2, 8).state_dict().keys()


def test_an_episode_ends_with_its_first_wrong_decision_and_is_paid_for_each_right_one():
    _, state, batch = state_and_batch(drops=(0.5, 0.5, 0.5), pretrain=20)
    decided = state.policy.distribution(batch.obs).mode()
    label = SMALL().data.y[batch.key]
    assert torch.equal(batch.action[:, 0], label)
    lengths = set()
    for n in range(len(batch)):
        alive = True
        for t in range(1, 4):
            assert bool(batch.mask[n, t]) == alive
            right = bool(decided[n, t] == label[n])
            assert float(batch.reward[n, t]) == float(alive and right)
            alive = alive and right
        lengths.add(int(batch.mask[n].sum()))
    assert len(lengths) > 1


def test_one_step_descends_the_loss_of_the_card():
    """Written out in a loop: cross-entropy of the classifier, and each decision's log-probability times what is still earned."""
    system, state, batch = state_and_batch(drops=(0.5, 0.5), weight=0.7, pretrain=20)
    logp = state.policy.distribution(batch.obs).logits
    n = len(batch)
    to_go = [[float(batch.reward[i, t:].sum()) for t in range(3)] for i in range(n)]
    total = cross_entropy(logp[:, 0], batch.action[:, 0])
    for t in (1, 2):
        for i in range(n):
            total = total - 0.7 * to_go[i][t] * logp[i, t, batch.action[i, t]] / n
    expected = dict(zip(grads(state), torch.autograd.grad(total, list(state.policy.parameters())), strict=True))
    state.optimizers["policy"] = torch.optim.SGD(state.policy.parameters(), 0.0)
    system.learn(state, batch, Stream(0))
    for name, g in grads(state).items():
        assert torch.allclose(g, expected[name], atol=1e-6), name
    assert expected["links.0.weight"].norm() > 1e-3


def test_what_is_padding_moves_nothing():
    system, state, batch = state_and_batch(drops=(0.5, 0.5), pretrain=20)
    assert bool((batch.mask == 0).any())
    other = torch.where(batch.mask > 0, batch.action, 1 - batch.action)
    moved = []
    for action in (batch.action, other):
        state.optimizers["policy"] = torch.optim.SGD(state.policy.parameters(), 0.0)
        system.learn(state, batch.having(action=action), Stream(0))
        moved.append(grads(state))
    assert all(torch.equal(moved[0][name], moved[1][name]) for name in moved[0])


def test_without_weight_it_is_plain_fine_tuning():
    system, state, batch = state_and_batch(weight=0.0)
    before = state.policy.base
    loss = cross_entropy(before(batch.obs["x"]), batch.action[:, 0])
    expected = torch.autograd.grad(loss, list(before.parameters()))
    state.optimizers["policy"] = torch.optim.SGD(state.policy.parameters(), 0.0)
    system.learn(state, batch, Stream(0))
    assert all(torch.allclose(p.grad, g, atol=1e-7) for p, g in zip(before.parameters(), expected, strict=True))
    assert all(not bool(p.grad.any()) for p in state.policy.links.parameters())


def test_pretraining_learns():
    problem = Moons(wrong=0.0)
    accuracy = [problem.evaluate(begin(spg_hpo(pretrain=n), problem).policy, Stream(0))["accuracy"] for n in (0, 200)]
    assert accuracy[0] < 0.8 < 0.9 < accuracy[1]


@pytest.mark.parametrize("drops", [(), (1.0,), (0.1, -0.1)])
def test_rates_of_dropout_that_make_no_sense_are_refused(drops):
    with pytest.raises(ValueError, match="drops are at least one rate"):
        begin(make(drops=drops), SMALL())


@pytest.mark.parametrize(
    ("y", "message"),
    [(torch.zeros(2), "indices of classes"), (torch.tensor([0, 2]), "label of example 1 is 2"), (torch.tensor([0]), "1 labels")],
)
def test_labels_that_are_no_classes_are_refused(y, message):
    with pytest.raises(ValueError, match=message):
        Examples(torch.zeros(2, 3), y, 2)


def test_options_are_checked():
    with pytest.raises(ValueError, match="weight"):
        spg_hpo(weight=-1.0)
    with pytest.raises(ValueError, match="wrong in"):
        Moons(wrong=1.0)


def test_the_claim_runs():
    problem = claim.problem(seed=100, train=60, test=50)
    found = []
    for arm in (claim.ours, claim.baseline):
        steps = list(train(arm(pretrain=2), problem, steps=2, seed=100))
        found.append(claim.measure(Run(100, [r.metrics for r in steps], steps[-1].state, problem)))
        assert claim.figure in steps[-1].metrics
    assert all(0 <= x <= 1 for x in found)
