"""RLEP: begin again, with the successes of the first attempt mixed into every group.

Paper.  Zhang et al., RLEP: Reinforcement Learning with Experience Replay for LLM Reasoning, 2025. arXiv 2507.07451.
Claim.  With a few verified successes of a trained policy in each group it learns faster, and ends higher, than without.
Idea.   until step `harvest` GRPO, whose right answers fill a pool; then the first weights again, and `replay` of the pool's
        answers beside every group's own
State.  policy, one Adam, its first weights (`base`), a pool of successes (`pool`)
Note.   Both phases are one run. Replayed answers get the log-probability of the policy that is trained, so their ratio begins
        at 1; the authors' recipe (Kwai-Klear/RLEP, rlep_training.sh) does not say. Of that recipe the dual clip at 10 is left
        out. The problem is a known set of prompts (`problems.fixed.Fixed`, a data set).
"""

from __future__ import annotations

import copy
from typing import Any

import torch

from ...collectors.asking import pool as known
from ...collectors.experience import Collect
from ...collectors.generate import generate, joined, scored
from ...core import Batch, Prompts, State, Stream, System, extends, holding
from ...core.batch import at_end
from ...losses import Reduce, clip, token_mean
from ...memory.successes import Successes
from .grpo import grpo


@extends(grpo, without=("collect", "after", "loss", "clip_range"))
def rlep(
    *, harvest: int = 400, replay: int = 2, cap: int = 4, right: float = 1.0, low: float = 0.2, high: float = 0.28, kl: float = 0.0,
    group: int = 16, reduce: Reduce = token_mean, **options: Any,
) -> System:  # fmt: skip
    """Group relative policy optimization, then once more from the start with replayed successes.

    harvest  steps of the first phase
    replay   successes beside each group's own answers (authors' recipe: 2)
    cap      successes kept of a prompt
    right    an answer with at least this score is a success
    low      of the clipped ratio (authors' recipe: 0.2)
    high     of the clipped ratio (authors' recipe: 0.28)
    kl       of the estimated KL(pi || reference) (authors' recipe: 0)
    group    answers sampled to each prompt (authors' recipe: 16)
    reduce   how decisions are averaged (authors' recipe: all tokens alike)
    """
    if harvest < 1 or replay < 0:
        raise ValueError(f"harvest must be at least 1 and replay not negative, not {harvest} and {replay}")

    def gather(*, prompts: int, group: int) -> Collect:
        plain = generate(prompts=prompts, group=group)

        def collect(state: State, problem: Any, rng: Stream) -> Batch:
            batch = plain(state, problem, rng)
            if state.step < harvest or not replay:
                return batch
            old = replayed(state, problem, batch, rng / "replay", replay, right)
            both = joined(batch, old)  # <- the idea
            both = both.rows(both.key.argsort(stable=True))
            return both.having(info=batch.info | {"replayed": len(old) / len(batch), "sampled": float(batch.score.mean())})

        return collect

    def after(state: State, batch: Batch) -> None:
        if state.step < harvest:
            good = batch.rows(batch.score >= right)
            state.pool.write(good.key, good.action, good.mask)
        if state.step + 1 == harvest:
            state.policy.load_state_dict(state.base.state_dict())
            state.optimizers["policy"].state.clear()

    parent = grpo(
        collect=gather, after=after, loss=clip(low=low, high=high), kl=kl, group=group, reduce=reduce, **options
    )
    return holding(
        parent,
        base=lambda state, problem, rng: copy.deepcopy(state.policy).requires_grad_(False),
        pool=lambda state, problem, rng: Successes(known(problem).size, cap, problem.max_new),
    )


def replayed(state: State, problem: Any, batch: Batch, rng: Stream, count: int, right: float) -> Batch:
    """Successes of the pool to the batch's prompts, verified once more; raises ValueError for one that is no longer right."""
    key, index = batch.key.unique(return_inverse=True)
    first = torch.zeros_like(key).scatter_reduce_(0, index, torch.arange(len(index), device=key.device), "amin", include_self=False)
    whose, tokens, mask = state.pool.read(key, count, rng.torch())
    rows = first[whose]
    obs = {name: x[rows] for name, x in batch.obs.items()}
    asked = Prompts(obs["ids"].cpu(), obs["mask"].cpu(), batch.key[rows].cpu())
    reward = torch.zeros_like(mask)
    if len(rows):
        score, _ = scored(problem, asked, tokens.cpu(), mask.cpu())
        if bool((score < right).any()):
            wrong = int(key[whose[(score < right).nonzero()[0, 0]]])
            raise ValueError(f"the pool's answer to prompt {wrong} is not right: it was verified by another problem or reward")
        reward = at_end(score, mask)
    return Batch(obs=obs, action=tokens, logp=None, reward=reward, mask=mask, key=batch.key[rows])
