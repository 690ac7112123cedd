"""Answers to prompts, scored."""

from __future__ import annotations

import torch
from torch import Tensor

from ..core.batch import Batch
from ..core.problem import Language, Prompts, finite
from ..core.state import State
from ..core.stream import Stream
from .experience import Collect


def generate(*, prompts: int = 16, group: int = 8) -> Collect:
    """Draw `prompts` prompts, sample `group` answers to each, score them. Answers to one prompt are adjacent rows.

    `logp` stays None: the policy that answered is the one being trained. The reward stands on the last token.
    ``info["truncated"]`` is the share of answers that were cut off before their end token; with it stands what
    ``problem.grade`` reports.
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
        score, told = scored(problem, asked, tokens.cpu(), mask.cpu())
        last = mask.sum(1, keepdim=True).long() - 1
        reward = torch.zeros_like(mask).scatter_(1, last, score[:, None].to(device))
        ended = tokens.gather(1, last) == problem.tokenizer.eos_token_id
        info = {"truncated": 1.0 - float(ended.float().mean()), **told}
        return Batch(obs=obs, action=tokens, logp=None, reward=reward, mask=mask, key=asked.key.to(device), info=info)

    return collect


def repeat(prompts: Prompts, group: int) -> Prompts:
    """Every prompt `group` times, copies adjacent."""
    return Prompts(*(x.repeat_interleave(group, 0) for x in (prompts.ids, prompts.mask, prompts.key)))


def scored(problem: Language, prompts: Prompts, tokens: Tensor, mask: Tensor) -> tuple[Tensor, dict[str, float]]:
    """What ``problem.grade`` says: the score [N], refused with its name and the offending index if it is not N finite numbers."""
    score, told = problem.grade(prompts, tokens, mask)
    return finite(score, len(mask), f"{type(problem).__name__}.score"), told
