"""S2PG: a policy with memory learns from single decisions, because what it remembers next is one of them.

Paper.  Al-Hafez, Zhao, Peters and Tateo, Time-Efficient Reinforcement Learning with Stochastic Stateful Policies, 2023.
        arXiv 2311.04082.
Claim.  Where velocities are hidden it earns more than the same policy without a memory, though no gradient passes through time.
Idea.   pi(a, z' | s, z): grad J = E sum_t grad log pi(a_t, z_{t+1} | s_t, z_t) A(s_t, z_t), with z_t a constant input
State.  as ppo; the internal states z of the running episodes stand in `live`
Note.   One tanh network gives the means of a and of z' in place of the authors' GRU step, and does not see the action before.
        Their re-sampling of stored z between passes (off by default) is left out. The critic sees (s, z).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ...core.batch import Batch
from ...core.state import State
from ...core.stream import Stream
from ...core.system import System, extends
from ...models.stateful import Augmented
from .ppo import ppo


@extends(ppo, without=("kl", "prompts", "group", "model"))
def s2pg(*, memory: int = 128, noise: float = 0.02, lr: float = 1e-3, normalize: bool = True, **options: Any) -> System:
    """PPO with an internal state that the policy draws together with its action. For environments.

    memory     numbers of internal state; 0: this is PPO (authors' code: 128)
    noise      standard deviation of the next internal state before training; it is learned (authors' code, PPO: 0.02)
    lr         learning rate of Adam (authors' code: 1e-3)
    normalize  observations, never internal states, and returns are brought to unit scale by running moments
    """
    inner = ppo(lr=lr, normalize=normalize, **options)

    def met(problem: Any) -> Augmented:
        return Augmented(problem, memory, noise)  # <- the idea

    def init(problem: Any, rng: Stream) -> State:
        return inner.init(met(problem), rng)

    def collect(state: State, problem: Any, rng: Stream) -> Batch:
        return inner.collect(state, met(problem), rng)

    return replace(inner, init=init, collect=collect)
