"""RLHF: fit a reward to preferences, then improve the policy on it by policy gradient, near the reference.

Paper.  Ouyang et al., Training Language Models to Follow Instructions with Human Feedback, 2022. arXiv 2203.02155.
Claim.  None here: it is the baseline of methods that learn from preferences directly.
Idea.   r = argmax sum log sigmoid(r(chosen) - r(rejected));   pi = argmax E r - beta KL(pi || reference)
State.  policy, frozen reference, reward table, two Adams
Note.   On finite problems only, with tables. The baseline of an answer is the mean of the others to its question, not a critic.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...collectors.pairs import pairs
from ...core.batch import Batch
from ...core.pairs import Pairs, Preferences
from ...core.state import State
from ...core.stream import Stream
from ...core.system import System
from ...credit import leave_one_out
from ...engines.policy_gradient import policy_gradient
from ...losses import clip
from ...losses.preference import PairTerms, logistic
from ...models.build import actor_state
from ...models.tabular import TabularReward
from ...optimize.epochs import Epochs


def rlhf(
    *, beta: float = 0.02, fit: int = 500, fit_lr: float = 0.01, ridge: float = 0.0, count: int = 64, lr: float = 0.01,
    group: int = 16, clip_range: float = 0.2, epochs: int = 4,
) -> System:  # fmt: skip
    """A Bradley-Terry reward, then clipped policy gradient on it.

    beta        what a nat of KL(pi || reference) costs, in reward (paper: 0.02)
    fit         first training steps, in which the reward is fitted; the policy learns in those after
    fit_lr      learning rate of the reward's Adam
    ridge       weight of the rewards' squares in its loss
    count       pairs of a reward step (paper: 64)
    lr          learning rate of the policy's Adam
    group       answers to each question in a policy step
    clip_range  the band of the ratio is 1 +- this (paper: 0.2)
    epochs      passes over a step's answers (paper: 4)
    """
    if min(beta, fit_lr, lr) <= 0 or fit < 1 or ridge < 0 or group < 2:
        raise ValueError(
            "beta, fit_lr, lr must be positive, fit >= 1, ridge >= 0, group >= 2, "
            f"not {beta}, {fit_lr}, {lr}, {fit}, {ridge}, {group}"
        )

    def init(problem: Any, rng: Stream) -> State:
        if not isinstance(problem, Preferences):
            raise TypeError(
                f"this rlhf keeps its reward in a table, which does not fit {type(problem).__name__}: it is no Preferences problem"
            )
        state = actor_state(problem, rng, lr=lr, reference=True)
        state.reward = TabularReward(problem.log_reference)
        state.optimizers["reward"] = torch.optim.Adam(state.reward.parameters(), fit_lr)
        return state

    compared = pairs(count=count)

    @torch.no_grad()
    def collect(state: State, problem: Preferences, rng: Stream) -> Any:  # Pairs while the reward is fitted, then a Batch
        if state.step < fit:
            return compared(state, problem, rng)
        key = torch.arange(len(problem.log_reference), device=state.device).repeat_interleave(group)
        action, logp = state.policy.sample(key, rng.torch(state.device))
        obs, action, logp = key[:, None], action[:, None], logp[:, None]
        away = logp - state.reference.logp(obs, action, torch.ones_like(logp))
        reward: Any = state.reward
        return Batch(obs, action, logp, reward(obs, action) - beta * away, torch.ones_like(logp), key)  # <- the idea

    def credit(state: State, batch: Batch) -> Tensor:
        return leave_one_out(batch.score, batch.key)[:, None]

    update = Epochs(epochs, max_norm=1.0)
    actor = policy_gradient(init=init, collect=collect, credit=credit, loss=clip(low=clip_range, high=clip_range), update=update)

    def learn(state: State, batch: Pairs | Batch, rng: Stream) -> dict[str, Any]:
        if isinstance(batch, Batch):
            return actor.learn(state, batch, rng)
        reward: Any = state.reward
        chosen, rejected = (reward(batch.obs, action).squeeze(1) for action in (batch.chosen, batch.rejected))
        nothing = torch.zeros_like(chosen.detach())
        terms = PairTerms(chosen, rejected, nothing, nothing)
        value = (batch.weight * (logistic(beta=1.0)(terms).loss + ridge * (chosen**2 + rejected**2))).sum()
        optimizer = state.optimizers["reward"]
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        optimizer.step()
        return {"reward_loss": float(value.detach())}

    return System(init, collect, learn)
