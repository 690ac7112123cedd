"""Chunk PPO: clone chunks of actions with a Gaussian, then improve it by PPO.

Paper.  Schulman et al., Proximal Policy Optimization Algorithms, 2017. arXiv 1707.06347.
Claim.  A cloned policy is improved by the rewards of its own chunks.
Idea.   one decision is one chunk; max(-A r, -A clip(r, 1 - e, 1 + e)) on the ratio r of its density
State.  policy, critic, one optimizer with two rates
Note.   The baseline of the diffusion papers. log-densities are means over the numbers of a chunk, as in DPPO.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ...collectors.chains import chains
from ...core.batch import Batch
from ...core.state import State
from ...core.stream import Stream
from ...core.system import System
from ...credit.returns import gae, standardize
from ...engines.policy_gradient import policy_gradient
from ...losses import Loss, clip, squared
from ...models.diffusion import GaussianChunk
from ...models.twin_q import mlp
from ...optimize.epochs import epochs


class ChunkValue(nn.Module):
    """V(s), the same for every decision of a chunk."""

    def __init__(self, cond: int, hidden: int):
        super().__init__()
        self.net = mlp(cond, 1, hidden)

    def forward(self, cond: Tensor) -> Tensor:
        return self.net(cond)[..., 0]

    def value(self, obs: dict[str, Tensor], action: Tensor, mask: Tensor) -> Tensor:
        return self(obs["cond"])[:, None].expand_as(mask)


def tune(
    make: Callable[[int, int], nn.Module], loss: Loss, fade: float = 1.0, *, envs: int = 128, horizon: int = 4, lr: float = 1e-4,
    critic_lr: float = 1e-3, discount: float = 0.99, decay: float = 0.95, count: int = 5, minibatches: int = 4,
    demos: int = 500, pretrain: int = 2000, hidden: int = 128,
) -> System:  # fmt: skip
    """Clone with `make(cond, dims)`, then a policy gradient with `loss`; options: see `chunk_ppo`."""

    def init(problem: Any, rng: Stream) -> State:
        cond, chunk = problem.demos(demos, rng / "demos")
        with (rng / "nets").fork():
            state = State(policy=make(cond.shape[1], chunk.shape[1]), critic=ChunkValue(cond.shape[1], hidden))
        cloned, generator = torch.optim.Adam(state.policy.parameters(), 1e-3), (rng / "pretrain").torch()
        for _ in range(pretrain):
            rows = torch.randint(len(cond), (256,), generator=generator)
            cloned.zero_grad(set_to_none=True)
            state.policy.loss(chunk[rows], cond[rows], generator).backward()
            cloned.step()
        state.policy.freeze()
        tuned = [p for p in state.policy.parameters() if p.requires_grad]
        groups = [{"params": tuned, "lr": lr}, {"params": list(state.critic.parameters()), "lr": critic_lr}]
        state.optimizers["policy"] = torch.optim.Adam(groups)
        return state

    @torch.no_grad()
    def credit(state: State, batch: Batch) -> dict[str, Tensor]:
        def grid(x: Tensor) -> Tensor:
            return x.view(envs, horizon)

        value, later = grid(state.critic(batch.obs["cond"])), grid(state.critic(batch.info["next_obs"]))
        over = grid(batch.info["terminated"]), grid(batch.info["truncated"])
        gain = gae(grid(batch.score), value, later, *over, discount=discount, decay=decay)
        steps = batch.mask.shape[1]
        trust = fade ** torch.arange(steps - 1, -1, -1, device=gain.device)
        advantage = standardize(gain, torch.ones_like(gain)).view(-1, 1) * trust
        return {"advantage": advantage, "value": value.view(-1, 1), "target": (gain + value).view(-1, 1)}

    update = epochs(count, minibatches=minibatches, max_norm=1.0, max_kl=1.0)
    return policy_gradient(init=init, collect=chains(envs=envs, horizon=horizon), credit=credit, loss=loss, update=update)


def chunk_ppo(
    *, epsilon: float = 0.2, std: float = 0.2, floor: float = 0.1, envs: int = 128, horizon: int = 4, lr: float = 1e-4,
    critic_lr: float = 1e-3, discount: float = 0.99, decay: float = 0.95, count: int = 5, minibatches: int = 4,
    demos: int = 500, pretrain: int = 2000, hidden: int = 128,
) -> System:  # fmt: skip
    """Gaussian behaviour cloning of chunks, then PPO, on a problem with `demos`.

    epsilon      bound of the ratio
    std          standard deviation of a move after cloning
    floor        its smallest value
    envs         environments side by side
    horizon      chunks in each
    lr           of the policy
    critic_lr    of the critic
    discount     per chunk
    decay        of the advantage's trace
    count        passes over a batch
    minibatches  optimizer steps of a pass
    demos        demonstrations cloned
    pretrain     gradient steps of cloning
    hidden       width of the networks
    """

    def make(cond: int, dims: int) -> nn.Module:
        return GaussianChunk(cond, dims, hidden=hidden, floor=floor, std=std)

    loss = clip(low=epsilon, high=epsilon) + 0.5 * squared()  # <- the idea
    return tune(
        make, loss, envs=envs, horizon=horizon, lr=lr, critic_lr=critic_lr, discount=discount, decay=decay, count=count,
        minibatches=minibatches, demos=demos, pretrain=pretrain, hidden=hidden,
    )  # fmt: skip
