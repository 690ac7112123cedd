"""Choosing among many answers, searching for one, and what is learned from the search."""

import math
from functools import partial

import pytest
import torch

from steepest.core import Stream, begin, train
from steepest.core.check import check_system
from steepest.evidence.claim import Run
from steepest.evidence.reasoning.best_of_n import claim as best_of_n_claim
from steepest.problems.language import ChainSum
from steepest.problems.symbolic import pass_at_k
from steepest.selection import voting
from steepest.selection.voting import majority, weighted_majority
from steepest.systems.reasoning.best_of_n import best_of_n, by_likelihood

CHAINS = partial(ChainSum, width=4, warm=25, tests=8)

# ------------------------------------------------------------------------------------------- one answer out of many


def columns(count=60, prompts=7, kinds=3, seed=0):
    """key, kind and score of answers in any order."""
    g = Stream(seed).torch()
    key = 100 * torch.cat([torch.arange(prompts), torch.randint(prompts, (count - prompts,), generator=g)])
    return key, torch.randint(kinds, (count,), generator=g), torch.randint(4, (count,), generator=g) / 4


def by_hand(key, kind, score):
    """The plain loops: of each prompt the best row and the row of the greatest vote."""
    best, voted = [], []
    for one in sorted(set(key.tolist())):
        rows = [n for n in range(len(key)) if key[n] == one]
        best.append(max(rows, key=lambda n: (float(score[n]), -n)))
        votes = {}
        for n in rows:
            votes[int(kind[n])] = votes.get(int(kind[n]), 0.0) + float(score[n])
        winner = max(votes, key=votes.get)  # of equal votes the first that was said
        voted.append(next(n for n in rows if kind[n] == winner))
    return best, voted


@pytest.mark.parametrize("seed", range(5))
def test_choices_are_those_of_plain_loops(seed):
    key, kind, score = columns(seed=seed)
    best, voted = by_hand(key, kind, score)
    assert voting.best_of_n(score, key).tolist() == best
    assert weighted_majority(kind, key, score).tolist() == voted
    assert majority(kind, key).tolist() == by_hand(key, kind, torch.ones(60))[1]


def test_equal_scores_vote_as_a_majority():
    key, kind, _ = columns()
    assert torch.equal(weighted_majority(kind, key, torch.full((60,), 0.3)), majority(kind, key))


def test_ties_go_to_what_came_first():
    key, kind = torch.tensor([5, 5, 5, 5, 2]), torch.tensor([9, 1, 1, 9, 0])
    assert majority(kind, key).tolist() == [4, 0]
    assert voting.best_of_n(torch.tensor([0.0, 1.0, 1.0, 0.5, -1.0]), key).tolist() == [4, 1]


def test_the_best_by_the_true_verdict_is_right_as_often_as_pass_at_n():
    right = (torch.rand(200, 4, generator=Stream(1).torch()) < 0.3).float()
    key = torch.arange(200).repeat_interleave(4)
    chosen = right.flatten()[voting.best_of_n(right.flatten(), key)]
    assert torch.equal(chosen, pass_at_k(4, right.sum(1).long(), 4))


def test_pass_at_1_is_the_mean_and_more_tries_never_hurt():
    right = torch.arange(9)
    passed = torch.stack([pass_at_k(8, right, k) for k in range(1, 9)])
    assert torch.allclose(passed[0], right / 8)
    assert bool((passed.diff(dim=0) >= -1e-6).all())


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: pass_at_k(4, torch.tensor([1]), 5), "k must lie between 1 and the 4 answers tried, not at 5"),
        (lambda: pass_at_k(4, torch.tensor([0, 5]), 2), "of 4 answers between 0 and 4 are right, not 0 to 5"),
        (lambda: voting.best_of_n(torch.tensor([0.0, math.nan]), torch.tensor([0, 0])), r"score\[1\] is nan"),
        (lambda: voting.best_of_n(torch.zeros(3), torch.zeros(2)), "one number for each answer, not of shapes \\[3\\] and \\[2\\]"),
        (
            lambda: weighted_majority(torch.zeros(2).long(), torch.zeros(2).long(), torch.tensor([1.0, -0.5])),
            r"score\[1\] is -0.5: the score of an answer must be finite and at least 0",
        ),
        (lambda: best_of_n(count=0), "count must be at least 1, not 0"),
        (lambda: majority(torch.zeros(3).long(), torch.zeros(2).long()), "kind must be one number for each of 2 answers"),
    ],
)
def test_what_cannot_be_chosen_from_is_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_the_choosing_policy_says_what_the_vote_over_its_own_samples_says():
    problem = CHAINS()
    state = begin(best_of_n(count=6, temperature=1.0), problem)
    prompts = problem.prompts(12, Stream(3).torch())
    obs = {"ids": prompts.ids, "mask": prompts.mask}
    tokens, mask = state.policy.act(obs, Stream(4).torch())
    many = {name: x.repeat_interleave(6, 0) for name, x in obs.items()}
    said, made, logp = state.policy.inner.sample(many, Stream(4).torch())
    kind = problem.kinds(None, said, made)
    rows = majority(kind, torch.arange(12).repeat_interleave(6))
    assert torch.equal(tokens, said[rows])
    assert torch.equal(mask, made[rows])
    assert any(kind[6 * n] != kind[rows[n]] for n in range(12))  # or the vote would change nothing
    likely = begin(best_of_n(count=6, temperature=1.0, choose=by_likelihood), problem).policy.act(obs, Stream(4).torch())[0]
    best = ((logp * made).sum(1) / made.sum(1)).view(12, 6).argmax(1) + 6 * torch.arange(12)
    assert torch.equal(likely, said[best])
    greedy = state.policy.inner.act(obs, Stream(5).torch(), True)[0]
    assert torch.equal(state.policy.act(obs, Stream(4).torch(), greedy=True)[0], greedy)


def test_best_of_n_reports_what_one_and_all_samples_reach_and_moves_nothing():
    problem = CHAINS()
    system = best_of_n(count=6, prompts=9, temperature=1.0)
    state = begin(system, problem)
    before = [p.clone() for p in state.parameters()]
    batch = system.collect(state, problem, Stream(7))
    told = system.learn(state, batch, Stream(8))
    score = batch.score.view(9, 6)
    assert told["pass@1"] == pytest.approx(told["score"]) == pytest.approx(float(score.mean()))
    assert told["pass@6"] == pytest.approx(float(score.amax(1).mean()))
    rows = majority(batch.info["kind"], torch.arange(9).repeat_interleave(6))
    assert told["chosen"] == pytest.approx(float(batch.score[rows].mean()))
    assert all(torch.equal(a, b) for a, b in zip(before, state.parameters(), strict=True))


def test_best_of_n_conforms_in_a_fresh_process():
    assert check_system(partial(best_of_n, count=3, prompts=2), partial(ChainSum, width=2, warm=2, tests=2), half=1)


def test_the_claim_of_best_of_n_runs_at_a_smaller_size():
    for arm in (best_of_n_claim.ours, best_of_n_claim.baseline):
        (record,) = train(arm(prompts=2), best_of_n_claim.problem(width=2, warm=2, tests=4), steps=1)
        run = Run(0, [record.metrics], record.state, best_of_n_claim.problem(width=2, warm=2, tests=4))
        assert 0 <= best_of_n_claim.measure(run) <= 1
        assert best_of_n_claim.figure in record.metrics
