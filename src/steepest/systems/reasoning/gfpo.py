"""GFPO: sample many answers, learn from the few that are short, or that earn much a token.

Paper.  Shrivastava et al., Sample More to Think Less: Group Filtered Policy Optimization for Concise Reasoning, 2025.
        arXiv 2508.09726.
Claim.  Answers grow less long than with GRPO, at the same accuracy.
Idea.   A_i = (r_i - mean_S) / std_S for i in S, else 0;  S the `keep` answers of the group with the greatest merit
State.  as grpo
Note.   The variant that keeps more answers to hard prompts is not built.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor

from ...core.batch import Batch
from ...core.state import State
from ...core.system import System, extends
from ...credit import best_relative
from ...losses import Reduce, clip, token_mean
from ...losses import entropy as spread
from .grpo import grpo

Merit = Callable[[Batch], Tensor]


def brevity(batch: Batch) -> Tensor:
    """The shorter an answer, the better [N]."""
    return -batch.length


def efficiency(batch: Batch) -> Tensor:
    """What an answer earns a token [N]."""
    return batch.score / batch.length


def filtered(state: State, batch: Batch, *, keep: int, merit: Merit) -> Tensor:
    return best_relative(batch.score, batch.key, merit(batch), keep=keep)[:, None]  # <- the idea


@extends(grpo, without=("credit", "loss"))
def gfpo(
    *, keep: int = 8, merit: Merit = brevity, group: int = 16, entropy: float = 0.001, kl: float = 0.001, clip_range: float = 0.2,
    reduce: Reduce = token_mean, **options: Any,
) -> System:  # fmt: skip
    """GRPO whose advantages count inside the best of each group alone.

    keep        answers of a group that are learned from, at least 2 (paper: at most 8)
    merit       batch -> [N]: the greater, the rather kept; `brevity`, or `efficiency` (both: paper)
    group       answers to each prompt (paper: 8, 16 and 24)
    entropy     of the policy's entropy, a bonus (paper: 0.001)
    kl          of the estimated KL(pi || reference), a loss term (paper: 0.001)
    clip_range  the band of the ratio is 1 +- this (paper: 0.2)
    reduce      how decisions are averaged (paper: all tokens count the same)
    """
    if not 2 <= keep <= group:
        raise ValueError(f"keep must lie between 2 and group = {group}, not {keep}: what is kept is compared among itself")
    if entropy < 0:
        raise ValueError(f"entropy must not be negative, not {entropy}")
    objective = clip(low=clip_range, high=clip_range)
    return grpo(
        loss=objective - entropy * spread() if entropy else objective, credit=partial(filtered, keep=keep, merit=merit),
        group=group, kl=kl, clip_range=clip_range, reduce=reduce, **options,
    )  # fmt: skip
