"""DPPO: denoising is a chain of Gaussian decisions, so PPO can improve a diffusion policy.

Paper.  Ren et al., Diffusion Policy Policy Optimization, 2024. arXiv 2409.00588.
Claim.  Fine-tuning a cloned diffusion policy by PPO on its denoising steps succeeds more often than a Gaussian policy does.
Idea.   r_i = p_new(x_{i+1} | x_i, s) / p_old for each of the last K' denoising steps, A_i = fade^(K'-1-i) A(s, chunk)
State.  policy (tuned network and frozen base), critic, one optimizer with two rates
Note.   Minibatches are drawn over chains, the authors' over single denoising steps. Rewards are not rescaled.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from ...core.system import System, extends
from ...losses import Loss, Terms, squared
from ...losses import loss as term
from ...models.diffusion import DiffusionPolicy
from .chunk_ppo import chunk_ppo, tune


def bounds(steps: int, base: float, last: float) -> Tensor:
    """The clip of each decision [T], rising exponentially from `base` (noisiest) to `last`; one decision has `last`."""
    share = torch.linspace(0, 1, steps) if steps > 1 else torch.ones(1)
    return base + (last - base) * ((3 * share).exp() - 1) / (math.exp(3) - 1)


@term()
def step_clip(t: Terms, *, bound: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """max(-r A, -clip(r, 1 - bound_i, 1 + bound_i) A), bound [T] for decision i."""
    bound = bound.to(t.ratio)
    bounded = t.ratio.clamp(1 - bound, 1 + bound)
    return torch.maximum(-t.ratio * t.advantage, -bounded * t.advantage), {"clipped": (bounded != t.ratio).float()}


@extends(chunk_ppo, without=("std",))
def dppo(
    *, steps: int = 20, tuned: int = 10, fade: float = 0.99, epsilon: float = 0.01, epsilon_base: float = 0.001,
    floor: float = 0.1, hidden: int = 128, loss: Loss | None = None, **options: Any,
) -> System:  # fmt: skip
    """PPO on denoising steps.

    steps         denoising steps of a chunk
    tuned         the last of them, which are fine-tuned
    fade          discount of the advantage towards noisier steps
    epsilon       bound of the ratio at the last step (authors' code)
    epsilon_base  bound at the first tuned step (authors' code)
    floor         smallest standard deviation of a step
    hidden        width of the networks
    loss          what replaces the clipped ratio; the critic's loss is added to it
    """
    if not 1 <= tuned <= steps:
        raise ValueError(f"of {steps} denoising steps {tuned} cannot be tuned: tuned lies in 1..{steps}")
    if not floor > 0:
        raise ValueError(f"floor must be positive, not {floor}: without noise the log-probability is undefined")

    def make(cond: int, dims: int) -> nn.Module:
        return DiffusionPolicy(cond, dims, steps=steps, tuned=tuned, hidden=hidden, floor=floor)

    objective = step_clip(bound=bounds(tuned, epsilon_base, epsilon)) if loss is None else loss  # <- the idea
    return tune(make, objective + 0.5 * squared(), fade, hidden=hidden, **options)
