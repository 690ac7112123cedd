"""Hints where a whole group failed: GHPO and Scaf-GRPO."""

from dataclasses import dataclass
from functools import partial

import pytest
import torch

from steepest.collectors.generate import generate
from steepest.collectors.hints import helped, hopeless
from steepest.core import Batch, Stream, begin, train
from steepest.core.check import check_system
from steepest.problems.language import AddCliff, ModeLottery
from steepest.systems.reasoning.ghpo import ghpo
from steepest.systems.reasoning.grpo import grpo
from steepest.systems.reasoning.scaf_grpo import scaf_grpo

SIZES = {"prompts": 6, "group": 3, "lr": 1e-3}
TASK = partial(AddCliff, width=3, least=3, hints=True, warm=5, tests=8)


@dataclass(frozen=True)
class Needy(AddCliff):
    """Every answer is right once the prompt tells as many digits of the sum as its first digit modulo 4 says: at level 1/4 one of
    four, at 1/2 two, at 3/4 three. None needed: always right."""

    def score(self, prompts, tokens, mask):
        slots = prompts.ids[:, 2 * self.width : 3 * self.width + 1]
        return ((slots != self.symbol("_")).sum(1) >= prompts.key % 10 % 4).float()


NEEDY = Needy(width=3, least=3, hints=True, warm=5)


def collected(system, problem=NEEDY, seed=2, steps=0):
    state = begin(system, problem)
    state.step = steps
    return system.collect(state, problem, Stream(seed))


def need(batch):
    return batch.key % 10 % 4


def test_the_teacher_copies_what_is_told():
    """Or a warmed-up policy would not heed a hint."""
    task = AddCliff(width=6, least=6, hints=True)
    prompts, tokens, _ = task.teach(400, Stream(0).torch())
    slots = prompts.ids[:, 12:19]
    told = slots != task.symbol("_")
    assert bool(told.any())
    assert torch.equal(slots[told], tokens[:, :7][told])
    right = task.right(prompts.key)[:, :7]
    assert 0.2 < float((tokens[:, :7] != right)[~told & (right > 1)].float().mean()) < 0.5  # the rest is as noisy as ever


def test_a_group_is_hopeless_only_if_nobody_in_it_is_right():
    key = torch.tensor([3, 1, 3, 1, 1])
    reward = torch.tensor([[0.2], [0.0], [1.0], [0.9], [0.0]])
    batch = Batch(None, None, None, reward, torch.ones(5, 1), key)
    assert hopeless(batch, 1.0).tolist() == [False, True, False, True, True]
    assert not hopeless(batch, 0.9).any()


def test_a_whole_group_is_asked_again_with_the_smallest_part_that_helps():
    batch = collected(ghpo(**SIZES))
    plain = collected(grpo(**SIZES))
    assert batch.check() is batch
    assert len(batch) == 18
    assert torch.equal(batch.key, plain.key.sort(stable=True)[0])
    assert {0, 3} < set(need(batch).tolist())  # or the test would see nothing
    assert torch.equal(batch.extra["hint"][:, 0], need(batch) / 4)
    assert batch.score.tolist() == [1.0] * 18
    untouched = need(batch) == 0
    before = plain.rows(plain.key.argsort(stable=True))
    assert torch.equal(batch.action[untouched], before.action[untouched])
    assert torch.equal(batch.obs["ids"][untouched], before.obs["ids"][untouched])
    assert batch.info["failed"] == pytest.approx(float((need(batch) > 0).float().mean()))
    assert batch.info["hint"] == pytest.approx(float(need(batch).float().mean()) / 4)


def test_at_most_one_group_is_asked_for_each_level_and_one_without():
    asked = []

    class Counted(Needy):
        def score(self, prompts, tokens, mask):
            asked.extend(prompts.key.tolist())
            return torch.zeros(len(mask))

    batch = collected(ghpo(**SIZES), Counted(width=3, least=3, hints=True, warm=5))
    assert len(asked) == 4 * 18
    assert not batch.score.any()
    assert bool((batch.extra["hint"] == 0.75).all())


def test_one_success_under_the_smallest_hint_replaces_one_failure():
    batch = collected(scaf_grpo(levels=(0.25, 0.5, 0.75), start=0, **SIZES))
    plain = collected(grpo(**SIZES))
    assert batch.check() is batch
    assert torch.equal(batch.key, plain.key.sort(stable=True)[0])
    for key in batch.key.unique():
        mine, was = batch.rows(batch.key == key), plain.rows(plain.key == key)
        level = int(key) % 10 % 4 / 4
        if level == 0:
            assert torch.equal(mine.action, was.action)
            assert not mine.extra["hint"].any()
        else:
            assert float(mine.score.sum()) == 1
            assert mine.score.argmax() == 2  # what was kept comes first
            assert mine.extra["hint"][:, 0].tolist() == [0, 0, level]
            assert torch.equal(mine.action[:2], was.action[1:])


def test_a_group_that_no_hint_saves_stays_as_it_was():
    system = scaf_grpo(levels=(0.25,), start=0, **SIZES)
    batch, plain = collected(system), collected(grpo(**SIZES))
    lost = need(batch) > 1
    assert bool(lost.any())
    assert not batch.score[lost].any()
    assert torch.equal(batch.action[lost], plain.rows(plain.key.argsort(stable=True)).action[lost])


def parameters(system, problem, steps=2):
    *_, last = train(system, problem, steps=steps)
    return torch.cat([p.detach().flatten() for p in last.state.policy.parameters()])


def test_without_a_group_that_failed_both_are_grpo():
    task = AddCliff(width=1, least=1, hints=True, warm=150)
    plain = parameters(grpo(kl=0, **SIZES), task)
    system = ghpo(kl=0, **SIZES)
    assert all(record.metrics["failed"] == 0 for record in train(system, task, steps=2))
    assert torch.equal(parameters(system, task), plain)
    assert torch.equal(parameters(scaf_grpo(start=0, **SIZES), task), plain)


def test_before_its_first_step_there_are_no_hints():
    early, late = (collected(scaf_grpo(start=5, **SIZES), steps=step) for step in (4, 5))
    assert early.info["hint"] == 0 < late.info["hint"]
    assert torch.equal(early.action, collected(grpo(**SIZES), steps=4).action)


def test_a_gradient_comes_where_grpo_has_none():
    def moved(system):
        state = begin(system, NEEDY)
        before = [p.clone() for p in state.policy.parameters()]
        for _ in train(system, NEEDY, steps=1, state=state):
            pass
        return any(not torch.equal(a, b) for a, b in zip(before, state.policy.parameters(), strict=True))

    assert not moved(grpo(kl=0, **SIZES))  # all answers to a prompt agree
    assert moved(scaf_grpo(start=0, **SIZES))


@pytest.mark.parametrize("make", [ghpo, partial(scaf_grpo, levels=(0.25, 0.5), start=1)], ids=["ghpo", "scaf_grpo"])
def test_it_conforms(make):
    check_system(partial(make, **SIZES), TASK, half=1)


@pytest.mark.parametrize("make", [ghpo, scaf_grpo])
@pytest.mark.parametrize("levels", [(), (0.5, 0.25), (0.5, 0.5), (0.0, 0.5), (0.5, 1.0)])
def test_levels_must_grow_and_never_tell_all(make, levels):
    with pytest.raises(ValueError, match="grow from above 0 to below 1"):
        make(levels=levels)


def test_prompts_without_room_for_hints_are_refused():
    with pytest.raises(ValueError, match=r"AddCliff\(hints=True\)"):
        next(train(ghpo(**SIZES), AddCliff(width=3, least=3, warm=5), steps=1))
    with pytest.raises(TypeError, match="it needs `hint`, which ModeLottery"):
        for _ in train(ghpo(**SIZES), ModeLottery(warm=5), steps=20):
            pass


def test_the_plain_answers_can_come_from_another_collector():
    def ask(state, problem, count, rng):
        return problem.prompts(count, Stream("mine").torch())

    gather = helped(lambda state, problem, batch, rng: batch, plain=partial(generate, ask=ask))
    batch = gather(prompts=2, group=2)(begin(grpo(**SIZES), NEEDY), NEEDY, Stream(0))
    assert torch.equal(batch.key.unique(), NEEDY.prompts(2, Stream("mine").torch()).key.sort()[0])
