"""Maximum likelihood of answers that somebody gave: as a system, and as what comes before another one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor

from ..core.batch import Batch
from ..core.state import State
from ..core.stream import Stream
from ..core.system import System
from ..losses import Loss, reinforce, token_mean
from ..optimize.epochs import Epochs, Update, epochs
from .answers import by_score
from .policy_gradient import Collect, Credit, Init, Select, keep, policy_gradient


def as_rewarded(score: Tensor, key: Tensor) -> Tensor:
    """The score itself: 1 for what is to be imitated. [N], [N] -> [N]"""
    return score


def imitation(
    *, init: Init, collect: Collect, loss: Loss | None = None, select: Select = keep,
    credit: Credit = by_score(as_rewarded), update: Update = epochs(),
) -> System:  # fmt: skip
    """Make the answers of `collect` likelier: a policy gradient whose advantage is what an answer was paid, 1 for a demonstration,
    with the mean over tokens.

    loss    what replaces - A log pi
    credit  what replaces the score as advantage
    """
    return policy_gradient(
        init=init, collect=collect, select=select, credit=credit, loss=reinforce() if loss is None else loss, reduce=token_mean,
        update=update,
    )  # fmt: skip


def after_imitation(
    system: System, collect: Collect, *, steps: int, lr: float, micro: int | None = None, max_grad_norm: float = 1.0
) -> System:
    """The same system behind `steps` steps of imitation of what `collect` gives; with 0 it is the system itself.

    Imitation moves the policy alone, by an optimizer of its own, `imitation`, which is as the system's but for the rate `lr`. When
    it ends, a `reference` becomes the policy that it made. Steps are counted through.
    """
    if steps < 0 or not lr > 0:
        raise ValueError(f"imitation takes at least 0 steps at a positive rate, not {steps} at {lr}")
    if steps == 0:
        return system
    update = Epochs(micro=micro, max_norm=max_grad_norm, optimizer="imitation")
    first = imitation(init=system.init, collect=collect, update=update)

    def init(problem: Any, rng: Stream) -> State:
        state = system.init(problem, rng)
        own = state.optimizers["policy"]
        kind: Any = type(own)
        state.optimizers["imitation"] = kind([{**group, "lr": lr} for group in own.param_groups], lr)
        return state

    def gather(state: State, problem: Any, rng: Stream) -> Any:
        return (first if state.step < steps else system).collect(state, problem, rng)

    def learn(state: State, batch: Batch, rng: Stream) -> dict[str, Any]:
        if state.step >= steps:
            return system.learn(state, batch, rng)
        told = first.learn(state, batch, rng)
        if state.step + 1 == steps and hasattr(state, "reference"):
            state.reference.load_state_dict(state.policy.state_dict())
        return {name: x for name, x in told.items() if name != "score"}  # every demonstration counts as right

    return replace(system, init=init, collect=gather, learn=learn)
