"""GRPO: PPO without a critic, because the other answers to a prompt already say what was to be expected.

Paper.  Shao et al., DeepSeekMath: Pushing the Limits of Mathematical Reasoning in Open Language Models, 2024. arXiv 2402.03300.
Claim.  Without a critic it learns more from the same answers than PPO with a critic as large as the policy.
Idea.   A_i = (r_i - mean) / std over the answers to one prompt; minimise max(-rho A, -clip(rho, 1 - e, 1 + e) A) + kl k3
State.  policy, one Adam; with kl a frozen reference
Note.   The standard deviation is that of a sample (n - 1), as in verl and TRL. Batches in which every group agrees are
        skipped: Adam would turn what is left of its moments into a full step.
"""

from __future__ import annotations

from typing import Any

from ...collectors.generate import Gather, generate
from ...core.state import State
from ...core.stream import Stream
from ...core.system import System
from ...credit import group_relative
from ...engines.answers import by_score
from ...engines.policy_gradient import After, Credit, Select, keep, nothing, policy_gradient
from ...losses import Loss, Reduce, clip, k3, sequence_mean
from ...models.build import answer_state
from ...models.weights import Weights
from ...optimize.epochs import Epochs


def grpo(
    *, clip_range: float = 0.2, kl: float = 0.04, lr: float = 1e-6, prompts: int = 16, group: int = 64, epochs: int = 1,
    minibatches: int = 1, micro: int | None = None, max_grad_norm: float = 1.0, temperature: float = 1.0,
    model: str | Weights | None = None, loss: Loss | None = None, reduce: Reduce = sequence_mean, select: Select = keep,
    after: After = nothing, collect: Gather = generate, credit: Credit = by_score(group_relative),  # <- the idea
) -> System:  # fmt: skip
    """Group relative policy optimization of a language model.

    clip_range     the band of the ratio is 1 +- this (paper: 0.2, as PPO)
    kl             of the estimated KL(pi || reference), a loss term (paper: 0.04); 0: no reference is kept
    lr             learning rate of Adam (paper: 1e-6)
    prompts        prompts a step (paper: 1,024 answers in all)
    group          answers to each, at least 2 (paper: 64)
    epochs         passes over a step's answers (paper: 1)
    minibatches    optimizer steps of a pass
    micro          answers whose gradient is computed at once; None: a whole minibatch. The gradient is the same
    max_grad_norm  the gradient is scaled down to this norm
    temperature    of sampling
    model          a folder or hub id of weights, or a configuration; None: the problem's own
    loss           what replaces the clipped ratio; the divergence is added to it
    reduce         how decisions are averaged; the paper's: 1 / length inside an answer
    select         (state, batch) -> batch: which answers count
    after          (state, batch): writes memories
    collect        (prompts=, group=) -> a collector of answers
    credit         (state, batch) -> advantage
    """
    if group < 2:
        raise ValueError(f"a group needs at least 2 answers to compare, not {group}: raise group, or use reinforce")
    if not clip_range > 0 or kl < 0:
        raise ValueError(f"clip_range must be positive and kl not negative, not {clip_range} and {kl}")

    def init(problem: Any, rng: Stream) -> State:
        return answer_state(problem, rng, lr=lr, reference=kl > 0, model=model, temperature=temperature)

    objective = clip(low=clip_range, high=clip_range) if loss is None else loss
    return policy_gradient(
        init=init, collect=collect(prompts=prompts, group=group), select=select, credit=credit,
        loss=objective + kl * k3() if kl else objective, reduce=reduce,
        update=Epochs(epochs, minibatches, micro, max_grad_norm), after=after,
    )  # fmt: skip
