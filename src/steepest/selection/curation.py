"""Which prompts are worth asking: central and unlike one another, neither too easy nor too hard, with something left to explore."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def pagerank(similarity: Tensor, *, damping: float = 0.85, rounds: int = 100) -> Tensor:
    """How central each of M items is in a graph whose edges weigh what they are alike [M, M]: the share of time that a walk along
    the edges spends there, when it begins anew with chance 1 - damping. [M], sums to 1. Page et al., 1999

    An item counts for nothing to itself, and neither do negative similarities.
    """
    if not 0 <= damping < 1:
        raise ValueError(f"damping must lie in [0, 1), not {damping}")
    edges = similarity.clamp(min=0).fill_diagonal_(0.0)  # in a copy
    out = edges.sum(1, keepdim=True)
    walk = torch.where(out > 0, edges / out.clamp(min=1e-12), 1 / len(edges))
    share = torch.full((len(edges),), 1 / len(edges), dtype=edges.dtype, device=edges.device)
    for _ in range(rounds):
        share = (1 - damping) / len(edges) + damping * share @ walk
    return share


def greedy_dpp(kernel: Tensor, count: int, *, jitter: float = 1e-6) -> Tensor:
    """The `count` items of a positive semidefinite kernel [M, M] that a greedy search for the largest determinant takes, in their
    order [count]. Chen et al., arXiv:1709.05135, algorithm 1

    What adds nothing to those taken (less than `jitter` of what it is worth alone) waits until all else is taken; then it starts
    over among what is left, as a kernel of rank R tells no more than R items apart.
    """
    size = len(kernel)
    if kernel.shape != (size, size) or not 0 < count <= size:
        raise ValueError(f"{count} items are asked of a kernel {list(kernel.shape)}: it is square, and has at least so many")
    exact = kernel.detach().double()
    lowest, scale = float(torch.linalg.eigvalsh(exact)[0]), float(exact.diagonal().max())
    if lowest < -jitter * max(scale, 1e-12) * size:
        raise ValueError(
            f"the kernel has an eigenvalue of {lowest:g}, so it is not positive semidefinite and measures no volume: "
            "take inner products of features, or similarities that are a kernel"
        )
    worth = exact.diagonal().clone()
    rest, rows, taken = worth.clone(), exact.new_zeros(0, size), list[int]()
    while len(taken) < count:
        new = rest > jitter * worth
        if len(rows) and not bool(new.any()):
            rest, rows = worth.clone(), exact.new_zeros(0, size)
            rest[taken] = -torch.inf
            continue
        best = int(rest.where(new, -torch.inf).argmax()) if bool(new.any()) else int(rest.argmax())
        row = (exact[best] - rows[:, best] @ rows) / rest[best].clamp(min=1e-300).sqrt()
        rows = torch.cat([rows, row[None]])
        rest = rest - row**2
        taken.append(best)
        rest[taken] = -torch.inf
    return torch.tensor(taken, device=kernel.device)


def normal_weight(rate: Tensor, *, mean: float = 0.5, spread: float = 0.25) -> Tensor:
    """The normal density's height at a success rate, 1 at the mean: what is always or never right weighs little. [P] -> [P]"""
    if not spread > 0:
        raise ValueError(f"spread must be positive, not {spread}")
    return (-0.5 * ((rate - mean) / spread) ** 2).exp()


def explorability(advantage: Tensor, entropy: Tensor, right: Tensor, key: Tensor, *, most: float = 1.5) -> Tensor:
    """|A| times the mean entropy of an answer's tokens, for each answer [N]; 0 for a wrong one that is less sure than `most` times
    the right ones to its prompt are on average, which is at a loss rather than exploring. arXiv:2509.01321

    advantage  [N], e.g. `group_relative`; entropy [N]; right [N] bool; key [N] long
    """
    _, group = key.unique(return_inverse=True)
    total, count = (entropy.new_zeros(int(group.max()) + 1) for _ in range(2))
    total.index_add_(0, group, entropy * right)
    count.index_add_(0, group, right.to(entropy))
    bound = most * (total / count.clamp(min=1))[group]
    return advantage.abs() * entropy * (right | (entropy <= bound))


def most_explorable(score: Tensor, uses: Tensor, *, share: float, replay: float) -> Tensor:
    """The places of the prompts of a batch that are asked, ascending: those never used, of the others the `share` with the highest
    score, and of what is left the `replay` of the batch that was used least. [P], [P] -> [K]"""
    fresh = uses == 0
    known = int((~fresh).sum())
    order = torch.where(fresh, torch.inf, score).argsort(descending=True, stable=True)
    first, rest = order.split([int(fresh.sum()) + int(share * known), known - int(share * known)])
    least = rest[uses[rest].argsort(stable=True)][: math.ceil(replay * len(score))]
    return torch.cat([first, least]).sort().values
