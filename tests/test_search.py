"""Choosing among many answers, searching for one, and what is learned from the search."""

import math

import pytest
import torch

from steepest.core import Stream
from steepest.problems.symbolic import pass_at_k
from steepest.selection.voting import best_of_n, majority, weighted_majority

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
    assert best_of_n(score, key).tolist() == best
    assert weighted_majority(kind, key, score).tolist() == voted
    assert majority(kind, key).tolist() == by_hand(key, kind, torch.ones(60))[1]


def test_equal_scores_vote_as_a_majority():
    key, kind, _ = columns()
    assert torch.equal(weighted_majority(kind, key, torch.full((60,), 0.3)), majority(kind, key))


def test_ties_go_to_what_came_first():
    key, kind = torch.tensor([5, 5, 5, 5, 2]), torch.tensor([9, 1, 1, 9, 0])
    assert majority(kind, key).tolist() == [4, 0]
    assert best_of_n(torch.tensor([0.0, 1.0, 1.0, 0.5, -1.0]), key).tolist() == [4, 1]


def test_the_best_by_the_true_verdict_is_right_as_often_as_pass_at_n():
    right = (torch.rand(200, 4, generator=Stream(1).torch()) < 0.3).float()
    key = torch.arange(200).repeat_interleave(4)
    chosen = right.flatten()[best_of_n(right.flatten(), key)]
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
        (lambda: best_of_n(torch.tensor([0.0, math.nan]), torch.tensor([0, 0])), r"score\[1\] is nan"),
        (lambda: best_of_n(torch.zeros(3), torch.zeros(2)), "one number for each answer, not of shapes \\[3\\] and \\[2\\]"),
        (
            lambda: weighted_majority(torch.zeros(2).long(), torch.zeros(2).long(), torch.tensor([1.0, -0.5])),
            r"score\[1\] is -0.5: the score of an answer must be finite and at least 0",
        ),
        (lambda: majority(torch.zeros(3).long(), torch.zeros(2).long()), "kind must be one number for each of 2 answers"),
    ],
)
def test_what_cannot_be_chosen_from_is_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
