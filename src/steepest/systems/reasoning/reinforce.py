"""REINFORCE: make answers likelier the more their reward exceeds the average.

Paper.  Williams, Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement Learning, 1992;
        for language models: Ahmadian et al., Back to Basics, 2024. arXiv 2402.14740.
Claim.  A baseline that is subtracted from the reward leaves the gradient's direction alone and makes learning faster.
Idea.   gradient = E (r - mean r) grad log pi(answer)
State.  policy, one Adam; with kl a frozen reference
Note.   The baseline is the mean of the batch; it contains the answer itself, which shortens the expected gradient by 1 / N.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ...collectors.generate import generate
from ...core.state import State
from ...core.stream import Stream
from ...core.system import System
from ...engines.answers import by_score, kl_penalty
from ...engines.policy_gradient import Credit, policy_gradient
from ...losses import reinforce as score_function
from ...losses import sequence_sum
from ...models.build import answer_state
from ...models.weights import Weights
from ...optimize.epochs import Epochs


def against_batch(score: Tensor, key: Tensor) -> Tensor:
    """r - mean of all. [N], [N] -> [N]"""
    return score - score.mean()  # <- the idea


def reinforce(
    *, lr: float = 1e-6, kl: float = 0.03, prompts: int = 512, group: int = 1, micro: int | None = None, max_grad_norm: float = 1.0,
    temperature: float = 1.0, model: str | Weights | None = None, credit: Credit = by_score(against_batch),
) -> System:  # fmt: skip
    """The score-function gradient on whole answers: one step a batch, no ratio, no critic.

    lr             learning rate of Adam (Ahmadian et al.: 1e-6)
    kl             what a nat of KL(pi || reference) costs, in reward (Ahmadian et al.: 0.03 on summaries, 0.1 on dialogue)
    prompts        prompts a step (Ahmadian et al.: 512 answers)
    group          answers to each
    micro          answers whose gradient is computed at once; None: all. The gradient is the same
    max_grad_norm  the gradient is scaled down to this norm
    temperature    of sampling
    model          a folder or hub id of weights, or a configuration; None: the problem's own
    credit         (state, batch) -> advantage
    """

    def init(problem: Any, rng: Stream) -> State:
        return answer_state(problem, rng, lr=lr, reference=kl > 0, model=model, temperature=temperature)

    return policy_gradient(
        init=init, collect=generate(prompts=prompts, group=group), select=kl_penalty(kl), credit=credit, loss=score_function(),
        reduce=sequence_sum, update=Epochs(micro=micro, max_norm=max_grad_norm),
    )  # fmt: skip
