"""Answers, and beside each prompt the same prompt with a part of its context hidden."""

from __future__ import annotations

from typing import Any

import torch

from ..core.batch import Batch
from ..core.state import State
from ..core.stream import Stream
from .experience import Collect
from .generate import Gather, asked_of, generate


def with_hidden(share: float = 0.6, gather: Gather = generate) -> Gather:
    """The same answers, and ``obs["blind"]`` [N, L]: the prompt's tokens, each of its context hidden with probability `share`.

    The problem has ``hidden(prompts)``: the same prompts with nothing of the context to be read, token by token. Each answer has
    its own draw. Prompts without a context stay as they are; raises ValueError where no prompt of a batch has any.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"the share of the context that is hidden lies in [0, 1], not {share}")

    def kept(*, prompts: int, group: int) -> Collect:
        collect = gather(prompts=prompts, group=group)

        def both(state: State, problem: Any, rng: Stream) -> Batch:
            batch = collect(state, problem, rng)
            asked = asked_of(batch)
            dark = problem.hidden(asked).ids
            if torch.equal(dark, asked.ids):
                raise ValueError(
                    f"none of {len(batch)} prompts of {type(problem).__name__} has a context that can be hidden: what a policy "
                    "reads there cannot be told from what it guesses. Take a problem with a context, or grpo"
                )
            lost = torch.rand(dark.shape, generator=(rng / "hidden").torch()) < share
            blind = dark.where(lost, asked.ids)
            told = {"hidden": float((blind != asked.ids).sum() / (dark != asked.ids).sum())}
            return batch.having(obs=batch.obs | {"blind": blind.to(batch.mask.device)}, info=batch.info | told)

        return both

    return kept
