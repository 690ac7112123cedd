"""PPO-max: of the many details of PPO on text, the set that keeps it steady against a learned reward.

Paper.  Zheng et al., Secrets of RLHF in Large Language Models Part I: PPO, 2023. arXiv 2307.04964.
Claim.  Where PPO without them raises the learned reward and loses the text, with them training goes on for long and stays sound.
Idea.   r_t = 1[last] clip((r - mean) / std, -d, d) - eta (log pi - log ref), moments of r over all steps so far; PPO on r_t, with
        advantages standardised, values clipped, and a critic that learns alone for the first steps
State.  policy, critic, one Adam with a learning rate for each; `reward_scale` (moments of the reward); a frozen reference
Note.   Constants are those of the authors' code (OpenLMLab/MOSS-RLHF, config.py), where a step's answers count in the moments
        before they are normalised. There the critic begins as the reward model; here as a copy of the policy, so that
        `critic_steps` must teach it all. The optional loss on pre-training data is left out: its weight is 0 in their code too.
"""

from __future__ import annotations

from typing import Any

import torch

from ...collectors.generate import Gather, generate
from ...core.batch import Batch, at_end
from ...core.state import State
from ...core.stream import Stream
from ...core.system import System
from ...engines.answers import kl_penalty
from ...engines.policy_gradient import policy_gradient
from ...engines.values import CriticObjective
from ...losses import clip, squared, squared_clip
from ...models.build import answer_state
from ...models.moments import Normalizer
from ...optimize.epochs import Epochs, Objective
from ..on_policy.vpg import generalized

CONSTANT = 10  # steps after which a reward that was always the same is a fault


def ppo_max(
    *, reward_clip: float | None = 10.0, kl: float = 0.02, clip_range: float = 0.2, value_clip: float | None = 0.2,
    value_weight: float = 1.0, critic_steps: int = 50, discount: float = 1.0, decay: float = 0.95, lr: float = 5e-7,
    critic_lr: float = 1.5e-6, prompts: int = 128, group: int = 1, epochs: int = 1, minibatches: int = 4,
    max_grad_norm: float = 1.0, temperature: float = 0.8, model: str | None = None, collect: Gather = generate,
) -> System:  # fmt: skip
    """PPO with a critic on whole answers, held steady.

    reward_clip    rewards, at mean 0 and scale 1 by running moments, are kept within +- this (authors' code: 10); None: the
                   reward is taken as it is
    kl             what a nat of KL(pi || reference) costs, in normalised reward (authors' code: 0.02)
    clip_range     the band of the ratio is 1 +- this (authors' code: 0.2)
    value_clip     how far an update may move a value before its gradient stops (authors' code: 0.2); None: freely
    value_weight   of the critic's squared error / 2 (authors' code: 1)
    critic_steps   first steps in which the critic learns alone (here: 50)
    discount       of rewards, per token (authors' code: 1)
    decay          of the advantage's trace, lambda (authors' code: 0.95)
    lr             learning rate of the policy (authors' code: 5e-7)
    critic_lr      learning rate of the critic (authors' code: 1.5e-6)
    prompts        prompts a step (authors' code: a buffer of 128 answers)
    group          answers to each
    epochs         passes over a step's answers
    minibatches    optimizer steps of a pass (authors' code: 128 answers in minibatches of 32)
    max_grad_norm  the gradient is scaled down to this norm
    temperature    of sampling (authors' code: 0.8)
    model          a folder or hub id of weights, or a configuration; None: the problem's own
    collect        (prompts=, group=) -> a collector of answers
    """
    if not clip_range > 0 or not critic_lr > 0 or critic_steps < 0:
        raise ValueError(
            f"clip_range and critic_lr must be positive and critic_steps not negative, not {clip_range}, {critic_lr} and "
            f"{critic_steps}"
        )
    if not all(bound is None or bound > 0 for bound in (reward_clip, value_clip)):
        raise ValueError(f"reward_clip and value_clip must be positive or None, not {reward_clip} and {value_clip}")
    penalise, fit = kl_penalty(kl), Epochs(epochs, minibatches, max_norm=max_grad_norm)
    error = squared() if value_clip is None else squared_clip(width=value_clip)

    def init(problem: Any, rng: Stream) -> State:
        state = answer_state(problem, rng, lr=lr, critic=True, reference=kl > 0, model=model, temperature=temperature)
        rates = ((state.policy, lr), (state.critic, critic_lr))
        sides = [{"params": list(side.parameters()), "lr": rate} for side, rate in rates]
        state.optimizers["policy"] = torch.optim.Adam(sides, lr, eps=1e-5, fused=True)
        if reward_clip is not None:
            state.reward_scale = Normalizer(bound=reward_clip)
        return state

    def select(state: State, batch: Batch) -> Batch:
        if reward_clip is not None:
            score, scale = batch.score, state.reward_scale
            scale.write(score)
            if state.step >= CONSTANT and not scale.var > 0:
                raise ValueError(
                    f"all {int(scale.count)} answers of the first {state.step + 1} steps had the reward {float(score[0]):.4g}: "
                    "nothing can be learned from a constant; look at the reward, or begin with a policy that is sometimes right"
                )
            batch = batch.having(reward=at_end(scale(score), batch.mask))  # <- the idea
        return penalise(state, batch)

    def update(state: State, objective: Objective, batch: Batch, rng: Stream) -> dict[str, Any]:
        alone = state.step < critic_steps
        return fit(state, CriticObjective(value_weight * error) if alone else objective, batch, rng)

    return policy_gradient(
        init=init, collect=collect(prompts=prompts, group=group), select=select,
        credit=generalized(discount, decay), loss=clip(low=clip_range, high=clip_range) + value_weight * error, update=update,
    )  # fmt: skip
