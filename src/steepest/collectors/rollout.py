"""Steps in live environments."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..core.batch import Batch
from ..core.live import Live
from ..core.problem import Control
from ..core.state import State
from ..core.stream import Stream
from .experience import Collect


def rollout(*, envs: int = 8, horizon: int = 256) -> Collect:
    """Let `envs` environments go on for `horizon` steps each, from where the last collection left them (`state.live`).

    -> Batch [envs, horizon]; ``info`` has next_obs [envs, horizon, O], the true successors, terminated and truncated
    [envs, horizon] bool, and of the episodes that ended: `return` and `episode_length` (means), `episodes` (how many).
    A State that has `return_scale` (`models.moments.ReturnScale`) gets its rewards scaled by it.
    """
    for name, size in (("envs", envs), ("horizon", horizon)):
        if size < 1:
            raise ValueError(f"{name} must be at least 1, not {size}")

    @torch.no_grad()
    def collect(state: State, problem: Control, rng: Stream) -> Batch:
        live = getattr(state, "live", None)
        if not isinstance(live, Live) or live.count != envs:
            raise ValueError(
                f"a rollout of {envs} environments needs them as `live` in State, which has {getattr(live, 'count', 'none')}: "
                "build it with models.build.actor_state(..., envs=envs) or core.live.Live(problem, envs, rng)"
            )
        device = state.device
        policy, generator = state.policy, (rng / "act").torch(device)
        sample = policy.sampler(generator, horizon) if hasattr(policy, "sampler") else lambda obs: policy.sample(obs, generator)
        vector, obs = live.resume(problem, rng / "reset")
        rows: list[tuple[Tensor, ...]] = []
        for _ in range(horizon):
            action, logp = sample(obs.to(device))
            step = vector.step(action.cpu())
            rows.append((obs, action, logp, step.reward, step.next_obs, step.terminated, step.truncated))
            obs = step.obs
        live.leave(vector, obs)
        columns = (torch.stack(column, 1) for column in zip(*rows, strict=True))
        seen, action, logp, reward, next_obs, terminated, truncated = columns
        over = terminated | truncated
        info: dict[str, Any] = {"next_obs": next_obs.to(device), "terminated": terminated.to(device), "truncated": truncated.to(device)}
        info |= count_episodes(live, reward, over)
        reward = reward.to(device)
        if hasattr(state, "return_scale"):
            reward = state.return_scale(reward, over.to(device))
        return Batch(
            obs=seen.to(device), action=action, logp=logp, reward=reward, mask=torch.ones_like(reward),
            key=torch.arange(envs, device=device), info=info,
        )  # fmt: skip

    return collect


def count_episodes(live: Live, reward: Tensor, over: Tensor) -> dict[str, float]:
    """Add reward [N, T] to the running episodes, and say what those that ended (`over` [N, T]) came to."""
    earned = live.score[:, None] + reward.double().cumsum(1)
    passed = live.length[:, None] + torch.arange(1, reward.shape[1] + 1)
    scores, lengths = [], []
    for n in over.any(1).nonzero()[:, 0].tolist():
        ends = over[n].nonzero()[:, 0]
        for at_end, found in ((earned, scores), (passed, lengths)):
            marks = at_end[n, ends]
            found.append(torch.cat([marks[:1], marks.diff()]))
            at_end[n] -= marks[-1]
    live.score.copy_(earned[:, -1])
    live.length.copy_(passed[:, -1])
    if not scores:
        return {}
    every, long = torch.cat(scores), torch.cat(lengths)
    return {"return": float(every.mean()), "episode_length": float(long.double().mean()), "episodes": float(len(every))}
