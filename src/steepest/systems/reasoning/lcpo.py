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

from torch import Tensor

from ...collectors.experience import Collect
from ...collectors.generate import generate
from ...core import Batch, State, Stream, System, extends
from ...core.batch import at_end
from ...credit import l1_exact
from .grpo import grpo

Rule = Callable[..., Tensor]  # (length [N], right [N], wanted [N], rate=) -> reward [N]


@extends(grpo, without=("collect", "select"))
def lcpo(*, alpha: float = 0.0003, rule: Rule = l1_exact, **options: Any) -> System:
    """Group relative policy optimization with a length that the prompt asks for.

    alpha  what a token beside the asked length costs, in reward (paper: 0.0003, for lengths up to 4,000)
    rule   `credit.l1_exact` or `credit.l1_max` (paper: the first, then the second)
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
    paid = rule(batch.length, batch.score, asked, rate=alpha)  # <- the idea
    return batch.having(reward=at_end(paid, batch.mask), info=batch.info | {"missed": float((asked - batch.length).abs().mean())})
