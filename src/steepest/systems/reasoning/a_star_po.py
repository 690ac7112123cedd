"""A*-PO: estimate the optimal value of every prompt beforehand, then regress one answer to each on its advantage.

Paper.  Brantley et al., Accelerating RL for LLM Reasoning with Optimal Advantage Regression, 2025. arXiv 2505.20686.
Claim.  With one answer a prompt it learns as well as GRPO and PPO from fewer answers, and so faster.
Idea.   V*(x) = beta1 ln mean_j exp(r_j / beta1) over answers of the reference;  minimise (beta2 log pi/ref (y) - [r(y) - V*(x)])^2
State.  policy, one Adam, the frozen reference, a table of V*
Note.   Prompts that the reference never answers rightly are kept. The loss is a multiple of
        the paper's, so that beta2 does not change the first step. For problems whose prompts are known beforehand (a Pool).
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ...collectors.generate import answers, generate, repeat
from ...core.batch import Batch
from ...core.problem import Pool
from ...core.state import State
from ...core.stream import Stream
from ...core.system import System, holding
from ...engines.policy_gradient import policy_gradient
from ...losses import from_reference, regress, sequence_sum
from ...memory.table import Table
from ...models.build import answer_state
from ...models.weights import Weights
from ...optimize.epochs import Epochs

CHUNK = 128  # prompts that are asked at once


def optimal_value(score: Tensor, beta: float) -> Tensor:
    """beta ln mean exp(r / beta) over the last axis: between the mean and the greatest."""
    return beta * ((score / beta).logsumexp(-1) - math.log(score.shape[-1]))


def estimated(state: State, problem: Pool, rng: Stream, *, draws: int, beta: float) -> Table:
    """V* of every prompt of the pool, from `draws` answers of the policy that training begins from."""
    table = Table(problem.size, value=0.0)
    for index in torch.arange(problem.size).split(CHUNK):
        batch = answers(state, problem, repeat(problem.pick(index), draws), rng / int(index[0]))
        table.write(index, "value", optimal_value(batch.score.view(-1, draws), beta))
    return table


def optimal_advantage(state: State, batch: Batch) -> Tensor:
    table: Any = state.optimal
    return (batch.score - table.read(batch.key, "value"))[:, None]  # <- the idea


def a_star_po(
    *, beta1: float = 0.5, beta2: float = 1e-3, draws: int = 8, lr: float = 1e-6, prompts: int = 256, epochs: int = 1,
    minibatches: int = 1, micro: int | None = None, max_grad_norm: float = 1.0, temperature: float = 1.0,
    model: str | Weights | None = None,
) -> System:  # fmt: skip
    """Regression on optimal advantages: one answer a prompt, no group, no critic.

    beta1          of the estimate of V*: the smaller, the nearer the greatest reward (paper: 0.5)
    beta2          the price of a nat of KL(pi || reference), in reward (paper: 0.001)
    draws          answers of the reference to each prompt, before training (paper: 8)
    lr             learning rate of Adam (paper: 1e-6)
    prompts        prompts a step, with one answer each
    epochs         passes over a step's answers
    minibatches    optimizer steps of a pass
    micro          answers whose gradient is computed at once; None: a whole minibatch. The gradient is the same
    max_grad_norm  the gradient is scaled down to this norm
    temperature    of sampling
    model          a folder or hub id of weights, or a configuration; None: the problem's own
    """
    if not beta1 > 0 or not beta2 > 0 or draws < 1:
        raise ValueError(f"beta1 and beta2 must be positive and draws at least 1, not {beta1}, {beta2} and {draws}")

    def init(problem: Any, rng: Stream) -> State:
        return answer_state(problem, rng, lr=lr, reference=True, model=model, temperature=temperature)

    system = policy_gradient(
        init=init, collect=generate(prompts=prompts, group=1), credit=optimal_advantage,
        loss=from_reference(regress(scale=1 / beta2)), reduce=sequence_sum,
        update=Epochs(epochs, minibatches, micro, max_grad_norm),
    )  # fmt: skip
    return holding(system, optimal=partial(estimated, draws=draws, beta=beta1))
