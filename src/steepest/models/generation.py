"""The generator that is the policy itself: static caches, prompts read once for their group, rows that come and go."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..core.generator import Answers
from . import decoding
from .decoding import Obs


@dataclass(frozen=True)
class Own:
    """The policy itself writes, where it is.

    rows  answers that are being written at once; as rows end, those that wait take their place. None: all of them. What a row
          says does not depend on it: the number that draws a token belongs to the row and to how far the row has come
    """

    rows: int | None = None

    def __post_init__(self) -> None:
        if self.rows is not None and self.rows < 1:
            raise ValueError(f"rows must be at least 1, not {self.rows}: the answers that are written at once")

    @property
    def exact(self) -> bool:
        return True

    def __call__(self, policy: Any, obs: Obs, generator: torch.Generator, greedy: bool = False) -> Answers:
        return Answers(*write(policy, obs, generator, greedy, self.rows))


@torch.no_grad()
def write(
    policy: Any, obs: Obs, generator: torch.Generator, greedy: bool = False, most: int | None = None,
    warm: Callable[[Tensor], Tensor] | None = None, limit: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Answers of a `LanguageModel`, at most `most` at once: tokens, mask and log-probabilities, each [N, T].

    One uniform number is drawn for each row and each token, also for rows that have ended, so that what one row says
    depends neither on when another one stopped nor on which ones are written beside it.

    warm   log-probabilities [n, V] -> what the temperature of each row is multiplied by [n], token by token
    limit  the most tokens of each row [N] long, at least 1; None: the policy's `max_new`
    """
    n, device = len(obs["ids"]), obs["ids"].device
    limit = torch.full((n,), policy.max_new, device=device) if limit is None else limit
    if limit.shape != (n,) or int(limit.min()) < 1:
        raise ValueError(f"limit is at least one token for each of {n} rows, not {limit.tolist()}: leave out rows that are to end")
    max_new = int(limit.max())
    policy.check_room(obs, max_new)
    most = n if most is None else min(n, most)
    found = decoding.begin(policy.model, obs, max_new, most, policy.fast)
    tokens = torch.full((n, max_new), policy.pad, dtype=torch.long, device=device)
    mask, logp = (torch.zeros(n, max_new, device=device) for _ in range(2))
    drawn, ready = torch.empty(max_new, n, device=device), 0  # a number for each row's first token, for its second, ...
    rows = torch.arange(most, device=device)  # which answers are being written, ...
    at = torch.zeros_like(rows)  # ... how many tokens each has, ...
    going = torch.ones_like(rows, dtype=torch.bool)  # ... and which of those have not ended
    come, furthest = most, 0
    found.admit(rows)
    while True:
        log_probs = (found.logits.float() / policy.temperature).log_softmax(-1)
        if warm is not None:
            log_probs = (log_probs / warm(log_probs)[:, None]).log_softmax(-1)
        if greedy:
            token = log_probs.argmax(-1)
        else:
            while ready <= furthest:
                drawn[ready], ready = torch.rand(n, generator=generator, device=generator.device), ready + 1
            uniform = drawn[at.clamp(max=furthest), rows]
            token = invert(log_probs.exp(), uniform)
        here, column, said = rows, at, token
        chosen = log_probs.gather(1, token[:, None]).squeeze(1)
        if not bool(going.all()):
            here, column, said, chosen = rows[going], at[going], token[going], chosen[going]
        tokens[here, column], mask[here, column], logp[here, column] = said, torch.ones_like(chosen), chosen
        at = at + 1
        going = going & (token != policy.eos) & (at < limit[rows])
        count = int(going.sum())
        if count == 0 and come == n:
            break
        if count < len(rows) and count <= found.leave * len(rows) and (found.refills or count == 0):
            stay = going.nonzero().squeeze(1)
            found.keep(stay)
            rows, at, token, going = rows[stay], at[stay], token[stay], going[stay]
        if count:
            found.step(token)
        if come < n and len(rows) < most and (found.refills or len(rows) == 0):
            fresh = torch.arange(come, min(n, come + most - len(rows)), device=device)
            found.admit(fresh)
            rows, at = torch.cat([rows, fresh]), torch.cat([at, torch.zeros_like(fresh)])
            going = torch.cat([going, torch.ones_like(fresh, dtype=torch.bool)])
            come += len(fresh)
        furthest = max(furthest, int(at[going].max()))
    longest = int(mask.sum(1).max())
    return tokens[:, :longest], mask[:, :longest], logp[:, :longest]


def invert(probs: Tensor, uniform: Tensor) -> Tensor:
    """The token at which the cumulative probability passes a uniform number: [n, V], [n] -> [n]."""
    cdf = probs.cumsum(-1)
    return torch.searchsorted(cdf, uniform[:, None] * cdf[:, -1:], right=True).squeeze(1).clamp_(max=probs.shape[1] - 1)
