"""D3S: learn from the answers whose advantages differ most, and of these from the tokens at which the policy is unsure.

Paper.  Wang et al., Learning More with Less: A Dynamic Dual-Level Down-Sampling Framework for Efficient Policy Optimization,
        2025. arXiv 2509.22115.
Claim.  It reaches what GRPO reaches, sooner, from fewer answers and tokens.
Idea.   of each group keep the n answers with the largest Var(A), of these the tokens with the largest |A| H; n and the share
        of tokens grow over training
State.  as grpo
Note.   Advantages are those of the whole groups and are not normalised again. The most variance always lies in some of the
        highest and the rest of the lowest, so trying every split finds it. Where the schedules begin and end, and how many
        answers the second choice, over the whole batch, leaves, are guesses: the paper's text was not at hand.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from ...core import Batch, State, System, extends
from ...credit import group_relative
from ...losses import Terms, clip, loss
from .grpo import grpo


@extends(grpo, without=("select", "credit", "loss", "kl"))
def d3s(
    *, answers: tuple[float, float] = (0.25, 1.0), across: tuple[float, float] = (0.5, 1.0),
    tokens: tuple[float, float] = (0.2, 1.0), over: int = 200, clip_range: float = 0.2, **options: Any,
) -> System:  # fmt: skip
    """Group relative policy optimization on part of the answers and part of their tokens.

    answers     share of each group that is kept, at first and at last; at least two answers
    across      share of those that is kept over the whole batch
    tokens      share of the tokens of what is kept
    over        steps until the last shares are reached
    clip_range  the band of the ratio is 1 +- this
    """
    if over < 1 or not all(0 < x <= 1 for pair in (answers, across, tokens) for x in pair):
        raise ValueError(f"shares lie in (0, 1] and over is at least 1, not {answers}, {across}, {tokens} and {over}")
    shares = partial(chosen, answers=answers, across=across, tokens=tokens, over=over)
    return grpo(select=shares, credit=given, loss=on_chosen(width=clip_range), kl=0.0, **options)


@loss("chosen")
def on_chosen(t: Terms, *, width: float) -> tuple[Tensor, dict[str, Tensor]]:
    """The clipped ratio times the column `chosen`."""
    value, metrics = clip(low=width, high=width)(t)
    return value * t.extra["chosen"], metrics


def given(state: State, batch: Batch) -> Tensor:
    return batch.extra["given"]


def most_varied(x: Tensor, count: int) -> Tensor:
    """The `count` places of x [N] whose values have the largest variance, in their order."""
    order = x.argsort(stable=True)
    splits = [torch.cat([order[:low], order[len(x) - (count - low) :]]) for low in range(count + 1)]
    best = max(splits, key=lambda rows: float(x[rows].double().var(correction=0)))  # <- the idea
    return best.sort().values


@torch.no_grad()
def chosen(
    state: State, batch: Batch, *, answers: tuple[float, float], across: tuple[float, float], tokens: tuple[float, float], over: int
) -> Batch:
    """The kept answers, with columns `given` (their advantage) and `chosen` (of each token: 0, or what makes up for the rest)."""
    done = min(1.0, state.step / over)

    def now(pair: tuple[float, float]) -> float:
        return (1 - done) * pair[0] + done * pair[1]

    advantage, rows = group_relative(batch.score, batch.key), []
    for key in batch.key.unique():
        mine = (batch.key == key).nonzero().squeeze(1)
        rows.append(mine[most_varied(advantage[mine], max(2, round(now(answers) * len(mine))))])
    kept = torch.cat(rows)
    kept = kept[most_varied(advantage[kept], max(2, round(now(across) * len(kept))))].sort().values
    batch, advantage = batch.rows(kept), advantage[kept][:, None]
    share, picked = now(tokens), batch.mask
    if share < 1:
        spread = state.policy.logp_entropy(batch.obs, batch.action, batch.mask)[1]
        weight = (advantage.abs() * spread).masked_fill(batch.mask == 0, -1.0)
        count = max(1, round(share * float(batch.mask.sum())))
        picked = torch.zeros_like(weight).view(-1).index_fill_(0, weight.view(-1).topk(count).indices, 1.0).view_as(weight)
    scale = batch.mask.sum() / picked.sum()
    columns = {"given": advantage * batch.mask, "chosen": picked * scale}
    told = {"kept": float(len(kept)), "tokens": float(picked.sum())}
    return batch.having(extra=batch.extra | columns, info=batch.info | told)
