"""PROPS: act by a policy that makes up for what chance has left out, so that the data looks more like the target policy's.

Paper.  Corrado and Hanna, On-Policy Policy Gradient Reinforcement Learning Without On-Policy Sampling, 2023. arXiv 2311.08290.
Claim.  The actions in a batch are distributed nearer to the target policy than those that it would draw itself.
Idea.   every few steps: behaviour <- target, then minimise E max(r, clip(r, 1 - e, 1 + e)) over what was collected so far,
        r = behaviour(a|s) / target(a|s): actions that were taken become less likely, down to r = 1 - e
State.  as ppo; `behavior` and its Adam; `buffer`, the last batches
Note.   The paper's price on KL(target || behaviour) is left out: it is 0 in the authors' code. The defaults are those for
        discrete actions; for continuous ones they adapt every 8 steps with a `drift` of 0.1 and 16 minibatches.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from ...collectors.rollout import rollout
from ...core.batch import Batch
from ...core.live import Live
from ...core.state import State
from ...core.stream import Stream
from ...core.system import System, extends
from ...engines.policy_gradient import PolicyObjective
from ...losses import clip, token_mean
from ...memory.replay import Replay
from ...optimize.epochs import Epochs
from .ppo import ppo

AFTER = ("next_obs", "terminated", "truncated")
ACTING = ("live", "return_scale")  # what a rollout keeps in State


def alone(obs: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
    """[N, T, ...] -> [N * T, 1, ...]"""
    return obs.reshape(-1, 1, *obs.shape[2:]), action.reshape(-1, 1, *action.shape[2:])


@torch.no_grad()
def under(target: Any, obs: Tensor, action: Tensor) -> Batch:
    """Decisions as if `target` had made them, each to become less likely."""
    mask = torch.ones(action.shape[:2], device=action.device)
    key = torch.zeros(len(mask), dtype=torch.long, device=mask.device)
    return Batch(obs, action, target.logp(obs, action, mask), torch.zeros_like(mask), mask, key, advantage=-mask)


def episodes(parts: list[Batch]) -> dict[str, float]:
    """What the episodes that ended in any part came to."""
    ended = [part.info for part in parts if "episodes" in part.info]
    count = sum(info["episodes"] for info in ended)
    means = {name: sum(info["episodes"] * info[name] for info in ended) / max(1, count) for name in ("return", "episode_length")}
    return {**means, "episodes": count} if ended else {}


@extends(ppo, without=("prompts", "group", "model", "kl", "envs", "horizon"))
def props(
    *, every: int | None = 16, batches: int = 2, band: float = 0.3, behavior_lr: float = 1e-3, behavior_epochs: int = 16,
    behavior_minibatches: int = 4, drift: float = 0.01, envs: int = 1, horizon: int = 256, **options: Any,
) -> System:  # fmt: skip
    """PPO on a buffer that an adapted policy filled. For environments.

    every                 steps of each environment between two adaptations; None: never, which is PPO on the last batches
    batches               in the buffer (authors' code: 2)
    band                  e: how far below 1 an action's ratio is pushed (authors' code: 0.3); 1: freely (ROS, 2111.14552)
    behavior_lr           learning rate of the behaviour's Adam (authors' code: 1e-3)
    behavior_epochs       passes over the buffer at each adaptation (paper: 16)
    behavior_minibatches  optimizer steps of a pass (paper: 4)
    drift                 no further pass once the estimated KL(target || behaviour) of one exceeds it, nats (paper: 0.01)
    envs                  environments side by side (authors' code: 1)
    horizon               steps in each, a multiple of `every` (authors' code: 256)
    """
    if every is not None and (every < 1 or horizon % every):
        raise ValueError(f"horizon must be a multiple of every, not {horizon} and {every}: a batch ends with a whole piece")
    if batches < 1 or not 0 < band <= 1:
        raise ValueError(f"batches must be at least 1 and band in (0, 1], not {batches} and {band}")
    system = ppo(envs=envs, horizon=horizon, **options)
    piece, pieces = (horizon, 1) if every is None else (every, horizon // every)
    less = PolicyObjective(clip(low=band, high=band), token_mean)  # with advantage -1 it is max(r, clip(r))
    adapt = Epochs(behavior_epochs, behavior_minibatches, max_norm=float("inf"), max_kl=drift, optimizer="behavior")
    step = rollout(envs=envs, horizon=piece)

    def init(problem: Any, rng: Stream) -> State:
        state = system.init(problem, rng)
        behavior, live = copy.deepcopy(state.policy), cast(Live, state.live)
        state.behavior, over = behavior, torch.zeros(horizon, dtype=torch.bool)
        state.optimizers["behavior"] = torch.optim.Adam(behavior.parameters(), behavior_lr, eps=1e-5, fused=True)
        pair = live.obs[0], state.policy.act(live.obs[:1], (rng / "action").torch())[0]  # what counts are shapes and types
        obs, action = (x.expand(horizon, *x.shape) for x in pair)
        rows = {"obs": obs, "action": action, "reward": torch.zeros(horizon), "next_obs": obs}
        state.buffer = Replay(envs * batches, **rows, terminated=over, truncated=over)
        return state

    def collect(state: State, problem: Any, rng: Stream) -> Batch:
        behavior, buffer = cast(nn.Module, state.behavior), cast(Any, state.buffer)
        acting = State(policy=behavior, **{name: getattr(state, name) for name in ACTING if hasattr(state, name)})
        acting.optimizers = state.optimizers
        stay = torch.arange(len(buffer))
        if len(buffer) == buffer.capacity:
            stay = stay[(stay - int(buffer.cursor[0])) % buffer.capacity >= envs]  # the oldest make room for what comes
        seen = [alone(buffer.obs[stay], buffer.action[stay])] if len(stay) else []
        parts, told = list[Batch](), dict[str, float]()
        for n in range(pieces):
            behavior.load_state_dict(state.policy.state_dict())
            if every is not None and seen:
                past = under(state.policy, *map(torch.cat, zip(*seen, strict=True)))
                told = adapt(acting, less, past, rng / n / "adapt")  # <- the idea
            parts.append(step(acting, problem, rng / n))
            seen.append(alone(parts[-1].obs, parts[-1].action))
        own = {name: torch.cat([getattr(part, name) for part in parts], 1) for name in ("obs", "action", "reward")}
        buffer.write(**own, **{name: torch.cat([part.info[name] for part in parts], 1) for name in AFTER})
        held = slice(len(buffer))
        info = {name: getattr(buffer, name)[held] for name in AFTER} | episodes(parts)
        info |= {"behavior_kl": told["kl"]} if told else {}
        reward, key = buffer.reward[held], torch.arange(len(buffer), device=buffer.reward.device)
        return Batch(buffer.obs[held], buffer.action[held], None, reward, torch.ones_like(reward), key, info=info)

    return replace(system, init=init, collect=collect)
