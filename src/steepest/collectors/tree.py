"""Trees of answers: prefixes that end behind a step, grown by the policy, and the search that decides where to grow."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..core.batch import Batch, at_end, pick
from ..core.pairs import Pairs
from ..core.problem import Prompts
from ..core.state import State
from ..core.stream import Stream
from .experience import positive
from .prefixes import continued, extended
from .steps import split

Judge = Callable[[State, Batch], Tensor]  # finished answers -> how good each is after each of its tokens [N, T]


class Ending(NamedTuple):
    """A finished answer that was seen."""

    tokens: tuple[int, ...]
    score: float  # the problem's verdict
    further: int  # steps behind the prefix at which it was seen


@dataclass(eq=False)
class Node:
    """A prefix of an answer that ends behind a step; the root is the empty one, or where a search begins.

    prompt    which of the prompts is answered
    tokens    of the answer, up to here
    parent    the prefix without its last step
    logp      log-probability of the last step
    done      the answer has ended: by its end token, or because it may not be longer
    value     what the judge says of the prefix
    ahead     what it says behind each of the steps that followed, in the answer from which the prefix was cut
    endings   the finished answers from which it was cut
    worth     what the search knows of it: the judge's word at first, then as the backup has it
    visits    iterations of a search that came through here
    children  equal steps are one child
    """

    prompt: int
    tokens: tuple[int, ...] = ()
    parent: Node | None = None
    logp: float = 0.0
    done: bool = False
    value: float = 0.0
    ahead: tuple[float, ...] = ()
    endings: list[Ending] = field(default_factory=list)
    worth: float = 0.0
    visits: int = 0
    children: list[Node] = field(default_factory=list)

    @property
    def step(self) -> tuple[int, ...]:
        """The tokens of the last step."""
        return self.tokens[len(self.parent.tokens) :] if self.parent is not None else self.tokens

    @property
    def depth(self) -> int:
        return 0 if self.parent is None else 1 + self.parent.depth


Rule = Callable[[Node], float]
Arrive = Callable[[Node], None]


def stay(node: Node) -> None:
    """Nothing is done."""


def padded(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Tokens [N, T] and mask [N, T] of rows, padded on the right."""
    width = max(map(len, rows), default=0)
    tokens = torch.tensor([[*row, *[0] * (width - len(row))] for row in rows], dtype=torch.long)
    mask = torch.tensor([[1.0] * len(row) + [0.0] * (width - len(row)) for row in rows])
    return tokens.view(len(rows), width), mask.view(len(rows), width)


def outcome(state: State, batch: Batch) -> Tensor:
    """The verdict on the finished answer, at all of its tokens: the mean over answers that share a prefix estimates the policy's
    chance from there."""
    return batch.score[:, None].expand_as(batch.mask)


class Tree:
    """Trees of answers to the same prompts, which grow together.

    breadth  answers that are drawn to grow a prefix; each is cut behind its first step
    judge    how good prefixes are
    choose   how promising a child is: a search takes the highest, of equal ones that of greater worth, then the first
    backup   the worth of a node, from its value and its children
    """

    def __init__(self, state: State, problem: Any, asked: Prompts, *, breadth: int, judge: Judge, choose: Rule, backup: Rule):
        positive(breadth=breadth)
        self.state, self.problem, self.asked, self.breadth = state, problem, asked, breadth
        self.judge, self.choose, self.backup = judge, choose, backup
        self.roots = [Node(n) for n in range(len(asked.key))]
        self.answers, self.right = 0, 0.0  # that were drawn; the sum of their scores

    @torch.no_grad()
    def grow(self, nodes: Sequence[Node], rng: Stream) -> None:
        """Give each of the nodes, which have none, its children."""
        places = [node for node in nodes for _ in range(self.breadth)]
        asked = pick(self.asked, torch.tensor([node.prompt for node in places]))
        begun, there = padded([node.tokens for node in places])
        batch = split(self.problem, continued(self.state, self.problem, asked, begun, there.sum(1).long(), rng))
        self.answers, self.right = self.answers + len(batch), self.right + float(batch.score.sum())
        tokens, length = batch.action.tolist(), batch.length.long().tolist()
        step, value = batch.extra["step"].tolist(), self.judge(self.state, batch).tolist()
        logp, score = self.state.policy.logp(batch.obs, batch.action, batch.mask).tolist(), batch.score.tolist()
        ended = batch.action.gather(1, batch.length.long()[:, None] - 1).squeeze(1) == self.problem.tokenizer.eos_token_id
        over = (ended | (batch.length >= self.problem.max_new)).tolist()
        for n, node in enumerate(places):
            start = len(node.tokens)
            cuts = [t + 1 for t in range(start, length[n]) if step[n][t]]  # the last is the answer's end
            said = tuple(tokens[n][: cuts[0]])
            child = next((child for child in node.children if child.tokens == said), None)
            if child is None:
                child = Node(
                    node.prompt, said, node, sum(logp[n][start : cuts[0]]), len(cuts) == 1 and over[n],
                    ahead=tuple(value[n][cut - 1] for cut in cuts[1:]),
                )  # fmt: skip
                node.children.append(child)
            child.value += (value[n][cuts[0] - 1] - child.value) / (len(child.endings) + 1)
            child.endings.append(Ending(tuple(tokens[n][: length[n]]), score[n], len(cuts) - 1))
        for node in nodes:
            for child in node.children:
                child.worth = child.value
                child.worth = self.backup(child)

    def search(self, roots: Sequence[Node], rng: Stream, *, rounds: int, depth: int, arrive: Arrive = stay) -> None:
        """`rounds` iterations below each root: walk to a leaf, let it grow, tell its ancestors.

        depth   steps below the root behind which nothing grows
        arrive  what is done with a node that has just grown
        """
        positive(rounds=rounds, depth=depth)
        start = {root.prompt: root.depth for root in roots}
        for count in range(rounds):
            leaves = [walk(root, self.choose) for root in roots]
            fresh = [leaf for leaf in leaves if not leaf.done and leaf.depth < start[leaf.prompt] + depth]
            if fresh:
                self.grow(fresh, rng / count)
            for node in fresh:
                arrive(node)
            for root, leaf in zip(roots, leaves, strict=True):
                tell(root, leaf, self.backup)


def walk(root: Node, choose: Rule) -> Node:
    """The leaf to which the choices lead."""
    node = root
    while node.children:
        node = preferred(node, choose)
    return node


def preferred(node: Node, choose: Rule) -> Node:
    """The child that the choice takes."""
    return max(node.children, key=lambda child: (choose(child), child.worth))


def tell(root: Node, leaf: Node, backup: Rule) -> None:
    """A visit of all nodes from the leaf up to the root, whose worth is found anew."""
    node: Node | None = leaf
    while node is not None:
        node.visits += 1
        node.worth = backup(node)
        node = None if node is root else node.parent


def puct(child: Node, *, weight: float = 1.0, power: float = 1.25) -> float:
    """worth + weight p sqrt(visits of the parent) / (1 + visits), p = exp(log-probability of the step / its tokens ** power)"""
    above: Any = child.parent
    p = math.exp(child.logp / len(child.step) ** power)
    return child.worth + weight * p * math.sqrt(above.visits) / (1 + child.visits)


def ucb(child: Node, *, weight: float = 0.7) -> float:
    """worth + weight sqrt(2 log(visits of the parent) / visits); infinite where nobody has been"""
    above: Any = child.parent
    return child.worth + weight * math.sqrt(2 * math.log(above.visits) / child.visits) if child.visits else math.inf


def mean_worth(node: Node) -> float:
    """The mean of the children's worth, by visits; what it was while none is visited."""
    visits = sum(child.visits for child in node.children)
    return sum(child.visits * child.worth for child in node.children) / visits if visits else node.worth


def gain(node: Node) -> float:
    """What the last step gained: its value less the parent's, and the mean of the children's worth, each weighed by its visits and
    by 1 at least."""
    step = node.value - (node.parent.value if node.parent is not None else 0.0)
    share = [max(1, child.visits) for child in node.children]
    return step + sum(n * child.worth for n, child in zip(share, node.children, strict=True)) / sum(share) if share else step


def step_pairs(asked: Prompts, better: Sequence[Node], worse: Sequence[Node], doubt: Tensor) -> Pairs:
    """Pairs of steps that follow the same prefix. Each is there twice, in the second half turned round, with weights 1 - doubt [N]
    and doubt: a loss of it is that of smoothed labels.
    """
    above = [node.parent.tokens if node.parent is not None else () for node in better]
    begun, there = padded(above)
    rows = torch.tensor([node.prompt for node in better], dtype=torch.long)
    text = extended(pick(asked, rows), begun, there.sum(1).long())
    steps, made = padded([node.step for node in (*better, *worse)])
    obs, count = {"ids": text.ids.repeat(2, 1), "mask": text.mask.repeat(2, 1)}, len(better)
    weight = torch.cat([1 - doubt, doubt]) / max(1, count)
    return Pairs(obs, steps, made, steps.roll(count, 0), made.roll(count, 0), weight)


def written(tree: Tree, rows: Sequence[int], said: Sequence[Sequence[int]]) -> Batch:
    """Answers, or their first steps, to these of the tree's prompts; without reward."""
    device, (tokens, mask) = tree.state.device, padded(said)
    asked = pick(tree.asked, torch.tensor(rows, dtype=torch.long))
    obs = {"ids": asked.ids.to(device), "mask": asked.mask.to(device)}
    mask = mask.to(device)
    return Batch(obs, tokens.to(device), None, torch.zeros_like(mask), mask, asked.key.to(device))


def labelled(tree: Tree, labels: Sequence[tuple[Node, float]]) -> Batch:
    """The paths to the leaves of a tree, with a column `step` and the `target` of each step of which there is a label; a step that
    several paths share has it in one of them."""
    value, rows, marks = {id(node): x for node, x in labels}, list[Node](), list[tuple[int, int, float]]()
    for node, _ in labels:
        if not node.children:
            above: Node | None = node
            while above is not None and id(above) in value:
                marks.append((len(rows), len(above.tokens) - 1, value.pop(id(above))))
                above = above.parent
            rows.append(node)
    batch = written(tree, [node.prompt for node in rows], [node.tokens for node in rows])
    step, target = torch.zeros_like(batch.mask), torch.zeros_like(batch.mask)
    for row, place, x in marks:
        step[row, place], target[row, place] = 1.0, x
    return batch.having(target=target, extra={"step": step})


def answered(tree: Tree, right: float, cap: int) -> Batch | None:
    """The different right answers that were seen, at most `cap` to each prompt, each with reward 1; of more, those that were seen
    from the node of greatest worth. None where there is none."""
    rows, said = list[int](), list[tuple[int, ...]]()
    for root in tree.roots:
        worth, below = dict[tuple[int, ...], float](), [root]
        for node in below:
            below += node.children
            for ending in node.endings:
                if ending.score >= right:
                    worth[ending.tokens] = max(node.worth, worth.get(ending.tokens, -math.inf))
        best = sorted(worth, key=lambda tokens: -worth[tokens])[:cap]
        rows, said = rows + [root.prompt] * len(best), said + best
    if not rows:
        return None
    batch = written(tree, rows, said)
    return batch.having(reward=at_end(torch.ones(len(rows)).to(batch.mask), batch.mask))
