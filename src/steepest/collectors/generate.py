"""Answers to prompts, scored."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..core.batch import Batch
from ..core.problem import Language, Prompts
from ..core.state import State
from ..core.stream import Stream
from .experience import Collect


def generate(*, prompts: int = 16, group: int = 8) -> Collect:
    """Draw `prompts` prompts, sample `group` answers to each, score them. Answers to one prompt are adjacent rows.

    `logp` stays None: the policy that answered is the one being trained. The reward stands on the last token.
    ``info["truncated"]`` is the share of answers that were cut off before their end token.
    """
    for name, size in (("prompts", prompts), ("group", group)):
        if size < 1:
            raise ValueError(f"{name} must be at least 1, not {size}")

    @torch.no_grad()
    def collect(state: State, problem: Language, rng: Stream) -> Batch:
        device = state.device
        asked = repeat(problem.prompts(prompts, (rng / "prompts").torch()), group)
        obs = {"ids": asked.ids.to(device), "mask": asked.mask.to(device)}
        tokens, mask, _ = state.policy.sample(obs, (rng / "tokens").torch(device))
        score = scored(problem, asked, tokens.cpu(), mask.cpu()).to(device)
        last = mask.sum(1, keepdim=True).long() - 1
        reward = torch.zeros_like(mask).scatter_(1, last, score[:, None])
        ended = tokens.gather(1, last) == problem.tokenizer.eos_token_id
        info = {"truncated": 1.0 - float(ended.float().mean())}
        return Batch(obs=obs, action=tokens, logp=None, reward=reward, mask=mask, key=asked.key.to(device), info=info)

    return collect


def repeat(prompts: Prompts, group: int) -> Prompts:
    """Every prompt `group` times, copies adjacent."""
    return Prompts(*(x.repeat_interleave(group, 0) for x in (prompts.ids, prompts.mask, prompts.key)))


def scored(problem: Any, prompts: Prompts, tokens: Tensor, mask: Tensor) -> Tensor:
    """``problem.score`` [N], refused with its name and the offending index if it is not N finite numbers."""
    name = f"{type(problem).__name__}.score"
    score = torch.as_tensor(problem.score(prompts, tokens, mask), dtype=torch.float32)
    if score.shape != mask.shape[:1]:
        raise ValueError(f"{name} must give one number for each of {len(mask)} answers, not a tensor of shape {list(score.shape)}")
    bad = (~torch.isfinite(score)).nonzero()
    if len(bad):
        index = int(bad[0])
        raise ValueError(f"{name} gave {float(score[index])} for answer {index} ({len(bad)} of {len(score)} are not finite)")
    return score
