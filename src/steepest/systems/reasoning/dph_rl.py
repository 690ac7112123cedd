"""DPH-RL: explore what is not mastered, and rehearse the first policy's answers to what is, so that none of its ways dies out.

Paper.  Li et al., The Choice of Divergence: A Neglected Key to Mitigating Diversity Collapse in Reinforcement Learning with
        Verifiable Reward, 2025. arXiv 2509.07430.
Claim.  The chance to be right at least once in k answers, which GRPO loses, stays.
Idea.   GRPO on prompts not yet mastered + eta f(pi / base) on stored right answers of the base to those that are, f
        mass-covering
State.  policy, one Adam, `rehearsal` (of each mastered prompt a right answer and how likely the first policy found it)
Note.   As in the authors' code (seamoke/DPH-RL) the base is sampled before training and no reference is kept. There a step is
        either of one kind or the other; here each holds both, averaged together. What is mastered depends on the task: a prompt
        that the base gets right in `mastered` of `samples` answers. The problem is a known set of prompts.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from ...collectors.asking import by_weight, choose, pool
from ...collectors.experience import Collect
from ...collectors.generate import answers, generate, joined
from ...core import Batch, State, Stream, System, extends, holding
from ...credit import group_relative
from ...losses import clip
from ...losses.covering import Divergence, covering, forward_kl
from ...memory.latest import Latest
from .grpo import grpo


@extends(grpo, without=("collect", "credit", "kl", "loss"))
def dph_rl(
    *, eta: float = 0.01, divergence: Divergence = forward_kl, mastered: float = 1.0, samples: int = 8, rehearse: int = 16,
    right: float = 1.0, clip_range: float = 0.2, **options: Any,
) -> System:  # fmt: skip
    """Group relative policy optimization that rehearses.

    eta         of the divergence (authors' code: 0.01 to 0.05; up to 0.2 for jensen_shannon)
    divergence  forward_kl, jensen_shannon or alpha_divergence of `losses.covering`
    mastered    share of the base's answers to a prompt that must be right for it to be rehearsed (paper: 1)
    samples     answers of the base to each prompt, before training (paper: 8)
    rehearse    stored answers a step
    right       an answer with at least this score is right
    clip_range  the band of the ratio is 1 +- this
    """
    if eta < 0 or not 0 <= mastered <= 1 or min(samples, rehearse) < 1:
        raise ValueError(
            f"needs eta >= 0, mastered in [0, 1], samples and rehearse at least 1, not {eta}, {mastered}, {samples} and {rehearse}"
        )

    def gather(*, prompts: int, group: int) -> Collect:
        plain = generate(prompts=prompts, group=group, ask=by_weight(unmastered))

        def collect(state: State, problem: Any, rng: Stream) -> Batch:
            batch = plain(state, problem, rng)
            batch = batch.having(extra={name: torch.zeros_like(batch.mask) for name in ("rehearsed", "base")})
            known = 1 - unmastered(state, problem)
            count = min(rehearse, int(known.sum())) if eta else 0
            if not count:
                return batch
            old = recalled(state, problem, choose(known, count, rng / "rehearsal"))
            return joined(batch, old).having(info=batch.info | {"rehearsed": count / len(batch)})

        return collect

    parent = grpo(
        collect=gather, credit=explored, kl=0.0, loss=clip(low=clip_range, high=clip_range) + eta * covering(divergence=divergence),
        **options,
    )  # fmt: skip
    return holding(parent, rehearsal=partial(sampled, mastered=mastered, samples=samples, right=right))


def unmastered(state: State, problem: Any) -> Tensor:
    """1 for each prompt without a stored answer [size]."""
    return 1 - state.rehearsal.mask[:, 0].cpu()


def explored(state: State, batch: Batch) -> Tensor:
    """The group's advantage for what was sampled now; 0 for what was stored."""
    new, advantage = batch.extra["rehearsed"][:, 0] == 0, torch.zeros_like(batch.score)
    advantage[new] = group_relative(batch.score[new], batch.key[new])
    return advantage[:, None]


@torch.no_grad()
def sampled(state: State, problem: Any, rng: Stream, *, mastered: float, samples: int, right: float) -> Latest:
    """Right answers of the first policy to the prompts that it masters."""
    size, row = pool(problem).size, torch.zeros(problem.max_new)
    memory, count = Latest(size, tokens=row.long(), mask=row, logp=row), torch.zeros(size)
    for n in range(samples):
        batch = answers(state, problem, problem.pick(torch.arange(size)), rng / n)
        good = batch.score >= right
        count += good.float()
        logp = state.policy.logp(batch.obs, batch.action, batch.mask)
        if bool(good.any()):
            memory.write(batch.key[good], tokens=batch.action[good], mask=batch.mask[good], logp=logp[good])
    enough = (count >= mastered * samples) & (count > 0)
    memory.get_buffer("mask").mul_(enough[:, None])
    return memory


def recalled(state: State, problem: Any, key: Tensor) -> Batch:
    asked, was = problem.pick(key), state.rehearsal.read(key)
    mask = was["mask"]
    obs = {"ids": asked.ids.to(mask.device), "mask": asked.mask.to(mask.device)}
    columns = {"rehearsed": torch.ones_like(mask), "base": was["logp"]}  # <- the idea
    return Batch(obs, was["tokens"], None, torch.zeros_like(mask), mask, asked.key.to(mask.device), extra=columns)
