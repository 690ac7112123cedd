"""One answer out of many to the same prompt: the best scored, or the one that most of them give. Pure: columns [N] -> rows [P]."""

from __future__ import annotations

import torch
from torch import Tensor


def best_of_n(score: Tensor, key: Tensor) -> Tensor:
    """The row with the highest score [N] of each prompt, in the order of the keys [N]. Of equal scores, the first.

    With what verifies the answers for a score it is right as often as one of N is (pass@N).
    """
    refuse_scores(score, key)
    order = score.argsort(descending=True, stable=True)
    return order[firsts(key[order])]


def majority(kind: Tensor, key: Tensor) -> Tensor:
    """The first row of the answer that is given most often to each prompt, in the order of the keys [N]. Of answers given equally
    often, the one that came first. arXiv:2203.11171

    kind  [N] long: to one prompt, equal numbers are the same answer
    """
    return weighted_majority(kind, key, torch.ones(len(key), device=key.device))


def weighted_majority(kind: Tensor, key: Tensor, score: Tensor) -> Tensor:
    """As `majority`, each row voting with its score [N] instead of 1: argmax over answers a of sum_i score_i 1[a_i = a].
    arXiv:2206.02336

    Raises ValueError for a negative score: it would be a vote against.
    """
    refuse_scores(score, key, least=0.0)
    if kind.shape != key.shape:
        raise ValueError(f"kind must be one number for each of {len(key)} answers, not a tensor of shape {list(kind.shape)}")
    answer = torch.stack([key, kind], 1).unique(dim=0, return_inverse=True)[1]
    votes = torch.zeros(len(key), dtype=torch.float64, device=key.device).index_add_(0, answer, score.double())
    return best_of_n(votes[answer], key)


def firsts(key: Tensor) -> Tensor:
    """The place of the first row of each key, in the order of the keys: [N] -> [P]"""
    known, index = key.unique(return_inverse=True)
    place = torch.arange(len(key), device=key.device)
    return torch.full_like(known, len(key), dtype=torch.long).scatter_reduce(0, index, place, "amin")


def refuse_scores(score: Tensor, key: Tensor, least: float = -torch.inf) -> None:
    """Raises ValueError unless there is a finite score of at least `least` for each answer."""
    if score.shape != key.shape or key.ndim != 1 or not len(key):
        shapes = f"{list(score.shape)} and {list(key.shape)}"
        raise ValueError(f"score and key must be one number for each answer, not of shapes {shapes}")
    bad = ~torch.isfinite(score) | (score < least)
    if bool(bad.any()):
        n, bound = int(bad.nonzero()[0]), "finite" if least == -torch.inf else f"finite and at least {least:g}"
        raise ValueError(f"score[{n}] is {float(score[n])}: the score of an answer must be {bound}")
