"""FixPO: a learned price keeps nearly every state inside the trust region, and a few steps on the divergence alone the rest.

Paper.  Zentner, Puri, Zhang and Sukhatme, Guaranteed Trust Region Optimization via Two-Phase KL Penalization, 2023.
        arXiv 2312.05405.
Claim.  KL(old || new) is within the bound in every state of the batch after more of its updates than of PPO's.
Idea.   minimise -r A + b KL, b learned from b (e - C max KL); then step on b KL where any KL > e, until none is
State.  as ppo, and `penalty`, the price b, with its Adam
Note.   As the authors' code: the price moves with every minibatch, and the second phase follows every pass. Theirs can go on for
        ever; here `max_fixup` steps are the end: the parameters from before the update are put back and the run stops.
        Advantages are standardised over the batch, theirs in each minibatch. The second phase took about 12 % more gradient
        steps on CartPole at a bound of 0.05; the paper reports less than 5 %.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ...core.batch import Batch
from ...core.state import State
from ...core.stream import Stream
from ...core.system import System, extends
from ...engines.policy_gradient import PolicyObjective
from ...losses import kl_old_new, penalized, surrogate, token_mean
from ...optimize.dual import Priced, learning, moved
from ...optimize.epochs import Epochs, Objective, Update, advance, apart, scale_down
from ...optimize.natural import flat, write
from .ppo import ppo


@extends(ppo, without=("clip_range", "loss", "wrap", "max_kl"))
def fixpo(
    *, bound: float = 0.2, target: float = 2.0, statistic: Callable[[Tensor], Tensor] = torch.max, penalty: float = 1.0,
    penalty_lr: float = 0.01, fixup_rows: int = 1024, max_fixup: int = 1000, epochs: int = 10, max_grad_norm: float = 0.5,
    **options: Any,
) -> System:  # fmt: skip
    """PPO with a learned price on the divergence in place of the clip, and a bound that holds.

    bound          of KL(old || new) after an update, nats (authors' code: 0.2)
    target         C: the price rises while C times the statistic exceeds the bound (authors' code: 2)
    statistic      KL [N, T] -> []: which KL is bounded (authors' code: the largest; their other choice is the mean)
    penalty        the first price (authors' code: 1)
    penalty_lr     of the price's Adam (authors' code: 0.01)
    fixup_rows     decisions in a minibatch of the second phase (authors' code: 1024)
    max_fixup      steps of one second phase after which the update is given up
    epochs         passes over a batch (paper, MuJoCo: 10)
    max_grad_norm  the gradient is scaled down to this norm, in both phases
    """
    if not (bound > 0 and target >= 1):
        raise ValueError(f"bound must be positive and target at least 1, not {bound} and {target}")
    if fixup_rows < 1 or max_fixup < 1:
        raise ValueError(f"fixup_rows and max_fixup must be at least 1, not {fixup_rows} and {max_fixup}")
    pull_back = Priced(PolicyObjective(penalized(kl_old_new()), token_mean), bound, target, statistic)

    def fix(state: State, batch: Batch) -> int:
        """Sweep until no minibatch breaks the bound. -> steps; -1 where `max_fixup` were not enough"""
        optimizer, steps, broken = state.optimizers["policy"], 0, True
        params = [p for group in optimizer.param_groups for p in group["params"]]
        while broken:
            broken = False
            for part in batch.split(fixup_rows):
                if float(statistic(moved(state, part))) <= bound:
                    continue
                if steps == max_fixup:
                    return -1
                broken, steps = True, steps + 1
                for p in params:
                    p.grad = None
                pull_back.pull(state, pull_back.weigh(part), False)
                scale_down(params, max_grad_norm)
                advance(optimizer)
        return steps

    def two_phases(passes: Epochs) -> Update:
        def update(state: State, objective: Objective, batch: Batch, rng: Stream) -> dict[str, Any]:
            batch, params = apart(state, batch), list(state.policy.parameters())
            priced, before, fixups = Priced(objective, bound, target, statistic), flat([p.detach() for p in params]), 0
            metrics: dict[str, Any] = {}
            for n in range(epochs):
                metrics = replace(passes, count=1)(state, priced, batch, rng / n)
                steps = fix(state, batch)  # <- the idea
                if steps < 0:
                    write(params, before)
                    raise RuntimeError(
                        f"{max_fixup} steps on the divergence alone did not bring it within the bound {bound} (pass {n + 1}, "
                        f"penalty {state.penalty.value.item():.3g}); the policy is again what it was before the update. Lower "
                        "lr, or raise max_fixup, penalty_lr or bound"
                    )
                fixups += steps
            return {**metrics, "fixups": float(fixups)}

        return update

    system = ppo(loss=surrogate() + penalized(kl_old_new()), wrap=two_phases, epochs=epochs, max_grad_norm=max_grad_norm, **options)
    return learning(system, start=penalty, lr=penalty_lr)
