"""Search under a judge, difficulty bins, and the choice of a strategy for each."""

from functools import partial

import pytest
import torch

from steepest.collectors.beams import searched
from steepest.core import Stream, begin, train
from steepest.core.check import check_system
from steepest.problems.language import ChainSum
from steepest.problems.symbolic import pass_at_k
from steepest.selection.strategies import best_in_bin, difficulty, halves
from steepest.selection.voting import best_of_n
from steepest.systems.reasoning.compute_optimal_tts import compute_optimal_tts

CHAINS = partial(ChainSum, width=3, warm=120, tests=8)
SIZES = {"budget": 4, "branch": 2, "fit": 2, "prompts": 6, "group": 2, "probes": 2}


def truth(state, batch):
    """A judge that knows which steps are right."""
    return batch.extra["right"].sum(1)


def asked(problem, count=12):
    return problem.prompts(count, torch.Generator().manual_seed(4))


@pytest.fixture(scope="module")
def state():
    return begin(compute_optimal_tts(**SIZES), CHAINS(), seed=3)


def test_one_answer_is_the_same_whatever_the_strategy(state):
    problem = CHAINS()
    one, other = (searched(state, problem, asked(problem), Stream(1), judge=truth) for _ in range(2))
    assert torch.equal(one.action, other.action)
    system = compute_optimal_tts(**{**SIZES, "budget": 1, "branch": 4})
    made = begin(system, problem, seed=3)
    made.step = 2
    right = system.collect(made, problem, Stream(2))["right"]
    assert torch.equal(right[:, 0], right[:, 1])
    assert torch.equal(right[:, 0], right[:, 2])


@pytest.mark.parametrize("plan", [{"trees": 4}, {"keep": 2, "branch": 2}, {"trees": 2, "branch": 2}, {"branch": 4}])
def test_every_plan_gives_its_number_of_whole_answers(state, plan):
    problem = CHAINS()
    found = searched(state, problem, asked(problem), Stream(1), judge=truth, **plan)
    assert len(found) == 48
    prompts = asked(problem)
    assert torch.equal(found.key, prompts.key.repeat_interleave(4))
    last = found.action.gather(1, found.length.long()[:, None] - 1).squeeze(1)
    assert ((last == 1) | (found.length == problem.max_new)).all()
    assert found.info["written"] > 0


def test_beams_of_one_tree_that_keep_one_are_dvts_of_one_tree(state):
    problem = CHAINS()
    beam = searched(state, problem, asked(problem), Stream(1), judge=truth, keep=1, branch=4)
    tree = searched(state, problem, asked(problem), Stream(1), judge=truth, trees=1, branch=4)
    assert torch.equal(beam.action, tree.action)


def test_a_judge_decides_which_beginnings_go_on(state):
    problem = CHAINS()
    chain = problem.symbol("chain")

    def slow(state, batch):
        return (batch.action[:, 0] == chain).float()

    def fast(state, batch):
        return 1 - slow(state, batch)

    shares = [
        float((searched(state, problem, asked(problem), Stream(1), judge=judge, branch=8).action[:, 0] == chain).float().mean())
        for judge in (slow, fast)
    ]
    assert shares[0] > 0.8
    assert shares[1] < 0.2


def test_best_of_n_with_a_judge_that_knows_is_pass_at_n(state):
    problem = CHAINS()
    found = searched(state, problem, asked(problem), Stream(1), judge=truth, trees=4)
    rows = torch.arange(12).repeat_interleave(4)
    hits = found.score.view(12, 4).sum(1).long()
    assert torch.equal(found.score[best_of_n(found.score, rows)], pass_at_k(4, hits, 4))


def test_bins_are_absolute():
    assert difficulty(torch.tensor([1.0, 0.5, 0.49, 0.1, 0.09, 0.0])).tolist() == [0, 0, 1, 1, 2, 2]
    with pytest.raises(ValueError, match=r"rate\[1\]"):
        difficulty(torch.tensor([0.5, 1.5]))
    with pytest.raises(ValueError, match="hard <= easy"):
        difficulty(torch.tensor([0.5]), easy=0.1, hard=0.5)


def test_what_is_chosen_is_at_least_as_good_as_any_one_strategy_where_it_was_chosen():
    g = torch.Generator().manual_seed(0)
    right, bins = (torch.rand(300, 3, generator=g) < 0.4).float(), torch.randint(3, (300,), generator=g)
    table = torch.stack([right[bins == b].sum(0) for b in range(3)])
    count = torch.stack([torch.full((3,), float((bins == b).sum())) for b in range(3)])
    chosen = right.gather(1, best_in_bin(table, count)[bins][:, None]).mean()
    assert (chosen >= right.mean(0)).all()
    count[1], table[1] = 0, 0
    assert int(best_in_bin(table, count)[1]) == int((table.sum(0) / count.sum(0)).argmax())


def test_no_prompt_is_in_both_halves_and_both_are_large():
    key = torch.arange(20_000)
    assert torch.equal(halves(key), halves(key.flip(0)).flip(0))
    assert float(halves(key).float().mean()) == pytest.approx(0.5, abs=0.05)


def test_the_policy_stays_and_the_tally_counts_the_first_half_alone():
    problem, system = CHAINS(), compute_optimal_tts(**SIZES)
    state = begin(system, problem, seed=0)
    before = [p.clone() for p in state.policy.parameters()]
    told = [record.metrics for record in train(system, problem, steps=4, state=state)]
    assert all(map(torch.equal, before, state.policy.parameters()))
    assert "verifier_loss" in told[1]
    assert {"best of n tokens", "DVTS tokens"} <= told[3].keys()
    asked_of = state.tally.asked.view(3, 3)
    assert (asked_of[:, 0] == asked_of[:, 1]).all()
    assert float(asked_of[:, 0].sum()) < 12


@pytest.mark.parametrize(("options", "match"), [({"budget": 6, "branch": 4}, "multiple of branch"), ({"fit": 0}, "at least 1")])
def test_bad_options_are_refused(options, match):
    with pytest.raises(ValueError, match=match):
        compute_optimal_tts(**options)


def test_it_conforms():
    assert "resume is bitwise in a fresh process" in check_system(partial(compute_optimal_tts, **SIZES), partial(CHAINS, warm=5))
