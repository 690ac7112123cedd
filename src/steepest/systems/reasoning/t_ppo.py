"""T-PPO: do not wait for long answers; learn from the window that was just written, of answers that have ended or not.

Paper.  Fan et al., Truncated Proximal Policy Optimization, 2025. arXiv 2506.15050.
Claim.  It trains long chains of thought in less than half the time of PPO and ends no lower.
Idea.   A_t by GAE over what is written so far; of an answer that goes on, V(what follows the window) := V(its last token)
State.  policy, critic, an Adam for each; of answers that have not ended what is written of them (`unfinished`)
Note.   Only the paper's abstract and summaries were at hand: lambda, discount, clip and passes are the usual ones of PPO on text.
        The policy learns from the tokens of the window alone, so no token moves it twice; the critic from whole answers that
        have ended, towards their return, as the two are optimised apart in the paper. The paper keeps the last tokens of an
        unfinished window for the next step; here all of them count.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ...collectors.windows import kept, windows
from ...core.batch import Batch
from ...core.state import State
from ...core.stream import Stream
from ...core.system import System
from ...credit import gae, reward_to_go, standardize
from ...engines.policy_gradient import Credit, policy_gradient
from ...engines.values import CriticObjective, values
from ...losses import clip, squared
from ...models.build import answer_state
from ...optimize.epochs import Epochs


def t_ppo(
    *, window: int = 8192, clip_range: float = 0.2, discount: float = 1.0, decay: float = 0.95, lr: float = 1e-6,
    critic_lr: float = 2e-6, prompts: int = 512, group: int = 16, epochs: int = 1, minibatches: int = 1,
    max_grad_norm: float = 1.0, temperature: float = 1.0, room: int = 512, model: str | None = None,
) -> System:  # fmt: skip
    """PPO with a critic on windows of answers.

    window         tokens that a step writes of an answer, at most
    clip_range     the band of the ratio is 1 +- this (PPO: 0.2)
    discount       of rewards, per token
    decay          of the advantage's trace, lambda
    lr             learning rate of the policy's Adam
    critic_lr      learning rate of the critic's Adam
    prompts        with `group`: prompts x group answers are written at once
    group          answers to each prompt
    epochs         passes over a step's windows, and over its ended answers
    minibatches    optimizer steps of a pass over the windows
    max_grad_norm  the gradient is scaled down to this norm
    temperature    of sampling
    room           the longest prompt, tokens
    model          a folder or hub id of weights, or a configuration; None: the problem's own
    """
    if not clip_range > 0 or not critic_lr > 0:
        raise ValueError(f"clip_range and critic_lr must be positive, not {clip_range} and {critic_lr}")
    fit, error = Epochs(epochs, max_norm=max_grad_norm, optimizer="critic"), CriticObjective(squared())

    def init(problem: Any, rng: Stream) -> State:
        state = answer_state(problem, rng, lr=lr, critic=True, model=model, temperature=temperature)
        for name, rate in (("policy", lr), ("critic", critic_lr)):
            state.optimizers[name] = torch.optim.Adam(getattr(state, name).parameters(), rate, eps=1e-5, fused=True)
        return state

    actor = policy_gradient(
        init=init, collect=windows(window=window, prompts=prompts, group=group), credit=extended(discount, decay),
        loss=clip(low=clip_range, high=clip_range), update=Epochs(epochs, minibatches, max_norm=max_grad_norm),
    )  # fmt: skip

    def learn(state: State, batch: Batch, rng: Stream) -> dict[str, Any]:
        metrics = actor.learn(state, batch, rng / "policy")
        ended = batch.having(mask=batch.info["answered"]).rows(batch.info["finished"])
        if not len(ended):
            return metrics
        ended = ended.having(target=reward_to_go(ended.reward, ended.mask, discount=discount))
        return {**metrics, "value_loss": fit(state, error, ended, rng / "critic")["value_loss"]}

    return kept(replace(actor, learn=learn), rows=prompts * group, room=room)


def extended(discount: float, decay: float) -> Credit:
    """Generalised advantages of a window; what follows an unfinished one is worth what its last token's state is (EGAE)."""
    if not 0 <= discount <= 1 or not 0 <= decay <= 1:
        raise ValueError(f"discount and decay must lie in [0, 1], not {discount} and {decay}")

    def credit(state: State, batch: Batch) -> Tensor:
        value, later, last, _ = values(state, batch)
        cut = last & ~batch.info["finished"][:, None]
        later = torch.where(cut, value, later)  # <- the idea
        advantage = gae(batch.reward, value, later, last & ~cut, cut, discount=discount, decay=decay)
        return standardize(advantage, batch.mask)

    return credit
