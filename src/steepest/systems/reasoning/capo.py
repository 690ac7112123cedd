"""CAPO: before the update, leave out the tokens that it would change too much, or for the worse, as the head's curvature says.

Paper.  Melo, Abate and Gal, Stabilizing Policy Gradients for Sample-Efficient Reinforcement Learning in LLM Reasoning, 2025.
        arXiv 2510.00819.
Claim.  With small batches and large steps, where GRPO collapses, it stays and needs far fewer answers.
Idea.   keep a token if a <= g'd + d'Hd / 2 <= b and d'Fd / 2 <= c, d the step that Adam would take in the head
State.  as grpo, and the quantiles of d'Fd / 2 from which c is set
Note.   d is the step of the whole batch, from the optimizer's own moments, before the norm of the gradient is cut; it is taken once
        a batch. A rejected token's advantage becomes 0; it still counts where decisions are averaged. c: the mean of the first
        steps' quantiles, in which nothing is rejected; the paper tunes it for each task.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ...core.batch import Batch
from ...core.state import State
from ...core.system import System, extends, holding
from ...credit import group_relative
from ...credit.curvature import predicted, pull
from ...losses import Reduce, sequence_mean
from ...memory import Replay
from .grpo import grpo

CHUNK = 1 << 22  # logits held at once


def adam_step(optimizer: Any, weight: Tensor, grad: Tensor) -> Tensor:
    """The change of `weight` that a step of Adam with this gradient would make."""
    group = next(g for g in optimizer.param_groups if any(p is weight for p in g["params"]))
    held, (b1, b2) = optimizer.state.get(weight, {}), group["betas"]
    count = float(held["step"]) + 1 if held else 1.0
    first = (b1 * held["exp_avg"] if held else 0.0) + (1 - b1) * grad
    second = (b2 * held["exp_avg_sq"] if held else 0.0) + (1 - b2) * grad**2
    step: Tensor = (first / (1 - b1**count)) / ((second / (1 - b2**count)).sqrt() + group["eps"])
    return -group["lr"] * step


@torch.no_grad()
def foreseen(state: State, batch: Batch, advantage: Tensor, reduce: Reduce) -> tuple[Tensor, Tensor, Tensor]:
    """Of every decision made, what it gains and how far it moves [D]; and the head's step [V, hidden]."""
    policy, made = state.policy, batch.mask > 0
    head = policy.model.get_output_embeddings()
    if head is None or not any(p is head.weight for g in state.optimizers["policy"].param_groups for p in g["params"]):
        raise ValueError(f"{type(policy.model).__name__} has no output layer that is trained: CAPO has nothing to foresee")
    x = policy.states(batch.obs, batch.action, batch.mask)
    token, good, weight = batch.action[made], advantage.expand_as(batch.mask)[made], reduce(batch.mask)[made]

    def pieces() -> Iterator[tuple[slice, Tensor]]:
        size = max(1, CHUNK // len(head.weight))
        for start in range(0, len(x), size):
            rows = slice(start, start + size)
            yield rows, (head(x[rows]).float() / policy.temperature).log_softmax(-1)

    grad = torch.zeros_like(head.weight)
    for rows, logp in pieces():
        grad -= pull(logp, token[rows], (weight * good)[rows]).T @ x[rows] / policy.temperature
    step = adam_step(state.optimizers["policy"], head.weight, grad)
    told = [predicted(logp, x[rows] @ step.T / policy.temperature, token[rows], good[rows]) for rows, logp in pieces()]
    gain, moved = (torch.cat(parts) for parts in zip(*told, strict=True))
    return gain, moved, step


@extends(grpo, without=("select", "credit"))
def capo(
    *, least_gain: float = 0.0, most_gain: float = float("inf"), most_move: float | None = None, quantile: float = 0.99,
    settle: int = 20, kl: float = 0.0, reduce: Reduce = sequence_mean, **options: Any,
) -> System:  # fmt: skip
    """GRPO without the tokens that make it unstable.

    least_gain  a token whose own objective would change by less is rejected
    most_gain   and one by more (paper: tuned)
    most_move   one whose distribution would move by more, KL in nats, too (paper: tuned); None: learned in the first steps
    quantile    of the divergences of a step from which that is learned
    settle      steps in which it is
    kl          of the estimated KL(pi || reference), a loss term
    reduce      how decisions are averaged
    """
    if least_gain > most_gain or not 0 < quantile <= 1 or settle < 1:
        raise ValueError(
            f"needs least_gain <= most_gain, quantile in (0, 1] and settle of at least 1, not {least_gain}, {most_gain}, "
            f"{quantile} and {settle}"
        )

    def select(state: State, batch: Batch) -> Batch:
        learned: Any = state.moves
        advantage = group_relative(batch.score, batch.key)[:, None]
        gain, moved, _ = foreseen(state, batch, advantage, reduce)
        bound = most_move if most_move is not None else float("inf")
        if most_move is None and len(learned) == settle:
            bound = float(learned.quantile.mean())
        elif most_move is None:
            learned.write(quantile=moved.quantile(quantile)[None])
        kept = (gain >= least_gain) & (gain <= most_gain) & (moved <= bound)  # <- the idea
        keep = torch.zeros_like(batch.mask).masked_scatter(batch.mask > 0, kept.float())
        told = {"rejected": 1 - float(kept.float().mean()), "foreseen_kl": float(moved.mean()), "foreseen_max": float(moved.max())}
        return batch.having(extra={**batch.extra, "keep": keep}, info={**batch.info, **told})

    def credit(state: State, batch: Batch) -> Tensor:
        return group_relative(batch.score, batch.key)[:, None] * batch.extra["keep"]

    system = grpo(select=select, credit=credit, kl=kl, reduce=reduce, **options)
    return holding(system, moves=lambda state, problem, rng: Replay(settle, quantile=torch.zeros(())))
