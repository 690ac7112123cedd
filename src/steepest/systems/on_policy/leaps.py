"""LEAPS, its limit: the one program that earns most alone, found by trying all of them again and again.

Paper.  Trivedi, Zhang, Sun and Lim, Learning to Synthesize Programs as Interpretable and Generalizable Policies, 2021.
        arXiv 2108.13643.
Claim.  A baseline: what methods that compose programs are compared with.
Idea.   argmax over programs of the mean return of one run
State.  policy: what each program has earned so far
Note.   LEAPS searches the latent space of a program autoencoder by the cross-entropy method and so finds a good program; over a
        finite library the best one can be found for certain, given enough worlds. No search over single programs can do better.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ...core.batch import Batch
from ...core.state import State
from ...core.stream import Stream
from ...core.system import System
from ...problems.karel import Karel


class Alone(nn.Module):
    """Runs the program of the highest mean return, then the first of the library, which does nothing."""

    earned: Tensor  # [size] sum of returns
    tried: Tensor  # [] worlds in which each program was tried

    def __init__(self, size: int):
        super().__init__()
        self.register_buffer("earned", torch.zeros(size, dtype=torch.float64))
        self.register_buffer("tried", torch.zeros((), dtype=torch.long))

    def act(self, obs: Tensor, generator: torch.Generator, greedy: bool = False) -> Tensor:
        return torch.where(obs[:, -1] == 1, self.earned.argmax(), 0)  # the last number of obs is the share of programs left


def leaps(*, worlds: int = 16) -> System:
    """The best single program. For Karel.

    worlds  in which each program of the library is tried, a step
    """
    if worlds < 1:
        raise ValueError(f"every program is tried in at least one world, not {worlds}")

    def init(problem: Karel, rng: Stream) -> State:
        return State(policy=Alone(problem.size))

    def collect(state: State, problem: Karel, rng: Stream) -> Batch:
        rewards = []
        for program in range(problem.size):  # all in the same worlds
            vector = problem.make(worlds)
            vector.reset(rng / "worlds")
            rewards.append(vector.step(torch.full((worlds,), program)).reward)
        action = torch.arange(problem.size)[:, None].expand(-1, worlds)
        reward = torch.stack(rewards).to(state.device)
        return Batch(None, action, None, reward, torch.ones_like(reward), torch.arange(problem.size))

    def learn(state: State, batch: Batch, rng: Stream) -> dict[str, Any]:
        policy = state.policy
        policy.earned += batch.score  # <- the idea
        policy.tried += worlds
        return {"return": float(policy.earned.max() / policy.tried), "program": float(policy.earned.argmax())}

    return System(init, collect, learn)
