"""SPO: one answer a prompt, and a memory of how often each prompt was answered rightly as the baseline.

Paper.  Xu and Ding, Single-stream Policy Optimization, 2025. arXiv 2509.13232.
Claim.  Without groups no answer is wasted on a group that agrees, and it reaches higher accuracy than GRPO.
Idea.   A = r - v(prompt), standardized over the batch; then alpha <- rho alpha + r, beta <- rho beta + 1 - r, v = alpha / (alpha +
        beta), rho = 2^(-D / 0.06) in [0.875, 0.96], D how far the policy moved since it last answered the prompt
State.  policy, one Adam, `tracker` (alpha and beta of each prompt), `last` (its last answer and how likely that was)
Note.   As in the authors' code (verl-project/verl-recipe, spo): D is the mean |log pi - log pi_then| over the tokens of the last
        answer, prompts are drawn by sqrt(v (1 - v)) + 0.05, and `first` answers to each prompt start the tracker. The dual clip
        at 10 is left out. The problem is a known set of prompts.
"""

from __future__ import annotations

from typing import Any

import torch

from ...collectors.asking import by_weight, pool, uncertain
from ...collectors.generate import answers, generate
from ...core import Batch, State, Stream, System, holding
from ...credit import standardize
from ...engines.policy_gradient import policy_gradient
from ...losses import clip, token_mean
from ...memory.latest import Latest
from ...memory.tracker import Tracker
from ...models.build import answer_state
from ...models.weights import Weights
from ...optimize.epochs import Epochs

LOW, HIGH, HALVING = 0.875, 0.96, 0.06  # of what the tracker forgets (authors' code)


def spo_single_stream(
    *, lr: float = 1e-6, prompts: int = 1024, minibatches: int = 8, low: float = 0.2, high: float = 0.28, first: int = 8,
    floor: float = 0.05, micro: int | None = None, max_grad_norm: float = 1.0, temperature: float = 1.0,
    model: str | Weights | None = None,
) -> System:  # fmt: skip
    """Policy optimization with one answer a prompt and a tracked baseline; rewards lie in [0, 1].

    lr             learning rate of Adam (authors' script: 1e-6)
    prompts        prompts a step, each answered once (authors' script: 1,024)
    minibatches    optimizer steps of a pass (authors' script: 8)
    low            the ratio is held below 1 - low (authors' script: 0.2)
    high           and above 1 + high (authors' script: 0.28)
    first          answers to each prompt before training, with which the tracker begins (paper: 8)
    floor          weight of a prompt that is surely right or surely wrong, in drawing (authors' code: 0.05)
    micro          answers whose gradient is computed at once; None: a whole minibatch. The gradient is the same
    max_grad_norm  the gradient is scaled down to this norm
    temperature    of sampling
    model          a folder or hub id of weights, or a configuration; None: the problem's own
    """
    if first < 0 or not floor > 0 or not (0 <= low <= 1 and high > 0):
        raise ValueError(f"needs first >= 0, floor > 0, 0 <= low <= 1 and high > 0, not {first}, {floor}, {low} and {high}")

    def init(problem: Any, rng: Stream) -> State:
        return answer_state(problem, rng, lr=lr, model=model, temperature=temperature)

    def begun(state: State, problem: Any, rng: Stream) -> Tracker:
        size, weight = pool(problem).size, 1 / (1 - LOW)
        right = torch.zeros(size)
        for n in range(first):
            right += answers(state, problem, problem.pick(torch.arange(size)), rng / n).score.cpu()
        tracker = Tracker(size, halving=HALVING, low=LOW, high=HIGH)
        tracker.alpha.copy_(weight * (right + 0.5) / (first + 1))
        tracker.beta.copy_(weight - tracker.alpha)
        return tracker

    def last(state: State, problem: Any, rng: Stream) -> Latest:
        row = torch.zeros(problem.max_new)
        return Latest(problem.size, tokens=row.long(), mask=row, logp=row)

    system = policy_gradient(
        init=init, collect=generate(prompts=prompts, group=1, ask=by_weight(uncertain(floor=floor))), credit=beyond_tracker,
        loss=clip(low=low, high=high), reduce=token_mean, update=Epochs(1, minibatches, micro, max_grad_norm), after=remember,
    )  # fmt: skip
    return holding(system, tracker=begun, last=last)


def beyond_tracker(state: State, batch: Batch) -> torch.Tensor:
    away = (batch.score - state.tracker.read(batch.key))[:, None]  # <- the idea
    return standardize(away, torch.ones_like(away)) * float(away.std() > 1e-6)


@torch.no_grad()
def remember(state: State, batch: Batch) -> None:
    """How far the policy moved on each prompt, its reward, and the answer by which the next move is measured."""
    then = state.last.read(batch.key)
    now = state.policy.logp(batch.obs, then["tokens"], then["mask"])
    drift = ((now - then["logp"]).abs() * then["mask"]).sum(1) / then["mask"].sum(1).clamp(min=1)
    state.tracker.write(batch.key, batch.score, drift)
    logp = state.policy.logp(batch.obs, batch.action, batch.mask)
    state.last.write(batch.key, tokens=batch.action, mask=batch.mask, logp=logp)
