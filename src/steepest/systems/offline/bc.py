"""BC: do what the data did.

Paper.  Pomerleau, ALVINN: An Autonomous Land Vehicle in a Neural Network, 1988. NeurIPS 1.
Claim.  A network trained on logged actions drives as the logger did.
Idea.   minimise the mean of (pi(s) - a)^2
State.  policy (with the normalisation of observations), optimizer
"""

from __future__ import annotations

from typing import Any

import torch

from ...collectors.dataset import dataset
from ...core.state import State
from ...core.stream import Stream
from ...core.system import System
from ...models.deterministic import DeterministicActor
from ...problems.offline import Offline, OfflineData


def bc(*, lr: float = 3e-4, batch: int = 256, hidden: int = 256, updates: int = 100) -> System:
    """Behaviour cloning with a deterministic policy.

    lr       learning rate of Adam
    batch    rows of an update
    hidden   width of both hidden layers
    updates  gradient steps of a training step
    """
    if not lr > 0 or min(batch, hidden, updates) < 1:
        raise ValueError(f"lr must be positive and batch, hidden, updates at least 1, not {lr}, {batch}, {hidden}, {updates}")

    def init(problem: Offline, rng: Stream) -> State:
        data = problem.data
        with (rng / "policy").fork():
            state = State(policy=DeterministicActor(*data.stats(), data.act.shape[1], hidden))
        state.optimizers["policy"] = torch.optim.Adam(state.policy.parameters(), lr)
        return state

    def learn(state: State, rows: OfflineData, rng: Stream) -> dict[str, Any]:
        optimizer = state.optimizers["policy"]
        for index in torch.arange(len(rows)).split(batch):
            loss = ((state.policy(rows.obs[index]) - rows.act[index]) ** 2).mean()  # <- the idea
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        return {"imitation": float(loss.detach())}

    return System(init, dataset(batch=batch * updates), learn)
