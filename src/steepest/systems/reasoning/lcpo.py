"""LCPO: the prompt says how long the answer shall be, and the reward pays for being right and for keeping to it.

Paper.  Aggarwal and Welleck, L1: Controlling How Long A Reasoning Model Thinks With Reinforcement Learning, 2025.
        arXiv 2503.04697.
Claim.  It answers at the length it is asked for, and is right more often the more room it has.
Idea.   r = verdict - a |asked - used|; or, where the asked length is the most: r = verdict * clip(a (asked - used) + d, 0, 1)
State.  as grpo
Note.   The problem's prompts carry the wanted length, and ``problem.budget(key) -> [N]`` says it (`problems.budget.BudgetSum`).
        The paper trains the second reward from a policy that was trained with the first: give that as `model`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ...collectors.experience import Collect
from ...collectors.generate import generate
from ...core import Batch, State, Stream, System, extends
from .grpo import grpo

Rule = Callable[..., Tensor]  # (verdict [N], asked [N], used [N], alpha=) -> reward [N]


def exactly(verdict: Tensor, asked: Tensor, used: Tensor, *, alpha: float) -> Tensor:
    """As long as asked: what is missing costs as much as what is too much. L1, eq. 1"""
    return verdict - alpha * (asked - used).abs()  # <- the idea


def at_most(verdict: Tensor, asked: Tensor, used: Tensor, *, alpha: float, delta: float = 0.5) -> Tensor:
    """No longer than asked: a right answer of that length gets `delta`, a shorter one more; a wrong one nothing. L1, eq. 2"""
    return verdict * (alpha * (asked - used) + delta).clamp(0, 1)


@extends(grpo, without=("collect", "select"))
def lcpo(*, alpha: float = 0.0003, rule: Rule = exactly, **options: Any) -> System:
    """Group relative policy optimization with a length that the prompt asks for.

    alpha  what a token beside the asked length costs, in reward (paper: 0.0003, for lengths up to 4,000)
    rule   `exactly` or `at_most` (paper: the first, then the second)
    """
    if alpha < 0:
        raise ValueError(f"alpha must not be negative, not {alpha}: missing the asked length would pay")

    def gather(*, prompts: int, group: int) -> Collect:
        plain = generate(prompts=prompts, group=group)

        def collect(state: State, problem: Any, rng: Stream) -> Batch:
            batch = plain(state, problem, rng)
            asked = problem.budget(batch.key.cpu()).to(batch.reward)
            if bool((asked < 1).any()):
                raise ValueError(f"a prompt asks for {float(asked.min()):g} tokens: an answer has at least one")
            return batch.having(extra=batch.extra | {"budget": asked[:, None].expand_as(batch.mask)})

        return collect

    return grpo(collect=gather, select=partial(shaped, alpha=alpha, rule=rule), **options)


def shaped(state: State, batch: Batch, *, alpha: float, rule: Rule) -> Batch:
    """The batch, its rewards replaced by the rule's."""
    asked = batch.extra["budget"][:, 0]
    paid = rule(batch.score, asked, batch.length, alpha=alpha)
    last = batch.mask.sum(1, keepdim=True).long() - 1
    reward = torch.zeros_like(batch.reward).scatter_(1, last, paid[:, None])
    return batch.having(reward=reward, info=batch.info | {"missed": float((asked - batch.length).abs().mean())})
