"""TD3+BC: TD3 on logged data, with a pull of the actor towards the logged action.

Paper.  Fujimoto and Gu, A Minimalist Approach to Offline Reinforcement Learning, 2021. arXiv 2106.06860.
Claim.  One added term and normalised states make TD3 earn more than behaviour cloning from imperfect data.
Idea.   maximise alpha Q(s, pi(s)) / mean |Q| - (pi(s) - a)^2
State.  policy (with the normalisation of observations), critic, target, optimizers; the data belong to the problem
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ...collectors.dataset import dataset
from ...core.state import State
from ...core.stream import Stream
from ...core.system import System
from ...memory.average import Average
from ...models.deterministic import DeterministicActor
from ...models.twin_q import TwinQ
from ...optimize.epochs import descend
from ...problems.offline import Offline, OfflineData


def q_scale(q: Tensor, alpha: float) -> Tensor:
    """alpha / mean |q|: the actor's two terms keep their proportion whatever the size of rewards. No gradient."""
    return alpha / q.detach().abs().mean().clamp(min=1e-8)


def td_target(rew: Tensor, next_q: Tensor, terminated: Tensor, discount: float) -> Tensor:
    """r + discount (1 - terminated) Q(s'). A truncated step bootstraps. [B]"""
    return rew + discount * (1 - terminated.to(rew)) * next_q


def td3_bc(
    *, alpha: float = 2.5, discount: float = 0.99, tau: float = 0.005, noise: float = 0.2, noise_clip: float = 0.5,
    delay: int = 2, lr: float = 3e-4, batch: int = 256, hidden: int = 256, updates: int = 100,
) -> System:  # fmt: skip
    """TD3 with a behaviour cloning term.

    alpha       weight of the value against imitation
    discount    of rewards, per step
    tau         share of the new parameters in a target update
    noise       standard deviation of the target action's noise (actions span [-1, 1])
    noise_clip  its largest size
    delay       critic updates for one of the actor and the targets
    lr          learning rate of both Adams
    batch       rows of an update
    hidden      width of both hidden layers
    updates     critic updates of a training step, a multiple of delay
    """
    if not lr > 0 or min(batch, hidden, updates, delay) < 1 or updates % delay:
        raise ValueError(f"lr must be positive, sizes at least 1 and updates a multiple of delay, not {lr}, {updates}, {delay}")
    if alpha < 0 or not 0 <= discount < 1 or not 0 < tau <= 1:
        raise ValueError(f"alpha must be at least 0, discount in [0, 1) and tau in (0, 1], not {alpha}, {discount}, {tau}")

    def init(problem: Offline, rng: Stream) -> State:
        data = problem.data
        with (rng / "nets").fork():
            policy = DeterministicActor(*data.stats(), data.act.shape[1], hidden)
            critic = TwinQ(data.obs.shape[1], data.act.shape[1], hidden)
        target = Average(nn.ModuleDict({"policy": policy, "critic": critic}), 1 - tau)
        state = State(policy=policy, critic=critic, target=target)
        state.optimizers = {name: torch.optim.Adam(getattr(state, name).parameters(), lr) for name in ("policy", "critic")}
        return state

    def learn(state: State, rows: OfflineData, rng: Stream) -> dict[str, Any]:
        policy, critic, generator = state.policy, state.critic, rng.torch(state.device)
        average: Any = state.target
        target = average.read()
        obs, next_obs = policy.normalize(rows.obs), policy.normalize(rows.next_obs)
        for update, index in enumerate(torch.arange(len(rows)).split(batch), 1):
            s, a = obs[index], rows.act[index]
            with torch.no_grad():
                jitter = (noise * torch.randn(a.shape, generator=generator, device=a.device)).clamp(-noise_clip, noise_clip)
                next_act = (target["policy"](rows.next_obs[index]) + jitter).clamp(-1, 1)
                next_q = torch.minimum(*target["critic"](next_obs[index], next_act))
                goal = td_target(rows.rew[index], next_q, rows.terminated[index], discount)
            q1, q2 = critic(s, a)
            critic_loss = ((q1 - goal) ** 2).mean() + ((q2 - goal) ** 2).mean()
            descend(state.optimizers["critic"], critic_loss)
            if update % delay == 0:
                chosen = policy(rows.obs[index])
                q = critic(s, chosen)[0]
                imitation = ((chosen - a) ** 2).mean()
                descend(state.optimizers["policy"], imitation - q_scale(q, alpha) * q.mean())  # <- the idea
                average.write(nn.ModuleDict({"policy": policy, "critic": critic}))
        return {"critic_loss": float(critic_loss.detach()), "imitation": float(imitation.detach()), "q": float(q.detach().mean())}

    return System(init, dataset(batch=batch * updates), learn)
