"""MultiReach2D: a point reaches one of several goals behind an obstacle, in chunks of moves."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..core.problem import Control, Step, Vector
from ..core.stream import Stream

CHUNK, SPEED, NEAR, BLOCK = 8, 0.07, 0.1, 0.2  # moves of a decision, length of a move, radius of goals and of the obstacle


@dataclass(frozen=True)
class MultiReach2D(Control):
    """From (0, 0) to any of `goals` goals on an arc of radius 1; a disc at (0.5, 0) ends the episode when touched.

    obs [3]: position, share of the clock. An action is 8 moves [16] in [-1, 1]. Reward 1 at a goal.

    goals   goals on the arc from -50 to 50 degrees
    chunks  decisions before the clock ends the episode
    noise   standard deviation of the demonstrator's moves
    """

    goals: int = 4
    chunks: int = 4
    noise: float = 0.3

    def __post_init__(self) -> None:
        if self.goals < 2 or self.chunks < 2 or self.noise < 0:
            raise ValueError(f"needs 2 goals, 2 chunks and noise of at least 0, not {self.goals}, {self.chunks}, {self.noise}")

    @property
    def observation_space(self) -> Any:  # type: ignore[override]
        from gymnasium.spaces import Box

        return Box(-4.0, 4.0, (3,))

    @property
    def action_space(self) -> Any:  # type: ignore[override]
        from gymnasium.spaces import Box

        return Box(-1.0, 1.0, (2 * CHUNK,))

    @property
    def places(self) -> Tensor:
        """[goals, 2]"""
        angle = torch.linspace(-50, 50, self.goals) * math.pi / 180
        return torch.stack([angle.cos(), angle.sin()], 1)

    def make(self, count: int) -> Points:
        return Points(self, count)

    def demos(self, count: int, rng: Stream) -> tuple[Tensor, Tensor]:
        """Observations [M, 3] and chunks [M, 16] of `count` noisy demonstrations, each to a goal drawn uniformly."""
        env, generator = self.make(count), rng.torch()
        env.resets = False
        obs, rows = env.reset(rng / "start"), []
        goal = self.places[torch.randint(self.goals, (count,), generator=generator)]
        alive = torch.ones(count, dtype=torch.bool)
        for _ in range(self.chunks):
            at, moves = obs[:, :2], []
            for _ in range(CHUNK):
                corner = torch.stack([torch.full((count,), 0.5), 0.35 * goal[:, 1].sign()], 1)
                aim = torch.where((at[:, :1] < 0.45), corner, goal) - at
                move = aim / aim.norm(dim=1, keepdim=True).clamp(min=SPEED)
                moves.append((move + self.noise * torch.randn(count, 2, generator=generator)).clamp(-1, 1))
                at = at + SPEED * moves[-1]
            chunk = torch.cat(moves, 1)
            rows.append((obs[alive], chunk[alive]))
            out = env.step(chunk)
            alive, obs = alive & ~out.terminated, out.next_obs
        return torch.cat([o for o, _ in rows]), torch.cat([a for _, a in rows])

    def evaluate(self, policy: Any, rng: Stream) -> dict[str, float]:
        """`success` share of 256 episodes; `mode_entropy` of the goals reached, 1 if all are equally often."""
        env, generator = self.make(256), (rng / "act").torch()
        env.resets = False
        obs = env.reset(rng / "start")
        open_, hit, where = torch.ones(256, dtype=torch.bool), torch.zeros(256, dtype=torch.bool), torch.zeros(256, 2)
        for _ in range(self.chunks):
            out = env.step(policy.act(obs, generator, True))
            now = open_ & (out.reward > 0)
            hit, where = hit | now, torch.where(now[:, None], out.next_obs[:, :2], where)
            open_, obs = open_ & ~out.terminated, out.next_obs
        share = torch.bincount(torch.cdist(where[hit], self.places).argmin(1), minlength=self.goals) / max(1, int(hit.sum()))
        entropy = -torch.special.xlogy(share, share).sum() / math.log(self.goals)
        return {"success": float(hit.float().mean()), "mode_entropy": float(entropy)}


class Points(Vector):
    """`resets` False: finished environments stay where they are."""

    resets = True

    def __init__(self, problem: MultiReach2D, count: int):
        self.problem, self.count = problem, count
        self.places = problem.places
        self.state = {"at": torch.zeros(count, 2), "clock": torch.zeros(count, dtype=torch.long)}

    def see(self, at: Tensor, clock: Tensor) -> Tensor:
        return torch.cat([at, clock[:, None] / self.problem.chunks], 1)

    def reset(self, rng: Stream) -> Tensor:
        self.state = {"at": torch.zeros(self.count, 2), "clock": torch.zeros(self.count, dtype=torch.long)}
        return self.see(**self.state)

    def step(self, action: Tensor) -> Step:
        at = self.state["at"].clone()
        won, lost = torch.zeros(self.count, dtype=torch.bool), torch.zeros(self.count, dtype=torch.bool)
        for move in action.clamp(-1, 1).reshape(self.count, CHUNK, 2).unbind(1):
            at = torch.where((won | lost)[:, None], at, at + SPEED * move)
            won |= torch.cdist(at, self.places).amin(1) < NEAR
            lost |= (at - torch.tensor([0.5, 0.0])).norm(dim=1) < BLOCK
        clock = self.state["clock"] + 1
        terminated = won | lost | (clock >= self.problem.chunks)  # the clock is observed, so its end is the task's
        truncated = torch.zeros_like(terminated)
        next_obs, over = self.see(at, clock), terminated & self.resets
        self.state = {"at": torch.where(over[:, None], 0.0, at), "clock": torch.where(over, 0, clock)}
        return Step(self.see(**self.state), next_obs, won.float(), terminated, truncated)

    def get_state(self) -> dict[str, Tensor]:
        return {name: x.clone() for name, x in self.state.items()}

    def set_state(self, state: dict[str, Tensor]) -> None:
        self.state = {name: x.clone() for name, x in state.items()}
