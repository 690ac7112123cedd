"""RiskPO: answers to several prompts are scored as one paper, and bad papers weigh more than good ones.

Paper.  Ren et al., RiskPO: Risk-based Policy Optimization via Verifiable Reward for LLM Post-Training, 2025. arXiv 2510.00911.
Claim.  Aiming at the lower part of the scores keeps the policy's entropy up and covers more problems (pass@k) than GRPO's mean.
Idea.   A(S) = (w C + R) / (w + 1),  C = -max(0, q_lo - S) / lo,  R = (S within [q_lo, q_hi] - q_hi) / (hi - lo)
State.  as grpo, and the two tracked quantiles of the scores of papers
Note.   Defaults of the authors' code: paper j holds the j-th answer to each of 5 prompts; A is divided by the spread of its
        bundle's papers, and for each answer by that of its own prompt. The code divides by almost 0 where a bundle's papers
        agree; here such a spread counts as 1, as the code has it for prompts.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from ...core.batch import Batch
from ...core.state import State
from ...core.system import System, extends, holding
from ...memory.quantiles import Quantiles
from .grpo import grpo


def papers(score: Tensor, key: Tensor, *, bundle: int, group: int) -> Tensor:
    """Scores of papers: [N], answers to a prompt adjacent -> [bundles, group]. Raises ValueError where they do not fill bundles."""
    if len(score) % (bundle * group) or bool((key.view(-1, group) != key[::group, None]).any()):
        raise ValueError(
            f"{len(score)} answers do not fill bundles of {bundle} prompts with {group} answers, one prompt's beside each other: "
            "keep all of them, in their order"
        )
    return score.view(-1, bundle, group).sum(1)


def mixed_value_at_risk(paper: Tensor, low: Tensor, high: Tensor, *, levels: tuple[float, float], tail: float) -> Tensor:
    """How far a paper falls short [...]: 0 from the high quantile on, and steeper below the low one."""
    between = (paper.clamp(low, high) - high) / (levels[1] - levels[0])
    below = (paper - low).clamp(max=0) / levels[0]
    return (tail * below + between) / (tail + 1)  # <- the idea


def spread(x: Tensor, dim: int) -> Tensor:
    found = x.std(dim, keepdim=True)
    return torch.where(found > 1e-3, found, 1.0)


def at_risk(state: State, batch: Batch, *, bundle: int, group: int, levels: tuple[float, float], tail: float) -> Tensor:
    paper = papers(batch.score, batch.key, bundle=bundle, group=group)
    quantiles: Any = state.quantiles
    low, high = quantiles.read(paper)
    short = mixed_value_at_risk(paper, low, high, levels=levels, tail=tail) / spread(paper, 1)
    return (short[:, None] / spread(batch.score.view(-1, bundle, group), 2)).view(-1, 1)


def track(state: State, batch: Batch, *, bundle: int, group: int) -> None:
    quantiles: Any = state.quantiles
    quantiles.write(papers(batch.score, batch.key, bundle=bundle, group=group))


@extends(grpo, without=("credit", "after", "select"))
def riskpo(
    *, bundle: int = 5, group: int = 5, prompts: int = 20, low: float = 0.2, high: float = 0.9, tail: float = 1.5,
    rate: float = 0.1, kl: float = 0.0, **options: Any,
) -> System:  # fmt: skip
    """GRPO on bundles of prompts, with a mixture of values at risk as advantage.

    bundle     prompts whose answers are scored as one paper (code: 5)
    group      answers to each prompt, and so papers of a bundle (code: 5)
    prompts    prompts a step, a multiple of bundle
    low        level of the lower tracked quantile (code: 0.2)
    high       level of the upper one (code: 0.9)
    tail       w: weight of what lies below the low quantile (code: 1.5)
    rate       of the tracking: q += rate (level - share of papers below q) (code: 0.1)
    kl         of the estimated KL(pi || reference), a loss term (code: 0)
    """
    if bundle < 1 or prompts % bundle or prompts < bundle:
        raise ValueError(f"prompts must be a multiple of bundle, not {prompts} and {bundle}: every prompt belongs to one bundle")
    if not 0 < low < high < 1 or tail < 0:
        raise ValueError(f"needs 0 < low < high < 1 and tail of at least 0, not {low}, {high} and {tail}")
    system = grpo(
        credit=partial(at_risk, bundle=bundle, group=group, levels=(low, high), tail=tail),
        after=partial(track, bundle=bundle, group=group), group=group, prompts=prompts, kl=kl, **options,
    )  # fmt: skip
    return holding(system, quantiles=lambda state, problem, rng: Quantiles((low, high), rate=rate))
