"""Steps in live environments."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..core.batch import Batch
from ..core.live import Live
from ..core.problem import Control, Rolled, Vector
from ..core.recurrent import Remembered, Seen
from ..core.state import State
from ..core.stream import Stream
from .experience import Collect


def rollout(*, envs: int = 8, horizon: int = 256) -> Collect:
    """Let `envs` environments go on for `horizon` steps each, from where the last collection left them (`state.live`).

    -> Batch [envs, horizon]; ``info`` has next_obs [envs, horizon, O], the true successors, terminated and truncated
    [envs, horizon] bool, and of the episodes that ended: `return` and `episode_length` (means), `episodes` (how many).
    Where networks remember (`state.memory`), obs is a `Seen` of whole sequences, and the memory goes on with the environments.
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
        vector, obs = live.resume(problem, rng / "reset")
        held = getattr(state, "memory", None)
        if isinstance(held, Remembered):
            policy = policy.resume(held.read()["policy"], held.start.clone())
        obs, columns = vector.roll(policy, obs, generator, horizon) or stepped(vector, policy, obs, generator, horizon)
        live.leave(vector, obs)
        seen, action, logp, reward, next_obs, terminated, truncated = columns
        over = terminated | truncated
        told = {"next_obs": next_obs, "terminated": terminated, "truncated": truncated}
        info: dict[str, Any] = {name: x.to(device) for name, x in told.items()}
        info |= count_episodes(live, reward, over) | vector.metrics()
        reward = reward.to(device)
        scale = getattr(state, "return_scale", None)
        if isinstance(scale, nn.Module):
            reward = scale(reward, over.to(device))
        shown: Any = seen.to(device)
        if isinstance(held, Remembered):
            start = torch.cat([held.start[:, None], over[:, :-1].to(device)], 1)
            shown = Seen(shown, start, held.read())
            after = {name: policy.memory if name == "policy" else getattr(state, name).remember(shown) for name in shown.memory}
            held.write(over[:, -1], after)
        return Batch(
            obs=shown, action=action, logp=logp, reward=reward, mask=torch.ones_like(reward),
            key=torch.arange(envs, device=device), info=info,
        )  # fmt: skip

    return collect


def stepped(vector: Vector, policy: Any, obs: Tensor, generator: torch.Generator, horizon: int) -> Rolled:
    """What `Vector.roll` does, step by step."""
    sample = policy.sampler(generator, horizon) if hasattr(policy, "sampler") else lambda obs: policy.sample(obs, generator)
    rows: list[tuple[Tensor, ...]] = []
    for _ in range(horizon):
        action, logp = sample(obs.to(generator.device))
        step = vector.step(action.cpu())
        rows.append((obs, action, logp, step.reward, step.next_obs, step.terminated, step.truncated))
        if hasattr(policy, "ended"):  # one that remembers is told
            policy.ended(step.terminated | step.truncated)
        obs = step.obs
    return Rolled(obs, tuple(torch.stack(column, 1) for column in zip(*rows, strict=True)))


def count_episodes(live: Live, reward: Tensor, over: Tensor) -> dict[str, float]:
    """Add reward [N, T] to the running episodes, and say what those that ended (`over` [N, T]) came to."""
    n, t = over.nonzero(as_tuple=True)  # in the order of environments, then of time
    first = torch.cat([torch.ones(1, dtype=torch.bool), n[1:] != n[:-1]])[: len(n)]  # of its environment
    last = first.roll(-1)

    def close(running: Tensor, added: Tensor) -> Tensor:
        so_far = running[:, None] + added.cumsum(1)
        marks, after = so_far[n, t], so_far[:, -1].clone()
        after[n[last]] -= marks[last]
        running.copy_(after)
        return marks - torch.where(first, 0, marks.roll(1))

    every, long = close(live.score, reward.double()), close(live.length, torch.ones_like(over, dtype=torch.long))
    if not len(n):
        return {}
    return {"return": float(every.mean()), "episode_length": float(long.double().mean()), "episodes": float(len(n))}
