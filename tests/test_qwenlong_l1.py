"""QwenLong-L1: stages of growing input, and the hard prompts of earlier ones."""

from functools import partial

import pytest
import torch

from steepest.core import Stream, begin, train
from steepest.core.check import check_system
from steepest.evidence.reasoning import qwenlong_l1 as evidence
from steepest.problems.fixed import Fixed
from steepest.problems.language import AddCliff
from steepest.systems.reasoning.dapo import dapo
from steepest.systems.reasoning.qwenlong_l1 import qwenlong_l1
from steepest.systems.reasoning.sft import sft

SIZES = {"prompts": 8, "group": 4, "minibatches": 1, "lr": 1e-3, "rounds": 2}
TASK = partial(Fixed, AddCliff(width=3, least=1, warm=60, tests=8), 48)


def digits(problem):
    """How many digits each number of a prompt has [size]."""
    return problem.category_of + 1


STAGED = partial(qwenlong_l1, bounds=(1, 2, 3), ends=(1, 3), size=digits, **SIZES)


def asked(batch, problem):
    return digits(problem)[batch.key]


def at(system, step, problem, rates=None):
    state = begin(system, problem)
    state.step = step
    if rates is not None:
        state.tracker.alpha, state.tracker.beta = rates * 10, (1 - rates) * 10
    return state


@pytest.mark.parametrize(("step", "length"), [(0, 1), (1, 2), (2, 2), (3, 3), (9, 3)])
def test_a_stage_asks_its_own_lengths_alone(step, length):
    problem, system = TASK(), STAGED(share=0.0)
    batch = system.collect(at(system, step, problem), problem, Stream(1))
    assert asked(batch, problem).unique().tolist() == [length]


def test_but_for_a_share_of_earlier_ones():
    problem, system = TASK(), STAGED(share=0.5, rounds=1)
    length = asked(system.collect(at(system, 3, problem), problem, Stream(1)), problem)
    assert int((length == 3).sum()) == len(length) // 2
    assert int((length < 3).sum()) == len(length) // 2
    assert asked(system.collect(at(system, 0, problem), problem, Stream(1)), problem).unique().tolist() == [1]


def test_of_earlier_prompts_the_hard_ones_are_asked_most():
    """In proportion to 1 / mean reward, capped where it is 0: of three prompts with 0, 1/4 and 1 as 10 : 4 : 1."""
    problem = TASK()
    early = (digits(problem) == 1).nonzero().squeeze(1)
    rates = torch.full((problem.size,), 1.0)
    rates[early[0]], rates[early[1]] = 0.0, 0.25
    system = STAGED(share=1 / 8, rounds=1, cap=10.0)
    state, found = at(system, 1, problem, rates), torch.zeros(problem.size)
    weights = 10 + 4 + (len(early) - 2)
    draws = 300
    for n in range(draws):
        state.tracker.alpha, state.tracker.beta = rates * 10, (1 - rates) * 10
        batch = system.collect(state, problem, Stream(n))
        found += torch.zeros(problem.size).index_fill_(0, batch.key[asked(batch, problem) == 1], 1.0)
    assert float(found[early].sum()) == draws
    for prompt, weight in ((early[0], 10), (early[1], 4), (early[2], 1)):
        share = weight / weights
        assert abs(float(found[prompt]) / draws - share) < 4 * (share * (1 - share) / draws) ** 0.5


def test_what_dynamic_sampling_drops_is_remembered_too():
    problem, system = TASK(), STAGED(share=0.0, rounds=3)
    state = begin(system, problem)
    batch = system.collect(state, problem, Stream(2))
    assert float(state.tracker.seen.sum()) == SIZES["prompts"] * SIZES["group"] * batch.info["rounds"]
    assert float(state.tracker.seen.sum()) > len(batch)


def test_one_stage_of_all_lengths_is_dapo_on_evenly_drawn_prompts():
    problem = TASK()
    system = qwenlong_l1(bounds=(3,), ends=(), size=digits, **SIZES)
    plain = dapo(**{name: x for name, x in SIZES.items() if name != "rounds"})
    ours, theirs = begin(system, problem), begin(plain, problem)
    batch = system.collect(ours, problem, Stream(3))
    for found, state in ((system, ours), (plain, theirs)):
        found.learn(state, batch, Stream(4))
    for a, b in zip(ours.policy.parameters(), theirs.policy.parameters(), strict=True):
        assert torch.equal(a, b)


def test_stages_begin_behind_imitation():
    problem, system = TASK(), STAGED(imitate=2, traces=8, imitate_lr=2e-3, share=0.0)
    *_, last = train(system, problem, steps=2)
    *_, plain = train(sft(prompts=8, lr=2e-3), problem, steps=2)
    for a, b in zip(last.state.policy.parameters(), plain.state.policy.parameters(), strict=True):
        assert torch.equal(a, b)
    assert not last.state.tracker.seen.any()
    for step, length in ((2, 1), (3, 2), (5, 3)):
        batch = system.collect(at(system, step, problem), problem, Stream(1))
        assert asked(batch, problem).unique().tolist() == [length]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"bounds": (3, 2), "ends": (1,)}, "bounds must grow"), ({"bounds": (2, 2), "ends": (1,)}, "bounds must grow"),
        ({"bounds": (1, 2), "ends": ()}, "2 stages end before 1 steps"),
        ({"ends": (3, 1)}, "3 stages end before 2 steps that grow"),
        ({"share": 1.0}, "share must lie in"), ({"cap": 0.5}, "never answered rightly, at least 1"),
        ({"rounds": 0}, "rounds must be at least 1"), ({"imitate": -1, "ends": (5, 7)}, "at least 0 steps"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_before_any_work(options, said):
    with pytest.raises(ValueError, match=said):
        STAGED(**options)


def test_a_stage_without_prompts_is_refused():
    problem, system = TASK(), qwenlong_l1(bounds=(0.5, 3), ends=(1,), size=digits, **SIZES)
    with pytest.raises(ValueError, match="no prompt of stage 0"):
        system.collect(begin(system, problem), problem, Stream(0))


def test_prompts_without_end_are_refused():
    with pytest.raises(TypeError, match="prompts are chosen from a known set"):
        begin(STAGED(), AddCliff(width=3, least=1, warm=60))


def test_the_stages_of_the_claim_are_those_of_its_problem():
    found = evidence.digits(evidence.claim.problem())
    assert tuple(found.unique().tolist()) == evidence.claim.ours.keywords["bounds"]
    assert evidence.claim.baseline.keywords["bounds"] == evidence.claim.ours.keywords["bounds"][1:]


def test_it_conforms():
    check_system(partial(qwenlong_l1, bounds=(1, 3), ends=(1,), size=digits, imitate=1, traces=4, **SIZES), TASK, half=2)
