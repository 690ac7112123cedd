"""TBRM: the model's logits are soft action values, and an answer's Bellman residuals add up to one square.

Paper.  Yuan et al., Trajectory Bellman Residual Minimization: A Simple Value-Based Method for LLM Reasoning, 2025.
        arXiv 2505.15311.
Claim.  With one answer a prompt, no critic, no ratio and no clipping it learns as well as PPO and GRPO, also from old answers.
Idea.   minimise (V(x) + log pi/ref (y) - r(y) / beta)^2,  V(x) the log-sum-exp of the logits of the first token
State.  policy, one Adam, the frozen reference; the critic is the policy itself
Note.   Rebuilt from soft Q-learning: the residuals f(s, a) - V(s') telescope to V(x) + log pi(y). V is taken relative to
        the reference's, so that it starts at 0. Answers that were cut off, whose last value is unknown, are left out. The loss is
        a multiple of the square, so that beta does not change the first step. The authors' code was not at hand.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ...collectors.generate import generate
from ...core.batch import Batch
from ...core.state import State
from ...core.stream import Stream
from ...core.system import System
from ...engines.answers import by_score
from ...engines.policy_gradient import policy_gradient
from ...losses import regress_value, sequence_sum
from ...models.build import answer_state
from ...models.language import SoftValue
from ...models.weights import Weights
from ...optimize.epochs import Epochs


def ended(state: State, batch: Batch) -> Batch:
    """The answers that have their end token. Raises ValueError where none has."""
    last = batch.action.gather(1, batch.length.long()[:, None] - 1).squeeze(1)
    whole = (last == state.policy.eos).nonzero().squeeze(1)
    if not len(whole):
        raise ValueError(f"all {len(batch)} answers were cut off before their end token: raise max_new of the problem")
    return batch if len(whole) == len(batch) else batch.rows(whole)


def all_of_it(score: Tensor, key: Tensor) -> Tensor:
    """The score itself: V is its baseline."""
    return score


def tbrm(
    *, beta: float = 0.1, lr: float = 1e-6, prompts: int = 128, epochs: int = 1, minibatches: int = 1, micro: int | None = None,
    max_grad_norm: float = 1.0, temperature: float = 1.0, model: str | Weights | None = None,
) -> System:  # fmt: skip
    """Minimization of the Bellman residual of whole answers.

    beta           the price of a nat of KL(pi || reference), in reward
    lr             learning rate of Adam
    prompts        prompts a step, with one answer each
    epochs         passes over a step's answers
    minibatches    optimizer steps of a pass
    micro          answers whose gradient is computed at once; None: a whole minibatch. The gradient is the same
    max_grad_norm  the gradient is scaled down to this norm
    temperature    of sampling
    model          a folder or hub id of weights, or a configuration; None: the problem's own
    """
    if not beta > 0:
        raise ValueError(f"beta must be positive, not {beta}")

    def init(problem: Any, rng: Stream) -> State:
        state = answer_state(problem, rng, lr=lr, reference=True, model=model, temperature=temperature)
        state.critic = SoftValue(state.policy, state.reference)
        return state

    return policy_gradient(
        init=init, collect=generate(prompts=prompts, group=1), select=ended, credit=by_score(all_of_it),
        loss=regress_value(scale=1 / beta), reduce=sequence_sum,  # <- the idea
        update=Epochs(epochs, minibatches, micro, max_grad_norm),
    )  # fmt: skip
