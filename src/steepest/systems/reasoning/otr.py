"""OTR: at each place of a demonstration, let the policy say many next tokens, and reward those that the demonstration has.

Paper.  Ming et al., One-Token Rollout: Guiding Supervised Fine-Tuning of LLMs with Policy Gradient, 2025. arXiv 2509.26313.
Claim.  It generalises better than SFT and forgets less, because it learns from what the policy says itself.
Idea.   a_1..a_K ~ pi(. | s)^(1 / temperature); minimise - mean_k r(a_k) log pi(a_k), r = 1 for the demonstrated token, else b
State.  as sft
Note.   K, the temperature of the draws and b are from descriptions of the paper: its authors' code was not at hand. The draws are
        of the policy before the step, so they need no ratio. Logits of all decisions are held at once.
"""

from __future__ import annotations

from typing import Any

import torch

from ...core import Batch, State, Stream, System, extends
from ...losses import token_mean
from ...optimize.epochs import advance, scale_down
from .sft import sft


@extends(sft, without=("epochs", "minibatches", "micro", "loss", "select"))
def otr(
    *, tokens: int = 256, warmth: float = 1.3, wrong: float = -0.1, max_grad_norm: float = 1.0, **options: Any
) -> System:
    """Supervised fine-tuning on single tokens that the policy draws.

    tokens         drawn at each place of a demonstration (paper: 256)
    warmth         temperature of the draws (paper: 1.3)
    wrong          reward of a token that the demonstration does not have, at most 0 (paper: -0.1)
    max_grad_norm  the gradient is scaled down to this norm
    """
    if tokens < 1 or not warmth > 0 or wrong > 0:
        raise ValueError(f"tokens must be at least 1, warmth positive and wrong at most 0, not {tokens}, {warmth} and {wrong}")
    parent = sft(max_grad_norm=max_grad_norm, **options)

    def learn(state: State, batch: Batch, rng: Stream) -> dict[str, Any]:
        logits = state.policy.logits(batch.obs, batch.action)  # [N, T, V]
        with torch.no_grad():
            chance = (logits / warmth).softmax(-1).flatten(0, 1)
            drawn = torch.multinomial(chance, tokens, replacement=True, generator=rng.torch(chance.device))
            drawn = drawn.view(*batch.mask.shape, tokens)
            hit = drawn == batch.action[..., None]
        said = logits.log_softmax(-1).gather(2, drawn)
        loss = -(torch.where(hit, 1.0, wrong) * said).mean(2)  # <- the idea
        weight = token_mean(batch.mask)
        total = (loss.where(batch.mask > 0, 0.0) * weight).sum()
        optimizer = state.optimizers["policy"]
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        norm = scale_down(list(state.policy.parameters()), max_grad_norm)
        advance(optimizer)
        hits = (hit.float().mean(2) * weight).sum()
        return {"loss": float(total.detach()), "hits": float(hits), "grad_norm": float(norm)}

    return System(parent.init, parent.collect, learn)
