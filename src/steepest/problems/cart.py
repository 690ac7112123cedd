"""CartPole with a force of any size, and a second task beside the first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..core.stream import Stream
from .control import Array, CartPole
from .offline import OfflineData, log


@dataclass(frozen=True)
class CartTasks(CartPole):
    """CartPole with a force in [-1, 1] of 10 newtons. The reward is the first task's: 1 a step while the pole stands. The added
    task is to stand at `place`: `cost` is what it charges.

    limit     steps until the clock ends an episode
    episodes  greedy episodes of an evaluation
    place     where to stand, metres
    """

    place: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not abs(self.place) < self.edge[0]:
            raise ValueError(f"place must lie on the track, nearer than {self.edge[0]} to its middle, not at {self.place}")

    @property
    def action_space(self) -> Any:
        from gymnasium.spaces import Box

        return Box(-1.0, 1.0, (1,))

    def move(self, state: Array, action: Array) -> tuple[Array, Array, Array]:
        share = np.clip(action.reshape(-1).astype(np.float64), -1.0, 1.0)
        return super().move(state, (share + 1) / 2)

    def cost(self, obs: Tensor) -> Tensor:
        """Of being there [B]: the squared distance, 1 at the far end of the track. obs [B, 4]"""
        return ((obs[:, 0] - self.place) / (self.edge[0] + abs(self.place))) ** 2

    def teacher(self, obs: Tensor) -> Tensor:
        """A linear controller that balances near the middle: close to the optimal one for small angles. obs [B, 4] -> [B, 1]"""
        return (obs @ torch.tensor([0.1, 0.21, 3.2, 0.7]))[:, None].clamp(-1, 1)

    def lessons(self, rng: Stream) -> OfflineData:
        """6,400 steps of the teacher, in 64 environments with from no noise to so much that the pole falls."""

        def noisy(obs: Tensor, generator: torch.Generator) -> Tensor:
            jitter = torch.linspace(0, 2, len(obs))[:, None] * torch.randn(len(obs), 1, generator=generator)
            return (self.teacher(obs) + jitter).clamp(-1, 1)

        return log(self, noisy, count=64, steps=100, rng=rng)

    @torch.no_grad()
    def evaluate(self, policy: Any, rng: Stream) -> dict[str, float]:
        """`added`: minus the mean cost of a step, 1 after a fall; `return` of the first task; both of greedy episodes."""
        vector, generator = self.make(self.episodes), (rng / "act").torch()
        obs, standing = vector.reset(rng / "reset"), torch.ones(self.episodes)
        paid, stood = torch.zeros(self.episodes), torch.zeros(self.episodes)
        for _ in range(self.limit):
            step = vector.step(policy.act(obs, generator, True).cpu())
            stood += standing
            standing = standing * ~step.terminated
            paid += torch.where(standing > 0, self.cost(step.next_obs), 1.0)
            obs = step.obs
        return {"added": -float(paid.mean()) / self.limit, "return": float(stood.mean())}
