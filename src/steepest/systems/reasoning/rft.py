"""RFT: imitate your own answers that turned out right.

Paper.  Dong et al., RAFT: Reward rAnked FineTuning for Generative Foundation Model Alignment, 2023. arXiv 2304.06767; also
        Zelikman et al., STaR, 2022 (arXiv 2203.14465) and Singh et al., ReST-EM, 2023 (arXiv 2312.06585).
Claim.  From verdicts alone a model that imitates its own right answers becomes better.
Idea.   sample answers, keep those that are right, SFT on them: a policy gradient with advantage 1[right]
State.  as sft
Note.   Fresh answers in every step, as in RAFT; STaR and ReST-EM collect a round of them and begin again from the first weights.
        A step in which nothing is right changes nothing.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from ...collectors.generate import generate
from ...core import Batch, State, System, extends
from ...core.batch import at_end
from .sft import sft


@extends(sft, without=("collect", "select"))
def rft(*, group: int = 8, right: float = 1.0, cap: int | None = None, **options: Any) -> System:
    """Rejection-sampling fine-tuning.

    group  answers sampled to each prompt (RAFT: 8)
    right  an answer with at least this score is imitated; all of them alike
    cap    different right answers of a prompt that count in a step (ReST-EM: 10); None: all
    """
    if cap is not None and cap < 1:
        raise ValueError(f"cap must be at least 1, not {cap}: nothing would be learned")
    return sft(collect=partial(generate, group=group), select=partial(accepted, right=right, cap=cap), **options)


def accepted(state: State, batch: Batch, *, right: float, cap: int | None) -> Batch:
    """The right answers, each of which counts 1; of equal answers to a prompt the first, and the first `cap` of each prompt."""
    chosen = batch.rows(batch.score >= right)  # <- the idea
    said = torch.cat([chosen.key[:, None], chosen.action.where(chosen.mask > 0, -1)], 1)
    seen, kept = dict[int, int](), list[int]()
    for row in first_of_each(said):
        key = int(chosen.key[row])
        seen[key] = seen.get(key, 0) + 1
        if cap is None or seen[key] <= cap:
            kept.append(row)
    chosen = chosen.rows(torch.tensor(kept, dtype=torch.long, device=chosen.key.device))
    return chosen.having(
        reward=at_end(chosen.mask.new_ones(len(chosen)), chosen.mask), info={**batch.info, "accepted": len(chosen) / len(batch)}
    )


def first_of_each(rows: torch.Tensor) -> list[int]:
    """The places of rows [N, K] that no earlier row equals."""
    seen = dict[tuple[int, ...], int]()
    for place, row in enumerate(rows.tolist()):
        seen.setdefault(tuple(row), place)
    return list(seen.values())
