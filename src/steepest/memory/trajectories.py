"""Whole trajectories, in the order in which they were lived."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .replay import Replay


class TrajectoryStore(nn.Module):
    """The last `capacity` trajectories of at most `horizon` steps: a Replay whose rows are trajectories, read oldest first.

    obs     an example observation [*o]
    action  an example action [*a]
    """

    def __init__(self, capacity: int, horizon: int, *, obs: Tensor, action: Tensor):
        super().__init__()
        if horizon < 1:
            raise ValueError(f"a trajectory has at least one step, not {horizon}")

        def rows(x: Tensor) -> Tensor:
            return x.expand(horizon, *x.shape)

        self.ring = Replay(
            capacity, obs=rows(obs), next_obs=rows(obs), action=rows(action),
            reward=torch.zeros(horizon), mask=torch.zeros(horizon), terminated=torch.zeros(horizon, dtype=torch.bool),
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.ring)

    def write(self, **columns: Any) -> None:
        """Add N trajectories: obs, next_obs [N, T, *o], action [N, T, *a], reward, mask, terminated [N, T]."""
        self.ring.write(**columns)

    def read(self) -> dict[str, Tensor]:
        """The columns of all held trajectories [n, T, ...], oldest first."""
        held, ring = len(self), self.ring
        order = (ring.cursor[0] - held + torch.arange(held, device=ring.cursor.device)) % ring.capacity
        return {name: getattr(ring, name)[order] for name in ring.names}
