"""RL's razor: any training that says how far it has moved, on what it learns, from the policy that it began with.

Paper.  Shenfeld, Pari and Agrawal, RL's Razor: Why Online Reinforcement Learning Forgets Less, 2025. arXiv 2509.04259.
Claim.  What is forgotten follows KL(first || now) on the new task, and learning from one's own answers keeps it small.
Idea.   KL(first || now) = E over prompts of the new task and answers of the first policy of the sum over tokens of KL(. || .)
State.  the learner's; a frozen `reference`, the policy that it began with
Note.   The divergence of each token is exact, over the vocabulary; prompts and tokens before it are sampled. What is forgotten is
        the problem's to say: NewRule's `known`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from ...core import Batch, State, Stream, System, extends
from ...core.system import holding
from ...models.build import as_it_began
from .grpo import grpo


@torch.no_grad()
def moved(state: State, batch: Batch, rng: Stream) -> float:
    """KL(reference || policy) of whole answers to a batch's prompts, in nats."""
    tokens, mask, _ = state.reference.sample(batch.obs, rng.torch(state.device))
    before, now = (policy.logits(batch.obs, tokens).log_softmax(-1) for policy in (state.reference, state.policy))
    return float(((before.exp() * (before - now)).sum(-1) * mask).sum(1).mean())  # <- the idea


@extends(grpo)
def rls_razor(*, learner: Callable[..., System] = grpo, every: int = 10, **options: Any) -> System:
    """A learner of texts that reports `moved`, the divergence of its policy from the first one on the prompts that it learns from.

    learner  (options of its own) -> the system that learns
    every    steps between two measurements
    """
    if every < 1:
        raise ValueError(f"every must be at least 1, not {every}")
    system = learner(**options)

    def learn(state: State, batch: Batch, rng: Stream) -> dict[str, Any]:
        metrics = system.learn(state, batch, rng)
        due = (state.step + 1) % every == 0
        return metrics | {"moved": moved(state, batch, rng / "moved")} if due else metrics

    return holding(replace(system, learn=learn), reference=as_it_began)
