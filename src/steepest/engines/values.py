"""What a critic says of a batch, whatever kind of problem it came from."""

from __future__ import annotations

import torch
from torch import Tensor

from ..core.batch import Batch
from ..core.recurrent import Seen
from ..core.state import State


@torch.no_grad()
def values(state: State, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """V(s_t), V(s_{t+1}), terminated and truncated, all [N, T]: the arguments of `credit.gae`.

    Environments say what followed each step (``info["next_obs"]``). A text does not need to: what follows a token is the
    next token's state, and after its last token nothing follows.
    """
    if "next_obs" in batch.info:
        terminated, truncated = batch.info["terminated"], batch.info["truncated"]
        if isinstance(batch.obs, Seen):
            asked = truncated.clone()
            asked[:, -1] |= ~terminated[:, -1]
            value, later = state.critic.successors(batch.obs, batch.info["next_obs"], asked)
            return value, later, terminated, truncated
        value = state.critic.value(batch.obs, batch.action, batch.mask)
        last = terminated | truncated
        last[:, -1] = True  # inside an episode the successor is what was seen next, and its value is known
        later = torch.cat([value[:, 1:], value[:, :1]], 1)
        later[last] = state.critic.value(batch.info["next_obs"][last], batch.action[last], batch.mask[last])
        return value, later, terminated, truncated
    value = state.critic.value(batch.obs, batch.action, batch.mask)
    left = batch.mask.flip(1).cumsum(1).flip(1)  # decisions from here on
    return value, torch.cat([value[:, 1:], torch.zeros_like(value[:, :1])], 1), left <= 1, torch.zeros_like(left, dtype=torch.bool)
