"""REINFORCE++: PPO's clip without a critic, its advantages brought to unit scale over the whole batch and not for each prompt.

Paper.  Hu, REINFORCE++: A Simple and Efficient Approach for Aligning Large Language Models, 2025. arXiv 2501.03262.
Claim.  It learns as well as GRPO, which overfits single prompts, and needs no group.
Idea.   A_t = (R_t - mean) / std over all tokens of the batch, R_t = sum of what follows of 1[last] r - beta (log pi - log ref)
State.  policy, one Adam; with kl a frozen reference
Note.   With `relative=centred` and a group it is the paper's variant with a baseline: each prompt's mean is taken off first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from ...collectors.generate import generate
from ...core.batch import Batch, at_end
from ...core.state import State
from ...core.stream import Stream
from ...core.system import System
from ...credit import reward_to_go, standardize
from ...engines.answers import kl_penalty
from ...engines.policy_gradient import policy_gradient
from ...losses import Loss, clip, token_mean
from ...models.build import answer_state
from ...optimize.epochs import Epochs


def as_it_is(score: Tensor, key: Tensor) -> Tensor:
    """The score itself. [N], [N] -> [N]"""
    return score


def reinforce_pp(
    *, clip_range: float = 0.2, kl: float = 0.01, discount: float = 1.0, lr: float = 5e-7, prompts: int = 128, group: int = 1,
    epochs: int = 1, minibatches: int = 1, micro: int | None = None, max_grad_norm: float = 1.0, temperature: float = 1.0,
    model: str | None = None, loss: Loss | None = None, relative: Callable[[Tensor, Tensor], Tensor] = as_it_is,
) -> System:  # fmt: skip
    """REINFORCE with PPO's clip and advantages standardised over the batch.

    clip_range     the band of the ratio is 1 +- this (paper: 0.2)
    kl             what a nat of KL(pi || reference) costs, in reward (paper: 0.01)
    discount       of rewards, per token (paper: 1)
    lr             learning rate of Adam (paper: 5e-7)
    prompts        prompts a step
    group          answers to each (paper: 1; with a baseline several)
    epochs         passes over a step's answers
    minibatches    optimizer steps of a pass
    micro          answers whose gradient is computed at once; None: a whole minibatch. The gradient is the same
    max_grad_norm  the gradient is scaled down to this norm
    temperature    of sampling
    model          a folder or hub id of weights, or a configuration; None: the problem's own
    loss           what replaces the clipped ratio
    relative       (score, key) -> what of an answer's score counts
    """
    if not clip_range > 0 or not 0 < discount <= 1:
        raise ValueError(f"clip_range must be positive and discount lie in (0, 1], not {clip_range} and {discount}")
    penalise = kl_penalty(kl)

    def init(problem: Any, rng: Stream) -> State:
        return answer_state(problem, rng, lr=lr, reference=kl > 0, model=model, temperature=temperature)

    def select(state: State, batch: Batch) -> Batch:
        score = relative(batch.score, batch.key)
        reward = at_end(score, batch.mask)
        return penalise(state, batch.having(reward=reward))

    def credit(state: State, batch: Batch) -> Tensor:
        return standardize(reward_to_go(batch.reward, batch.mask, discount=discount), batch.mask)  # <- the idea

    return policy_gradient(
        init=init, collect=generate(prompts=prompts, group=group), select=select, credit=credit,
        loss=clip(low=clip_range, high=clip_range) if loss is None else loss, reduce=token_mean,
        update=Epochs(epochs, minibatches, micro, max_grad_norm),
    )  # fmt: skip
