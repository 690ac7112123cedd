"""PSFT: imitate, but no further than a step from where the last few updates began.

Paper.  Zhu et al., Proximal Supervised Fine-Tuning, 2025. arXiv 2508.17784.
Claim.  It learns what is demonstrated as well as SFT, forgets less of what it could before, and keeps its entropy.
Idea.   minimise -min(rho, clip(rho, 1 - e, 1 + e)), rho = pi / pi_old on demonstrated tokens: PPO with advantage 1
State.  as sft
Note.   pi_old is the policy before a step, whose demonstrations are cut into `minibatches` updates, as in the authors' code
        (zwhong714/PSFT, run_psft.sh: 256 demonstrations in 8 updates of 32). With one update a step it is SFT.
"""

from __future__ import annotations

from typing import Any

from ...core import System, extends
from ...losses import clip
from .sft import sft


@extends(sft, without=("loss",))
def psft(
    *, low: float = 0.2, high: float = 0.28, lr: float = 1e-6, prompts: int = 256, minibatches: int = 8, **options: Any
) -> System:
    """Supervised fine-tuning with the clipped ratio of PPO.

    low          below 1 - low the ratio is held (authors' script: 0.2); with advantage 1 that never binds
    high         beyond 1 + high a token pulls no longer (authors' script: 0.28)
    lr           learning rate of Adam (authors' script: 1e-6)
    prompts      demonstrations a step (authors' script: 256)
    minibatches  updates between two refreshes of pi_old (authors' script: 8)
    """
    if not high > 0 or not 0 <= low <= 1:
        raise ValueError(f"high must be positive and low in [0, 1], not {high} and {low}: no token could pull")
    return sft(loss=clip(low=low, high=high), lr=lr, prompts=prompts, minibatches=minibatches, **options)  # <- the idea
