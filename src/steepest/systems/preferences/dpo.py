"""DPO: preferences say what the reward is, and the policy itself can be that reward: fit it to them directly.

Paper.  Rafailov, Sharma, Mitchell, Ermon, Manning and Finn, Direct Preference Optimization, 2023. arXiv 2305.18290.
Claim.  It finds as good a trade of reward against KL as RLHF does from the same pairs, without a reward model or sampling.
Idea.   minimise -log sigmoid(beta D), D = log pi/ref (chosen) - log pi/ref (rejected)
State.  policy, frozen reference, one RMSprop
Note.   On a Language problem pairs are fresh in every step: two answers of the reference to a prompt, ranked by the score.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ...collectors.pairs import pairs
from ...core.pairs import Pairs, Preferences
from ...core.problem import Language
from ...core.state import State
from ...core.stream import Stream
from ...core.system import System
from ...losses import Loss
from ...losses.preference import PairTerms, logistic
from ...models.build import actor_state
from ...models.weights import Weights


def answer_logp(policy: nn.Module, batch: Pairs) -> tuple[Tensor, Tensor]:
    """Log-probabilities of the chosen and of the rejected answers, summed over their decisions, both [N]."""
    whole: list[Tensor] = []
    for action, mask in ((batch.chosen, batch.chosen_mask), (batch.rejected, batch.rejected_mask)):
        logp = policy.logp(batch.obs, action, mask)  # type: ignore[operator]
        whole.append(torch.where(mask > 0, logp, 0.0).sum(1))
    return whole[0], whole[1]


def dpo(
    *, beta: float = 0.1, lr: float = 1e-6, count: int = 64, max_grad_norm: float = 10.0, model: str | Weights | None = None,
    loss: Callable[..., Loss] = logistic,
) -> System:  # fmt: skip
    """Direct preference optimization.

    beta           what a nat of KL(pi || reference) costs, in reward (paper: 0.1)
    lr             learning rate of RMSprop (paper: 1e-6)
    count          pairs a step (paper: 64); on texts the prompts asked, of which ties are dropped
    max_grad_norm  the gradient is scaled down to this norm (authors' code: 10)
    model          a folder or hub id of weights, or a configuration (text); None: the problem's own
    loss           of PairTerms, made from beta; `robust_logistic` or partial(logistic, smoothing=0.1) for labels with errors
    """
    if not (beta > 0 and lr > 0 and max_grad_norm > 0):
        raise ValueError(f"beta, lr and max_grad_norm must be positive, not {beta}, {lr} and {max_grad_norm}")
    objective = loss(beta=beta)

    def init(problem: Any, rng: Stream) -> State:
        if not isinstance(problem, (Preferences, Language)):
            raise TypeError(
                f"dpo learns from pairs of answers, and {type(problem).__name__} is neither a Preferences nor a Language problem"
            )
        state = actor_state(problem, rng, lr=lr, reference=True, model=model)
        state.optimizers["policy"] = torch.optim.RMSprop(state.policy.parameters(), lr)
        return state

    def learn(state: State, batch: Pairs, rng: Stream) -> dict[str, Any]:
        if len(batch) == 0:
            return {"pairs": 0, "skipped": 1.0}
        with torch.no_grad():
            reference = answer_logp(state.reference, batch)
        terms = PairTerms(*answer_logp(state.policy, batch), *reference)
        total = (batch.weight * objective(terms).loss).sum()  # <- the idea
        optimizer = state.optimizers["policy"]
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        norm = nn.utils.clip_grad_norm_(state.policy.parameters(), max_grad_norm)
        optimizer.step()
        margin = terms.margin.detach()
        right = float((batch.weight * (margin > 0)).sum())
        return {"loss": float(total.detach()), "margin": float((batch.weight * margin).sum()), "accuracy": right,
                "pairs": len(batch), "grad_norm": float(norm)}  # fmt: skip

    return System(init, pairs(count=count), learn)
