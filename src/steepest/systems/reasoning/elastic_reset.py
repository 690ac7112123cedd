"""Elastic Reset: from time to time the policy becomes its own average, and the average the beginning.

Paper.  Noukhovitch et al., Language Model Alignment with Elastic Reset, 2023. arXiv 2312.07551.
Claim.  At equal reward it has drifted less from where it began than a policy held back by a KL penalty.
Idea.   average <- d average + (1 - d) policy; every n steps policy <- average, then average <- first weights
State.  as grpo, with `average` and the first weights (`start`)
Note.   Adam's moments stay through a reset, as in the authors' code (mnoukhov/elastic-reset, er_training.py), whose settings for
        LLaMA are the defaults; there a small KL penalty stays on (0.02), here `kl` is 0 unless given.
"""

from __future__ import annotations

import copy
from typing import Any

import torch

from ...core import Batch, State, System, extends, holding
from ...memory import Average
from .grpo import grpo


@extends(grpo, without=("after",))
def elastic_reset(*, every: int = 260, decay: float = 0.995, kl: float = 0.0, **options: Any) -> System:
    """Group relative policy optimization with elastic resets.

    every  steps between resets (authors' configuration: 260)
    decay  of the average, a step (authors' configuration: 0.995)
    kl     of the estimated KL(pi || reference), a loss term
    """
    if every < 1 or not 0 <= decay <= 1:
        raise ValueError(f"every must be at least 1 and decay in [0, 1], not {every} and {decay}")

    @torch.no_grad()
    def after(state: State, batch: Batch) -> None:
        state.average.write(state.policy)
        if (state.step + 1) % every == 0:
            state.policy.load_state_dict(state.average.read().state_dict())  # <- the idea
            state.average.read().load_state_dict(state.start.state_dict())

    return holding(
        grpo(after=after, kl=kl, **options),
        average=lambda state, problem, rng: Average(state.policy, decay),
        start=lambda state, problem, rng: copy.deepcopy(state.policy).requires_grad_(False),
    )
