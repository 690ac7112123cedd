"""SFT: make the demonstrated answers likelier.

Paper.  Maximum likelihood on demonstrations, as in Ouyang et al., Training language models to follow instructions with human
        feedback, 2022. arXiv 2203.02155, section 3.5.
Claim.  A model that was shown right answers gives them.
Idea.   minimise the mean over tokens of - log pi(token | prompt, tokens before): a policy gradient whose advantage is 1
State.  policy, one Adam
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...collectors.demonstrations import demonstrations
from ...collectors.experience import Collect
from ...core.state import State
from ...core.stream import Stream
from ...core.system import System
from ...engines.answers import by_score
from ...engines.imitation import as_rewarded, imitation
from ...engines.policy_gradient import Credit, Select, keep
from ...losses import Loss
from ...models.build import answer_state
from ...models.weights import Weights
from ...optimize.epochs import Epochs


def sft(
    *, lr: float = 1e-5, prompts: int = 64, epochs: int = 1, minibatches: int = 1, micro: int | None = None,
    max_grad_norm: float = 1.0, temperature: float = 1.0, model: str | Weights | None = None,
    loss: Loss | None = None, select: Select = keep,
    collect: Callable[..., Collect] = demonstrations, credit: Credit = by_score(as_rewarded),
) -> System:  # fmt: skip
    """Supervised fine-tuning of a language model on a problem that can ``demonstrate(prompts) -> tokens, mask``.

    lr             learning rate of Adam (Ouyang et al.: 9.65e-6)
    prompts        demonstrations a step (usual: 64)
    epochs         passes over a step's demonstrations (usual: 1, the next step draws others)
    minibatches    optimizer steps of a pass
    micro          demonstrations whose gradient is computed at once; None: a whole minibatch. The gradient is the same
    max_grad_norm  the gradient is scaled down to this norm
    temperature    of log-probabilities
    model          a folder or hub id of weights, or a configuration; None: the problem's own
    loss           what replaces - A log pi, with A = 1
    select         (state, batch) -> batch: which answers are imitated
    collect        (prompts=) -> a collector of answers to imitate
    credit         (state, batch) -> advantage
    """

    def init(problem: Any, rng: Stream) -> State:
        return answer_state(problem, rng, lr=lr, model=model, temperature=temperature)

    return imitation(  # <- the idea
        init=init, collect=collect(prompts=prompts), select=select, credit=credit, loss=loss,
        update=Epochs(epochs, minibatches, micro, max_grad_norm),
    )  # fmt: skip
