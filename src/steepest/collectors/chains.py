"""Chunks decided by a policy that takes several decisions for each (denoising steps)."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ..core.batch import Batch
from ..core.problem import Control
from ..core.state import State
from ..core.stream import Stream


def chains(*, envs: int, horizon: int) -> Callable[[State, Control, Stream], Batch]:
    """`horizon` chunks in each of `envs` fresh environments: a Batch of N = envs * horizon chains.

    Rows of an environment are consecutive. A chain's reward is on its last decision; info has `next_obs` [N, S],
    `terminated` and `truncated` [N] of the environment.
    """
    if min(envs, horizon) < 1:
        raise ValueError(f"envs and horizon must be at least 1, not {envs} and {horizon}")

    @torch.no_grad()
    def collect(state: State, problem: Control, rng: Stream) -> Batch:
        env, generator, steps = problem.make(envs), (rng / "act").torch(state.device), []
        cond = env.reset(rng / "reset")
        for _ in range(horizon):
            obs, action, chunk = state.policy.decide(cond.to(state.device), generator)
            out = env.step(chunk.cpu())
            steps.append({**obs, "action": action, "reward": out.reward, "next_obs": out.next_obs,
                          "terminated": out.terminated, "truncated": out.truncated})  # fmt: skip
            cond = out.obs
        rows = {k: torch.stack([s[k] for s in steps], 1).flatten(0, 1).to(state.device) for k in steps[0]}
        action, info = rows.pop("action"), {k: rows.pop(k) for k in ("next_obs", "terminated", "truncated")}
        mask = torch.ones(action.shape[:2], device=action.device)
        reward = torch.zeros_like(mask)
        reward[:, -1] = rows.pop("reward")
        ended = int((info["terminated"] | info["truncated"]).sum())
        metrics = {"success": float((reward > 0).sum()) / ended} if ended else {}
        logp = state.policy.logp(rows, action, mask)
        key = torch.arange(envs, device=mask.device).repeat_interleave(horizon)
        return Batch(rows, action, logp, reward, mask, key, info={**info, **metrics})

    return collect
