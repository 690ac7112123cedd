"""Samplers of prompts on a known set, and what is remembered of prompts and categories."""

import math
from functools import partial

import pytest
import torch

from steepest.collectors.asking import (
    between,
    by_weight,
    choose,
    epochs,
    failures,
    hard,
    lengths,
    softmax_of,
    solved,
    staged,
    uncertain,
)
from steepest.collectors.generate import generate
from steepest.core import State, Stream, holding
from steepest.core.check import check_system
from steepest.memory import Bandit, Tracker
from steepest.problems.fixed import Fixed
from steepest.problems.language import AddCliff
from steepest.problems.rewards import numeric
from steepest.problems.single_turn import Questions
from steepest.systems.reasoning.grpo import grpo

SIZE = 12
POOL = Questions([("x" * (n + 1), str(n)) for n in range(SIZE)], numeric)


def state_at(step=0, **parts):
    state = State(**parts)
    state.step = step
    return state


def keys(ask, count, step=0, seed=0, state=None, problem=POOL):
    state = state_at(step) if state is None else state
    return ask(state, problem, count, Stream(seed, state.step) / "collect" / "prompts").key.tolist()


def tracked(rates, weight=10.0):
    tracker = Tracker(len(rates))
    rates = torch.as_tensor(rates, dtype=torch.float32)
    tracker.alpha, tracker.beta, tracker.seen = rates * weight, (1 - rates) * weight, torch.full((len(rates),), weight)
    return tracker


def shares(ask, state, count=1, draws=4000, problem=POOL):
    """How often each prompt is the only one asked."""
    found = torch.zeros(problem.size)
    for n in range(draws):
        for key in ask(state, problem, count, Stream(n)).key.tolist():
            found[key] += 1
    return found / found.sum()


# ------------------------------------------------------------------------------------ epochs


@pytest.mark.parametrize("count", [1, 5, 12, 30])
def test_by_epochs_every_prompt_comes_once_before_any_comes_again(count):
    drawn = [key for step in range(math.ceil(60 / count)) for key in keys(epochs(), count, step)]
    for epoch in range(len(drawn) // SIZE):
        assert sorted(drawn[epoch * SIZE : (epoch + 1) * SIZE]) == list(range(SIZE))
    assert drawn[:SIZE] != drawn[SIZE : 2 * SIZE]


def test_an_epoch_depends_on_the_seed_and_the_step_alone():
    again = epochs()
    assert keys(epochs(), 5, 3) == keys(again, 5, 3) == keys(again, 5, 3)
    assert keys(again, 12, 0, seed=0) != keys(again, 12, 0, seed=1)


# ------------------------------------------------------------------------------------ weights


def test_prompts_are_asked_in_proportion_to_their_weights():
    wanted = torch.arange(SIZE).float()
    found = shares(by_weight(lambda state, problem: wanted), state_at())
    assert found[0] == 0
    assert torch.allclose(found, wanted / wanted.sum(), atol=0.02)


def test_a_prompt_is_asked_once_a_step_and_others_fill_up():
    only = torch.zeros(SIZE)
    only[[2, 7]] = 1.0
    drawn = keys(by_weight(lambda state, problem: only), 5)
    assert {2, 7} <= set(drawn)
    assert len(set(drawn)) == 5
    assert set(keys(by_weight(lambda state, problem: only, repeated=True), 50)) == {2, 7}
    assert len(set(keys(by_weight(lambda state, problem: 0 * only), SIZE))) == SIZE


def test_what_fails_is_asked_more_and_what_is_unsure_too():
    rates = [0.0, 0.25, 0.5, 1.0] * 3
    state = state_at(tracker=tracked(rates))
    assert torch.allclose(failures()(state, POOL), 1 - torch.tensor(rates))
    assert torch.allclose(uncertain(floor=0.05)(state, POOL)[:4], torch.tensor([0.05, 0.4830, 0.55, 0.05]), atol=1e-4)
    assert torch.allclose(hard(cap=10)(state, POOL)[:4], torch.tensor([10.0, 4.0, 2.0, 1.0]))
    assert not {3, 7, 11} & set(keys(by_weight(failures()), 9, state=state))
    order = hard(cap=10)(state, POOL).argsort(descending=True)
    assert (torch.tensor(rates)[order].diff() >= 0).all()  # monotone in 1 / success


def test_a_filter_keeps_what_is_sometimes_right_and_what_nobody_knows_yet():
    tracker = tracked([0.0, 0.3, 0.5, 0.7, 0.9, 1.0] * 2)
    tracker.seen[0] = 0
    state = state_at(tracker=tracker)
    assert solved(0.2, 0.8)(state, POOL).nonzero().squeeze(1).tolist() == [0, 1, 2, 3, 7, 8, 9]
    assert set(keys(by_weight(solved(0.2, 0.8), failures()), 7, state=state)) == {0, 1, 2, 3, 7, 8, 9}


def test_a_category_comes_with_the_probability_of_a_softmax_and_its_prompts_evenly():
    of = torch.tensor([0] * 2 + [1] * 4 + [2] * 6)
    bandit = Bandit(of)
    even = softmax_of()(state_at(bandit=bandit), POOL)
    assert torch.allclose(torch.zeros(3).index_add_(0, of, even), torch.full((3,), 1 / 3))
    bandit.value = torch.tensor([0.0, 1.0, 2.0])
    found = shares(by_weight(softmax_of(tau=0.5), repeated=True), state_at(bandit=bandit))
    wanted = (bandit.value / 0.5).softmax(0)
    assert torch.allclose(torch.zeros(3).index_add_(0, of, found), wanted, atol=0.02)
    assert float(found[6:].max() - found[6:].min()) < 0.04
    assert bool((even > 0).all())


# ------------------------------------------------------------------------------------ stages


def test_a_stage_asks_what_lies_in_its_bracket_and_hard_ones_of_before():
    ask = staged([4, 8, 12], [10, 20])  # tokens: one a byte
    for step, low, high in ((0, 0, 4), (9, 0, 4), (10, 4, 8), (19, 4, 8), (20, 8, 12), (99, 8, 12)):
        assert {key + 1 for key in keys(ask, 4, step)} == set(range(low + 1, high + 1))
    assert len(keys(ask, 7, 0)) == 7  # more than the bracket holds: some twice
    state = state_at(15, tracker=tracked([1.0, 0.0, 1.0, 0.5, *[0.0] * 8]))
    mixed = staged([4, 8, 12], [10, 20], share=0.5, again=hard())
    drawn = [key + 1 for n in range(300) for key in mixed(state, POOL, 4, Stream(n)).key.tolist()]
    old = [key for key in drawn if key <= 4]
    assert len(old) == 600
    assert max(drawn) <= 8
    assert max(set(old), key=old.count) == 2  # never answered rightly
    assert [key + 1 for key in keys(mixed, 4, state=state_at(0, tracker=state.tracker)) if key >= 4] == []


def test_the_size_of_a_prompt_is_its_tokens_or_what_one_says():
    assert lengths(POOL).tolist() == list(range(1, SIZE + 1))
    fixed = Fixed(AddCliff(), 20)
    assert torch.equal(lengths(fixed), fixed.pick(torch.arange(20)).mask.sum(1))
    rated = Questions([{"question": "x", "answer": "y", "d": n} for n in (3, 1, 2)], numeric, difficulty="d")
    assert keys(staged([2, 3], [5], size=lambda problem: problem.difficulty_of), 2, problem=rated) in ([1, 2], [2, 1])
    assert between(0, 2, lambda problem: problem.difficulty_of)(state_at(), rated).tolist() == [0, 1, 1]
    assert between(2, 4)(state_at(), POOL).nonzero().squeeze(1).tolist() == [2, 3]


# ------------------------------------------------------------------------------------ memories


def test_without_drift_a_tracker_is_the_mean_of_all_rewards_and_beyond_it_the_last():
    tracker, rewards = Tracker(3, prior=0.7), torch.tensor([1.0, 0.0, 0.5, 1.0])
    assert tracker.read().tolist() == pytest.approx([0.7] * 3)
    for n, reward in enumerate(rewards):
        tracker.write(torch.tensor([1]), reward[None])
        assert float(tracker.read()[1]) == pytest.approx(float(rewards[: n + 1].mean()))
    assert tracker.read()[0] == pytest.approx(0.7)
    assert tracker.seen.tolist() == [0, 4, 0]
    short = Tracker(1, halving=0.1, low=0.0)
    for reward in rewards:
        short.write(torch.tensor([0]), reward[None], torch.tensor([1e9]))
        assert float(short.read()[0]) == float(reward)


def test_a_tracker_forgets_as_stated_and_several_answers_forget_once():
    tracker = Tracker(2, prior=0.5, weight=8.0, halving=0.06, low=0.875, high=0.96)
    tracker.write(torch.tensor([0, 0, 1]), torch.tensor([1.0, 0.0, 1.0]), torch.tensor([0.06, 0.06, 0.0]))
    assert tracker.alpha.tolist() == pytest.approx([0.875 * 4 + 1, 0.96 * 4 + 1])  # 2^-1 and 2^0, clipped
    assert tracker.beta.tolist() == pytest.approx([0.875 * 4 + 1, 0.96 * 4])
    fine = Tracker(1, prior=0.5, weight=8.0, halving=0.06, low=0.5)
    fine.write(torch.tensor([0]), torch.tensor([1.0]), torch.tensor([0.03]))
    assert float(fine.alpha) == pytest.approx(4 * 2**-0.5 + 1)


def test_a_bandit_moves_what_was_drawn_and_a_category_without_gain_decays():
    bandit = Bandit(torch.tensor([0, 0, 1, 2]), rate=0.5)
    bandit.write(torch.tensor([0, 1, 2]), torch.tensor([1.0, 0.0, 4.0]))
    assert bandit.read().tolist() == [0.25, 2.0, 0.0]
    bandit.write(torch.tensor([2, 2]), torch.zeros(2))
    assert bandit.read().tolist() == [0.25, 1.0, 0.0]


# ------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: keys(epochs(), 2, problem=AddCliff()), r"from a known set, and AddCliff draws new ones .*Fixed"),
        (lambda: keys(by_weight(failures()), 2, state=state_at(tracker=tracked([0.5]))), "weights of prompts are 12 finite"),
        (lambda: keys(by_weight(lambda state, problem: torch.full((SIZE,), -1.0)), 2), r"none negative, not \[12\] in \[-1, -1\]"),
        (lambda: keys(by_weight(), 13), "13 different prompts are asked of a set of 12"),
        (lambda: choose(torch.zeros(3), 1, Stream(0), repeated=True), "a filter leaves none over"),
        (lambda: softmax_of(tau=0), "tau must be positive"), (lambda: solved(0.8, 0.2), "low <= high"),
        (lambda: hard(cap=0), "at least 1, not 0"), (lambda: staged([4, 4], [1]), "bounds must grow"),
        (lambda: staged([4, 8], []), "2 stages end before 1 steps"), (lambda: staged([4, 8], [0]), "2 stages end before 1 steps"),
        (lambda: staged([4], [], share=1.0), "share must lie"), (lambda: keys(staged([0.5], []), 1), "no prompt of stage 0"),
        (lambda: Tracker(1, prior=2), "one of these does not hold"), (lambda: Tracker(1, halving=0), "one of these does not hold"),
        (lambda: Tracker(1).write(torch.tensor([0]), torch.tensor([2.0])), r"rewards in \[0, 1\], .* not 2"),
        (lambda: Bandit(torch.tensor([0, 2])), "category 1 of 3 has no prompt"),
        (lambda: Bandit(torch.tensor([0]), rate=0), "rate"),
    ],
)  # fmt: skip
def test_bad_input_is_refused(make, said):
    with pytest.raises((ValueError, TypeError), match=said):
        make()


# ------------------------------------------------------------------------------------ in a system


def remember(state, batch):
    state.tracker.write(batch.key, batch.score)


def curriculum():
    """GRPO that asks what lies between never and always, by a tracker in State."""
    ask = by_weight(solved(0.05, 0.95), uncertain())
    system = grpo(prompts=4, group=4, lr=1e-3, kl=0.0, collect=partial(generate, ask=ask), after=remember)
    return holding(system, tracker=lambda state, problem, rng: Tracker(problem.size))


def shuffled():
    return grpo(prompts=5, group=2, lr=1e-3, kl=0.0, collect=partial(generate, ask=epochs()))


def pooled():
    return Fixed(AddCliff(warm=5), 12)


@pytest.mark.parametrize("make", [curriculum, shuffled])
def test_a_run_that_chooses_its_prompts_resumes_bitwise(make):
    assert "resume is bitwise in a fresh process" in check_system(make, pooled, half=2)
