"""MCTS-DPO: a tree search says which of several next steps is best and which is worst; DPO learns from these pairs of steps.

Paper.  Xie et al., Monte Carlo Tree Search Boosts Reasoning via Iterative Preference Learning, 2024. arXiv 2405.00451.
Claim.  Preferences between steps, searched with the policy of the moment, teach more than preferences between whole answers.
Idea.   DPO on (best child, worst child) by Q at every step of the path that is taken; Q = v - v_parent + mean Q of the children
State.  as dpo
Note.   The value of a step is the share of right ones among the finished answers that the policy drew from there: the authors ask
        an instructed model whether the step is right, and mix in the verdict at the end. Answers are finished in any case, so an
        iteration grows one node, where theirs (YuxiXie/MCTS-DPO, mcts.py) goes down until an answer ends. A pair whose label is
        doubted by e is two pairs, of weight 1 - e and, turned round, e: the loss is conservative DPO's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from ...collectors.experience import positive
from ...collectors.pairs import moved
from ...collectors.tree import Node, Tree, gain, outcome, puct, step_pairs
from ...core.pairs import Pairs
from ...core.state import State
from ...core.stream import Stream
from ...core.system import System, extends
from ..preferences.dpo import dpo


@dataclass(frozen=True)
class Searched:
    """What a step found: pairs, if there were any, and numbers to report."""

    pairs: Pairs | None
    info: dict[str, float]


def next_root(node: Node) -> Node:
    """The child that was visited most, each visit counting 1 + the variance of Q among its own children; then by Q."""

    def merit(child: Node) -> tuple[float, float]:
        worth = torch.tensor([below.worth for below in child.children], dtype=torch.float64)
        return child.visits * (1 + float(worth.var(correction=0)) if len(worth) else 1.0), child.worth

    return max(node.children, key=merit)


def best_and_worst(node: Node) -> tuple[Node, Node] | None:
    """Of the children, the one with the greatest Q and the one with the least; None where these are equal."""
    best, worst = max(node.children, key=lambda c: c.worth), min(node.children, key=lambda c: c.worth)
    return (best, worst) if best.worth > worst.worth else None  # <- the idea


@extends(dpo, without=("count",))
def mcts_dpo(
    *, prompts: int = 64, breadth: int = 8, depth: int = 5, rounds: int = 10, first: int = 4, explore: float = 1.0,
    length_power: float = 1.25, **options: Any,
) -> System:  # fmt: skip
    """DPO from the step preferences of a Monte Carlo tree search; for a problem that tells ``steps(prompts, tokens, mask)``.

    prompts       prompts a step, each with a tree of its own
    breadth       answers drawn to grow a node, of which each gives its first step (authors' code: 8 children at most)
    depth         steps below the root of a search behind which nothing grows (authors' code: 5)
    rounds        iterations of the search before each step of the path (authors' code: 10)
    first         times as many before the first (authors' code: 4)
    explore       weight of the prior in the choice of a child (authors' code: 1)
    length_power  a step's log-probability is divided by its tokens to this power (authors' code: 1.25)
    """
    positive(prompts=prompts, breadth=breadth, depth=depth, rounds=rounds, first=first)
    if explore < 0:
        raise ValueError(f"explore must not be negative, not {explore}")
    parent = dpo(**options)
    choose = partial(puct, weight=explore, power=length_power)

    def collect(state: State, problem: Any, rng: Stream) -> Searched:
        asked = problem.prompts(prompts, (rng / "prompts").torch())
        tree = Tree(state, problem, asked, breadth=breadth, judge=outcome, choose=choose, backup=gain)
        roots, better, worse, ends = tree.roots, list[Node](), list[Node](), list[Node]()
        while roots:
            move = roots[0].depth
            tree.search(roots, rng / "search" / move, rounds=rounds if move else first * rounds, depth=depth)
            for best, worst in filter(None, map(best_and_worst, roots)):
                better, worse = [*better, best], [*worse, worst]
            roots = [next_root(root) for root in roots]
            ends += [root for root in roots if root.done]
            roots = [root for root in roots if not root.done]
        told = {"score": tree.right / tree.answers, "searched": sum(node.value for node in ends) / prompts}
        told |= {"answers": float(tree.answers)}
        if not better:
            return Searched(None, told)
        won, lost = (torch.tensor([max(1.0, node.visits) for node in side]) for side in (better, worse))
        return Searched(moved(step_pairs(asked, better, worse, lost / (won + lost)), state.device), told)

    def learn(state: State, batch: Searched, rng: Stream) -> dict[str, Any]:
        return batch.info | ({"pairs": 0, "skipped": 1.0} if batch.pairs is None else parent.learn(state, batch.pairs, rng))

    return replace(parent, collect=collect, learn=learn)
