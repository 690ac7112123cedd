"""Whole episodes, from their start to their end: for estimates that need the return of everything that was done."""

from __future__ import annotations

from typing import Any

import torch

from ..core.batch import Batch
from ..core.problem import Control
from ..core.stream import Stream


@torch.no_grad()
def episodes(policy: Any, problem: Control, rng: Stream, *, count: int) -> Batch:
    """One new episode in each of `count` environments, so nothing is left over for the next collection.

    -> Batch [count, T], T being the longest; what an environment did after its episode is masked and pays 0.
    """
    device = next(policy.parameters()).device
    vector, generator = problem.make(count), (rng / "act").torch(device)
    obs, alive = vector.reset(rng / "reset"), torch.ones(count)
    rows = []
    while alive.any():
        action, logp = policy.sample(obs.to(device), generator)
        step = vector.step(action.cpu())
        rows.append((obs, action, logp, step.reward * alive, alive))
        alive = alive * ~(step.terminated | step.truncated)
        obs = step.obs
    obs, action, logp, reward, mask = (torch.stack(column, 1).to(device) for column in zip(*rows, strict=True))
    return Batch(obs=obs, action=action, logp=logp, reward=reward, mask=mask, key=torch.arange(count, device=device))
