"""ReST-MCTS*: a search led by a value of steps finds right answers, which teach the policy; its trees teach the value.

Paper.  Zhang et al., ReST-MCTS*: LLM Self-Training via Process Reward Guided Tree Search, 2024. arXiv 2406.03816.
Claim.  A policy that imitates what the search found becomes better than one that imitates its own right answers (ReST-EM).
Idea.   v_k = v_{k-1} + (1 - v_{k-1}) / (m_k + 1) * (1 - 2 err_k), v_0 = 0; m_k the fewest further steps to a right answer
State.  as sft; a verifier of steps (`verifier`) and its Adam
Note.   Policy and value learn in every step, from a value that knows nothing; the paper goes by rounds and pretrains it. Every
        step that is drawn comes from a finished answer; these are the rollouts, count as seen in the tree and are what is
        imitated. A wrong step takes the m of the last one before it from which a right answer was seen, and a tree without any
        teaches nothing (THUDM/ReST-MCTS, MCTS/base.py). The value is a logistic function, so in [0, 1].
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ...collectors.experience import positive
from ...collectors.tree import Node, Tree, answered, labelled, mean_worth, preferred, ucb
from ...core import Batch, State, Stream, System, extends
from ...engines.verifying import StepObjective
from ...models.verifier import StepVerifier
from ...optimize.epochs import Epochs
from .sft import sft


@dataclass(frozen=True)
class Grown:
    """What a step's trees hold: right answers and valued steps, if there are any, and numbers to report."""

    answers: Batch | None
    steps: Batch | None
    info: dict[str, float]


def judged(state: State, batch: Batch) -> Tensor:
    """What the verifier says of each prefix."""
    return state.verifier.score(batch.obs, batch.action, batch.mask)


def near(node: Node, right: float) -> float:
    """Steps to the nearest right answer that was seen from here; inf where none was."""
    seen = (ending.further for ending in node.endings if ending.score >= right)
    return min(min(seen, default=math.inf), min((1 + near(child, right) for child in node.children), default=math.inf))


def valued(root: Node, right: float) -> list[tuple[Node, float]]:
    """The steps of a tree and their values; none where no right answer was seen."""
    if near(root, right) == math.inf:
        return []
    found, below = list[tuple[Node, float]](), [(child, 0.0, near(root, right)) for child in root.children]
    for node, before, last in below:
        m = near(node, right)
        err = m == math.inf
        m = last if err else m
        value = min(1.0, max(0.0, before + (1 - before) / (m + 1) * (1 - 2 * err)))  # <- the idea
        found.append((node, value))
        below += [(child, value, m) for child in node.children]
    return found


def rolled(node: Node, *, choose: Any, share: float, ahead: int) -> None:
    """The child that is chosen first goes on for some steps, and the best value on that way counts."""
    child = preferred(node, choose)
    child.visits += 1
    if child.ahead:
        child.worth = (1 - share) * child.worth + share * max(child.ahead[:ahead])


@extends(sft, without=("collect", "select", "prompts"))
def rest_mcts(
    *, prompts: int = 16, breadth: int = 3, rounds: int = 50, depth: int = 16, explore: float = 0.7, share: float = 0.5,
    ahead: int = 3, cap: int = 4, right: float = 1.0, verifier_lr: float = 1e-4, **options: Any,
) -> System:  # fmt: skip
    """Self-training on what a tree search led by a learned value finds; for a problem that tells ``steps(prompts, tokens, mask)``.

    prompts      prompts a step, each with a tree of its own
    breadth      answers drawn to grow a node, of which each gives its first step (authors' code: 3)
    rounds       iterations of a search
    depth        steps of an answer behind which nothing grows
    explore      weight of what was visited little in the choice of a child (authors' code: 0.7)
    share        of the best value ahead in a child that was rolled out (authors' code: 0.5)
    ahead        steps of a rollout (authors' code: 3)
    cap          different right answers to a prompt that are imitated, those whose steps are worth most
    right        an answer with at least this score is right
    verifier_lr  learning rate of the verifier's Adam
    """
    positive(prompts=prompts, breadth=breadth, rounds=rounds, depth=depth, ahead=ahead, cap=cap)
    if not 0 <= share <= 1 or explore < 0 or not verifier_lr > 0:
        raise ValueError(f"needs share in [0, 1], explore >= 0 and verifier_lr > 0, not {share}, {explore} and {verifier_lr}")
    parent, teach, choose = sft(**options), Epochs(optimizer="verifier"), partial(ucb, weight=explore)
    arrive = partial(rolled, choose=choose, share=share, ahead=ahead)

    def init(problem: Any, rng: Stream) -> State:
        state = parent.init(problem, rng)
        state.verifier = StepVerifier(state.policy, rng / "verifier")
        state.optimizers["verifier"] = torch.optim.Adam(state.verifier.parameters(), verifier_lr)
        return state

    def collect(state: State, problem: Any, rng: Stream) -> Grown:
        asked = problem.prompts(prompts, (rng / "prompts").torch())
        tree = Tree(state, problem, asked, breadth=breadth, judge=judged, choose=choose, backup=mean_worth)
        tree.search(tree.roots, rng / "search", rounds=rounds, depth=depth, arrive=arrive)
        labels = [label for root in tree.roots for label in valued(root, right)]
        told = {"score": tree.right / tree.answers, "solved": sum(near(r, right) < math.inf for r in tree.roots) / prompts}
        steps = labelled(tree, labels) if labels else None
        return Grown(answered(tree, right, cap), steps, told | {"answers": float(tree.answers)})

    def learn(state: State, batch: Grown, rng: Stream) -> dict[str, Any]:
        if batch.answers is None or batch.steps is None:
            return {**batch.info, "skipped": 1.0}
        told = parent.learn(state, batch.answers, rng / "policy")
        return told | teach(state, StepObjective(), batch.steps, rng / "verifier") | batch.info

    return replace(parent, init=init, collect=collect, learn=learn)
