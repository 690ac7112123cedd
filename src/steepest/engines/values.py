"""What a critic says of a batch, whatever kind of problem it came from, and how it learns alone."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..core.batch import Batch
from ..core.recurrent import Seen
from ..core.state import State
from ..losses import Reduce, Terms, token_mean
from .policy_gradient import PolicyObjective


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


@dataclass(frozen=True)
class CriticObjective(PolicyObjective):
    """A loss as the critic alone sees it: the policy is not asked, its ratio is 1 everywhere and has no gradient."""

    reduce: Reduce = token_mean

    def terms(self, state: State, batch: Batch) -> Terms:
        nothing, value = torch.zeros_like(batch.mask), state.critic.value(batch.obs, batch.action, batch.mask)
        return Terms(nothing, nothing, nothing, batch.mask, value=value, old_value=batch.value, target=batch.target)

    def judge(self, state: State, batch: Batch) -> None:
        return None
