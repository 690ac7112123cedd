"""ReMix: learn from what the last few policies said as well, then begin again as plain GRPO from where that led.

Paper.  Liang et al., Squeeze the Soaked Sponge: Efficient Off-policy Reinforcement Finetuning for Large Language Model, 2025.
        arXiv 2507.06892.
Claim.  It reaches the accuracy of on-policy methods from a fraction of the answers.
Idea.   rho = pi / pi_then, c = pi_now / pi_then; minimise -min(rho A, clip(rho, c - e, c + e) A) + beta (l KL(pi, base) + (1 - l)
        KL(pi, pi_before)) on a mixture of now and then; at step `restart` base <- pi and the mixture ends
State.  as grpo with a reference, the last policies' answers (`past`), and the policies of the last two steps
Note.   A share `mix` of each step's groups is old, where the paper draws each minibatch from the past with that probability; the
        old groups keep the advantages of their own time. The paper's entropy bonus is left out: no coefficient was at hand. The
        problem is a known set of prompts.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor

from ...collectors.asking import pool
from ...collectors.experience import Collect
from ...collectors.generate import generate, joined, remembered
from ...core import Batch, State, Stream, System, extends, holding
from ...credit import group_relative
from ...losses.mixed import between, mixed_clip
from ...memory.latest import Latest
from .grpo import grpo


@extends(grpo, without=("collect", "credit", "after", "loss", "kl"))
def remix(
    *, mix: float = 0.4, window: int = 2, restart: int = 100, beta: float = 0.04, clip_range: float = 0.2, prompts: int = 16,
    group: int = 8, epochs: int = 2, **options: Any,
) -> System:  # fmt: skip
    """Group relative policy optimization on answers of several policies.

    mix         share of a step's groups that come from earlier policies, in [0, 1) (paper: 0.4)
    window      policies that are remembered (paper: 2)
    restart     the step from which on nothing is mixed and the reference is the policy of that time (paper: 50 or 100)
    beta        of both divergences together
    clip_range  half the width of the band around c
    prompts     groups a step
    group       answers in each
    epochs      passes over a step's answers: the paper's ratio of updates to data (paper: 2)
    """
    if not 0 <= mix < 1 or min(window, restart) < 1 or not clip_range > 0 or beta < 0:
        given = f"{mix}, {window}, {restart}, {clip_range} and {beta}"
        raise ValueError(f"needs mix in [0, 1), window, restart >= 1, clip_range > 0 and beta >= 0, not {given}")
    rows = prompts * group

    def gather(*, prompts: int, group: int) -> Collect:
        def collect(state: State, problem: Any, rng: Stream) -> Batch:
            held = state.past.mask[::group, 0].nonzero().squeeze(1).cpu()  # the first row of each remembered group
            count = min(round(mix * prompts), len(held)) if state.step < restart else 0
            batch = remembered(state, generate(prompts=prompts - count, group=group)(state, problem, rng))
            batch = batch.having(extra={"now": batch.logp, "fresh": batch.mask, "stored": torch.zeros_like(batch.mask)})
            if not count:
                return batch
            taken = held[torch.randperm(len(held), generator=(rng / "past").torch())[:count]]
            old = recalled(state, problem, (taken[:, None] * group + torch.arange(group)).flatten())  # <- the idea
            return joined(batch, old).having(info=batch.info | {"old": count / prompts})

        return collect

    def after(state: State, batch: Batch) -> None:
        new = batch.rows(batch.extra["fresh"][:, 0] > 0)
        first, blank = (state.step % window) * rows, rows - len(new)
        place = first + torch.arange(rows, device=new.key.device)
        columns: dict[str, Any] = {name: getattr(new, name) for name in ("mask", "logp", "reward", "advantage")}
        columns |= {"tokens": new.action, "prompt": new.key}
        state.past.write(place, **{name: torch.cat([x, x.new_zeros(blank, *x.shape[1:])]) for name, x in columns.items()})
        state.before.load_state_dict(state.latest.state_dict())
        state.latest.load_state_dict(state.policy.state_dict())
        if state.step + 1 == restart and beta:
            state.reference.load_state_dict(state.policy.state_dict())

    def credit(state: State, batch: Batch) -> dict[str, Tensor]:
        fresh, columns = batch.extra["fresh"][:, 0] > 0, {}
        advantage = batch.extra["stored"].clone()
        advantage[fresh] = group_relative(batch.score[fresh], batch.key[fresh])[:, None].expand_as(batch.mask[fresh])
        if beta:
            with torch.no_grad():
                columns["before"] = state.before.logp(batch.obs, batch.action, batch.mask)
            share = weight(state.step) if state.step < restart else 1.0
            columns["share"] = torch.full_like(batch.mask, share)
        return {"advantage": advantage, **columns}

    objective = mixed_clip(width=clip_range) + beta * between() if beta else mixed_clip(width=clip_range)
    parent = grpo(
        collect=gather, credit=credit, after=after, loss=objective, kl=0.0, prompts=prompts, group=group, epochs=epochs, **options
    )

    def past(state: State, problem: Any, rng: Stream) -> Latest:
        pool(problem)
        row, number = torch.zeros(problem.max_new), torch.zeros((), dtype=torch.long)
        return Latest(window * rows, tokens=row.long(), mask=row, logp=row, reward=row, advantage=row, prompt=number)

    def frozen(state: State, problem: Any, rng: Stream) -> torch.nn.Module:
        return copy.deepcopy(state.policy).requires_grad_(False)

    return holding(parent, past=past, before=frozen, latest=frozen, **({"reference": frozen} if beta else {}))


def weight(step: int) -> float:
    """Of the divergence from the base, against that from the policy before: 1 for 50 steps, then down to 1/2 (paper)."""
    return max(1 - 0.1 * math.ceil(max(step - 50, 0) / 10), 0.5)


def recalled(state: State, problem: Any, rows: Tensor) -> Batch:
    """Remembered groups, with the log-probabilities of then (`logp`) and of now."""
    was = state.past.read(rows)
    asked, device = problem.pick(was["prompt"].cpu()), state.device
    obs = {"ids": asked.ids.to(device), "mask": asked.mask.to(device)}
    with torch.no_grad():
        now = state.policy.logp(obs, was["tokens"], was["mask"])
    columns = {"now": now, "fresh": torch.zeros_like(now), "stored": was["advantage"]}
    return Batch(obs, was["tokens"], was["logp"], was["reward"], was["mask"], was["prompt"], extra=columns)
