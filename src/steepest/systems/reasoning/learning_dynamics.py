"""Learning dynamics: DPO that says what each step did to answers it was not about, and what a straight line had foretold.

Paper.  Ren and Sutherland, Learning Dynamics of LLM Finetuning, 2024. arXiv 2407.10490.
Claim.  Pushing unlikely answers further down moves their probability to the likeliest answer (the squeezing effect); imitation of
        both answers first makes it milder.
Idea.   change of log pi(y|x) = <grad log pi(y|x), move of the parameters> + O(|move|^2)
State.  as dpo; an Adam for the imitation; `watched`, pairs that no step trains on
Note.   The paper's first order is -lr A K G, with the tangent kernel K, which is not formed here: an answer's gradient times the
        move that the optimizer made is the same number, for every optimizer and for whole answers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any, cast

import torch
from torch import nn

from ...collectors.pairs import Collector, pairs
from ...core.pairs import Pairs
from ...core.state import State
from ...core.stream import Stream
from ...core.system import System, extends, holding
from ...optimize.epochs import descend
from ...optimize.influence import correlation, slopes
from ...optimize.natural import flat
from ..preferences.dpo import answer_logp, dpo


class Watched(nn.Module):
    """Pairs that stay the same, as buffers: obs by name, and the columns of `Pairs`."""

    def __init__(self, kept: Pairs):
        super().__init__()
        self.names = tuple(kept.obs)
        for name, x in kept.obs.items():
            self.register_buffer(f"obs_{name}", x)
        for part in fields(Pairs)[1:]:
            self.register_buffer(part.name, getattr(kept, part.name))

    def read(self) -> Pairs:
        obs = {name: getattr(self, f"obs_{name}") for name in self.names}
        return Pairs(obs, *(getattr(self, part.name) for part in fields(Pairs)[1:]))


@torch.no_grad()
def likeliest(policy: Any, kept: Pairs, rng: Stream) -> float:
    """Mean log-probability, over a token, of the greedy answers to what was watched."""
    _, mask, logp = policy.sample(kept.obs, rng.torch(kept.weight.device), greedy=True)
    return float((logp * mask).sum() / mask.sum())


@extends(dpo)
def learning_dynamics(
    *, imitate: int = 0, imitate_lr: float = 5e-6, every: int = 10, watch: int = 16, count: int = 64,
    source: Callable[..., Collector] = pairs, **options: Any,
) -> System:  # fmt: skip
    """DPO on texts that reports log-probabilities of what is watched, `chosen` and `rejected` (nats an answer) and `likeliest`
    (nats a token); and `foretold`, the correlation over the watched answers of a step's changes with their first order.

    imitate     training steps of maximum likelihood on both answers before DPO begins (paper: an epoch)
    imitate_lr  of their Adam
    every       training steps between two measurements
    watch       prompts whose pairs are watched; ties drop out
    count       prompts a step
    source      (count=) -> a collector of pairs
    """
    for name, size in (("every", every), ("watch", watch)):
        if size < 1:
            raise ValueError(f"{name} must be at least 1, not {size}")
    if imitate < 0 or not imitate_lr > 0:
        raise ValueError(f"imitate must not be negative and imitate_lr must be positive, not {imitate} and {imitate_lr}")
    system = dpo(count=count, **options)

    def init(problem: Any, rng: Stream) -> State:
        state = system.init(problem, rng)
        state.optimizers["imitate"] = torch.optim.Adam(state.policy.parameters(), imitate_lr)
        return state

    def taught(state: State, batch: Pairs, rng: Stream) -> dict[str, Any]:
        if state.step >= imitate or len(batch) == 0:
            return system.learn(state, batch, rng)
        loss = -(batch.weight * sum(answer_logp(state.policy, batch))).sum()
        descend(state.optimizers["imitate"], loss)
        return {"loss": float(loss.detach()), "pairs": len(batch)}

    def learn(state: State, batch: Pairs, rng: Stream) -> dict[str, Any]:
        if state.step % every:
            return taught(state, batch, rng)
        kept = cast(Watched, state.watched).read()
        before, params = torch.cat(answer_logp(state.policy, kept)), list(state.policy.parameters())
        rows, start = slopes(state.policy, before), flat([p.detach() for p in params])
        metrics = taught(state, batch, rng)
        with torch.no_grad():
            chosen, rejected = answer_logp(state.policy, kept)
            change = torch.cat([chosen, rejected]) - before
            foretold = rows @ (flat(params) - start)  # <- the idea
        told = {"chosen": float(chosen.mean()), "rejected": float(rejected.mean())}
        told |= {"likeliest": likeliest(state.policy, kept, rng / "likeliest"), "foretold": correlation(foretold, change)}
        return metrics | told

    def watched(state: State, problem: Any, rng: Stream) -> Watched:
        kept = source(count=watch)(state, problem, rng)
        if len(kept) == 0:
            raise ValueError(f"of {watch} prompts none has a right and a wrong answer: watch more, or take easier prompts")
        return Watched(kept)

    return holding(System(init, source(count=count), learn), watched=watched)
