"""GCPO: a construction is rewarded where it helps with the prompt at hand, and costs where it harms.

Paper.  Wang et al., GeometryZero: Improving Geometry Solving for LLM with Group Contrastive Policy Optimization, 2025.
        arXiv 2506.07160.
Claim.  The policy learns when to construct, where a reward for every construction makes it construct everywhere.
Idea.   r + w M used + l min(n / cap, 1);  M = sign(d) [|d| > e], d = mean r with the construction forced - with it forbidden
State.  as grpo
Note.   Masking and length reward are the paper's; their numbers and the size of the two groups were not to be had (neither the
        authors' code nor the formulas were at hand), so that w, e, l and cap are this library's. The two groups are for the
        contrast alone and are not learned from. The verdict of the problem includes the form of an answer.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor

from ...collectors.contrast import beside_contrast
from ...collectors.generate import Gather, generate
from ...core import Batch, State, System, extends
from ...core.batch import at_end
from .grpo import grpo


def worth(gain: Tensor, epsilon: float) -> Tensor:
    """1 where a construction gains more than epsilon, -1 where it loses more, else 0."""
    return gain.sign() * (gain.abs() > epsilon)  # <- the idea


def shaped(state: State, batch: Batch, *, bonus: float, epsilon: float, length: float, cap: int) -> Batch:
    """With what the construction and the length are worth in the reward."""
    mark = worth(batch.info["gain"], epsilon)
    more = bonus * mark * batch.info["used"] + length * (batch.length / cap).clamp(max=1)
    told = {"helps": float((mark > 0).float().mean()), "harms": float((mark < 0).float().mean())}
    return batch.having(reward=batch.reward + at_end(more, batch.mask), info=batch.info | told)


@extends(grpo, without=("select",))
def gcpo(
    *, bonus: float = 0.5, epsilon: float = 0.1, contrast: int = 4, length: float = 0.1, cap: int = 1024,
    collect: Gather = generate, **options: Any,
) -> System:  # fmt: skip
    """Group relative policy optimization with a reward for constructions that help.

    bonus     w: reward of a construction that helps, and cost of one that harms
    epsilon   e: how much of the score a construction must gain or lose to count
    contrast  answers to each prompt with the construction forced, and with it forbidden, at least 2
    length    l: reward of an answer of `cap` tokens or more; shorter ones get their part
    cap       tokens beyond which longer answers earn no more
    collect   (prompts=, group=) -> a collector of answers
    """
    if min(bonus, epsilon, length) < 0 or cap < 1:
        raise ValueError(f"needs bonus, epsilon and length >= 0 and cap >= 1, not {bonus}, {epsilon}, {length} and {cap}")
    select = partial(shaped, bonus=bonus, epsilon=epsilon, length=length, cap=cap)
    return grpo(collect=beside_contrast(contrast, collect), select=select, **options)
