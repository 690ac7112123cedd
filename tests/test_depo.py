"""DEPO: which prompts are kept, and which of these are asked."""

import math
from functools import partial

import pytest
import torch

from steepest.core import Stream, begin, train
from steepest.core.check import check_system
from steepest.credit import group_relative
from steepest.evidence.claim import Run
from steepest.evidence.reasoning.depo import claim
from steepest.memory.recent import Recent
from steepest.problems.fixed import Fixed
from steepest.problems.language import AddCliff
from steepest.selection.curation import explorability, greedy_dpp, most_explorable, normal_weight, pagerank
from steepest.systems.reasoning.depo import depo
from steepest.systems.reasoning.grpo import grpo

SIZES = {"prompts": 6, "group": 4, "lr": 1e-3, "draws": 2}
TASK = partial(Fixed, AddCliff(width=2, least=1, warm=60, tests=8), 40)


def kernel(size, rank, seed=0):
    x = torch.randn(size, rank, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x @ x.T


# ------------------------------------------------------------------------- central, and unlike one another


def test_pagerank_is_where_the_walk_rests():
    similar = kernel(9, 4)
    share = pagerank(similar)
    edges = similar.clamp(min=0).fill_diagonal_(0)
    walk = 0.15 / 9 + 0.85 * edges / edges.sum(1, keepdim=True)
    value, vectors = torch.linalg.eig(walk.T)
    rests = vectors[:, value.real.argmax()].real
    torch.testing.assert_close(share, rests / rests.sum(), atol=1e-8, rtol=1e-6)
    assert float(share.sum()) == pytest.approx(1)


def test_what_many_are_like_is_central_and_what_nothing_is_like_is_not():
    star = torch.eye(6)
    star[0, 1:5] = star[1:5, 0] = 1.0
    share = pagerank(star)
    assert share.argmax() == 0
    assert share.argmin() == 5


@pytest.mark.parametrize("seed", range(3))
def test_each_choice_is_the_one_that_makes_the_determinant_largest(seed):
    whole, taken = kernel(12, 12, seed), list[int]()
    for item in greedy_dpp(whole, 8).tolist():
        dets = {n: float(torch.det(whole[[*taken, n]][:, [*taken, n]])) for n in range(12) if n not in taken}
        assert item == max(dets, key=dets.get)
        taken.append(item)


def test_of_orthogonal_items_it_takes_the_heaviest():
    weight = torch.tensor([0.2, 0.9, 0.5, 0.7])
    assert greedy_dpp(torch.diag(weight), 3).tolist() == [1, 3, 2]


def test_no_copy_is_taken_before_all_else_is():
    x = torch.eye(5)
    vectors = torch.cat([2 * x, 1.9 * x[:2], 1.8 * x[:1]])
    found = greedy_dpp(vectors @ vectors.T, 8).tolist()
    assert sorted(found[:5]) == [0, 1, 2, 3, 4]
    assert sorted(found[5:7]) == [5, 6]  # what is left starts over
    assert found[7] == 7


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: greedy_dpp(torch.eye(3), 4), "4 items are asked of a kernel"),
        (lambda: greedy_dpp(torch.zeros(2, 3), 1), "it is square"),
        (lambda: greedy_dpp(torch.tensor([[1.0, 2.0], [2.0, 1.0]]), 1), "eigenvalue of -1, so it is not positive semidefinite"),
        (lambda: pagerank(torch.eye(2), damping=1.0), "damping must lie"),
        (lambda: normal_weight(torch.ones(2), spread=0.0), "spread must"),
        (lambda: Recent(3, 0), "at least one number"),
        (lambda: Recent(3, 1).write(torch.tensor([1, 1]), torch.ones(2)), "occurs twice"),
        (lambda: depo(keep=0.6), "keep <= diverse"), (lambda: depo(replay=0.0), "replay in"),
        (lambda: depo(draws=0), "draws of at least 1"),
        (lambda: depo(spread=-1.0), "spread must be positive"), (lambda: depo(group=1), "at least 2 answers"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_before_any_work(make, said):
    with pytest.raises(ValueError, match=said):
        make()


def test_a_kernel_that_rounding_made_indefinite_is_taken():
    whole = kernel(6, 2).float()
    assert sorted(greedy_dpp(whole, 6).tolist()) == list(range(6))


# ------------------------------------------------------------------------- something left to explore


def test_explorability_by_hand():
    advantage, entropy = torch.tensor([1.0, -1.0, -1.0, 2.0]), torch.tensor([0.4, 0.5, 0.7, 0.3])
    right, key = torch.tensor([True, False, False, True]), torch.tensor([3, 3, 3, 3])  # the bound is 1.5 (0.4 + 0.3) / 2 = 0.525
    torch.testing.assert_close(explorability(advantage, entropy, right, key), torch.tensor([0.4, 0.5, 0.0, 0.6]))


def test_groups_that_agree_have_nothing_to_explore():
    key, entropy = torch.tensor([0, 0, 1, 1]), torch.rand(4)
    for right in (torch.zeros(4).bool(), torch.ones(4).bool()):
        assert not explorability(group_relative(right.float(), key), entropy, right, key).any()


def test_a_bound_is_of_its_own_prompt():
    key, right = torch.tensor([0, 0, 1, 1]), torch.tensor([True, False, True, False])
    found = explorability(torch.ones(4), torch.tensor([1.0, 1.2, 0.1, 1.2]), right, key)
    assert (found > 0).tolist() == [True, True, True, False]


def test_who_is_asked():
    score = torch.tensor([0.1, 0.9, 0.0, 0.5, 0.7, 0.3, 0.2, 0.0, 0.4, 0.6])
    uses = torch.tensor([3, 3, 0, 3, 3, 1, 3, 3, 3, 2])
    assert most_explorable(score, uses, share=0.5, replay=0.1).tolist() == [1, 2, 3, 4, 5, 9]  # 2 is new, 5 seldom asked
    assert most_explorable(score, uses, share=1.0, replay=0.1).tolist() == list(range(10))
    assert most_explorable(score, torch.zeros(10), share=0.4, replay=0.1).tolist() == list(range(10))


@pytest.mark.parametrize("replay", [0.1, 0.25, 0.34])
def test_the_least_uses_grow_by_one_in_one_over_replay_epochs(replay):
    """Whatever the scores: here those of the same few stay highest."""
    score, uses, turn = torch.arange(12.0), torch.ones(12), math.ceil(1 / replay)
    for epoch in range(1, 8 * turn + 1):
        uses[most_explorable(score, uses, share=0.4, replay=replay)] += 1
        if epoch % turn == 0:
            assert int(uses.min()) >= 1 + epoch // turn


def test_the_last_few_numbers_of_each_key():
    memory = Recent(4, 3)
    for x in (1.0, 2.0, 4.0, 6.0):
        memory.write(torch.tensor([2, 0]), torch.tensor([x, 10 * x]))
    memory.write(torch.tensor([3]), torch.tensor([5.0]))
    assert memory.read(torch.arange(4)).tolist() == [40.0, 0.0, 4.0, 5.0]
    assert memory.uses.tolist() == [4, 0, 4, 1]


# ------------------------------------------------------------------------- the whole


def test_it_trains_on_a_fifth_that_is_neither_all_easy_nor_all_hard():
    state = begin(depo(keep=0.2, diverse=0.5, **SIZES), TASK())
    kept = state.chosen.prompt
    assert len(kept) == len(set(kept.tolist())) == 8
    assert int(kept.max()) < 40


def test_copies_of_a_prompt_are_left_out():
    """Half of the prompts are one and the same."""
    problem = TASK()
    drawn = problem.drawn
    drawn.ids[20:], drawn.key[20:] = drawn.ids[20:21].clone(), drawn.key[20:21].clone()
    kept = begin(depo(keep=0.5, diverse=0.5, **SIZES), problem).chosen.prompt
    assert int((kept >= 20).sum()) <= 1


def test_what_is_drawn_follows_the_accuracy():
    rate = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0])
    weight = normal_weight(rate, spread=0.25)
    torch.testing.assert_close(weight, torch.tensor([math.exp(-2), math.exp(-0.5), 1.0, math.exp(-0.5), math.exp(-2)]))


def test_an_epoch_asks_every_prompt_once_at_first_and_then_fewer():
    problem, system = TASK(), depo(keep=0.3, decay=0.6, replay=0.1, **SIZES)  # 12 prompts, 2 batches of 6
    counts, seen = [], None
    for record in train(system, problem, steps=6):
        counts.append(record.metrics["asked"])
        if record.step == 2:
            seen = record.state.explored.uses.clone()
            assert torch.equal(seen.nonzero().squeeze(1), record.state.chosen.prompt.sort().values)
            assert int(seen.max()) == 1
    assert counts == [6, 6, 3, 3, 3, 3]  # int(0.4 x 6) + ceil(0.1 x 6)
    assert float(record.state.explored.uses.sum()) == sum(counts)


def test_with_all_prompts_and_no_pruning_the_update_is_grpos():
    problem, system = TASK(), depo(keep=1.0, diverse=1.0, decay=0.0, **SIZES)
    plain = grpo(**{name: SIZES[name] for name in ("prompts", "group", "lr")})
    ours, theirs = begin(system, problem), begin(plain, problem)
    batch = system.collect(ours, problem, Stream(3))
    for found, state in ((system, ours), (plain, theirs)):
        found.learn(state, batch, Stream(4))
    for a, b in zip(ours.policy.parameters(), theirs.policy.parameters(), strict=True):
        assert torch.equal(a, b)


def test_prompts_without_end_are_refused():
    with pytest.raises(TypeError, match="prompts are chosen from a known set"):
        begin(depo(**SIZES), AddCliff(width=2, least=1, warm=60))


def test_the_claim_runs_at_a_smaller_size():
    problem = TASK()
    for arm in (claim.ours, claim.baseline):
        state = [*train(arm(prompts=4, group=4), problem, steps=1)][-1].state
        assert 0 <= claim.measure(Run(0, [], state, problem)) <= 1


def test_it_conforms():
    check_system(partial(depo, keep=0.3, **SIZES), TASK, half=1)
