"""Walks through a finite model, drawn from it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..core.batch import Batch
from ..core.stream import Stream


@torch.no_grad()
def walk(model: Any, pi: Tensor, rng: Stream, *, count: int, steps: int) -> Batch:
    """`count` walks of `steps` decisions each, from ``model.rho``, with the policy pi [S, A] in ``model.P``.

    -> Batch [N, T]: obs and action are numbers of states and actions, reward is the expected one, ``info["next_obs"]``
    [N, T] the states that followed.
    """
    generator = rng.torch(pi.device)

    def draw(chances: Tensor) -> Tensor:
        return torch.multinomial(chances, 1, generator=generator).squeeze(-1)

    state, rows = draw(model.rho.expand(count, -1)), []
    for _ in range(steps):
        action = draw(pi[state])
        after = draw(model.P[state, action])
        rows.append((state, action, after))
        state = after
    obs, action, after = (torch.stack(column, 1) for column in zip(*rows, strict=True))
    reward = model.R[obs, action]
    return Batch(
        obs=obs, action=action, logp=pi.log()[obs, action], reward=reward, mask=torch.ones_like(reward),
        key=torch.arange(count, device=pi.device), info={"next_obs": after},
    )  # fmt: skip
