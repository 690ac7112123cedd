"""Nash-MD: play against a geometric mixture of yourself and the reference.

Paper.  Munos et al., Nash Learning from Human Feedback, 2023. arXiv 2312.00886.
Claim.  Its last policy approaches the equilibrium of a regularised preference game, where self-play without the mixture circles.
Idea.   mix ~ pi^(1 - eta tau) ref^(eta tau);   pi <- mix exp(eta P(y > mix)) / Z
State.  policy and reference, log-probabilities of the Y answers
Note.   The exact rule on a known game. The paper's policy gradient for language models, Nash-MD-PG, is not here.
"""

from __future__ import annotations

from typing import Any

import torch

from ...collectors.exact import exact
from ...core.state import State
from ...core.stream import Stream
from ...core.system import System
from ...models.tabular import TabularSoftmax
from ...optimize.mirror import geo_mix, mirror_step
from ...problems.games import PreferenceGame


def nash_md(*, tau: float = 0.1, eta: float | None = None) -> System:
    """Nash mirror descent with exact expectations.

    tau  weight of KL(pi || reference); 0: self-play without a mixture, which needs an eta
    eta  step, at most 1 / tau; None: 2 / (tau (t + 2)) at step t = 0, 1, ... (paper: theorem 1)
    """
    if tau < 0:
        raise ValueError(f"tau must not be negative, not {tau}")
    if eta is None and tau == 0:
        raise ValueError("without regularisation (tau = 0) the schedule 2 / (tau (t + 2)) has no meaning: give eta")
    if eta is not None and not (eta > 0 and eta * tau <= 1):
        raise ValueError(f"eta must be positive and eta * tau at most 1, not eta = {eta} with tau = {tau}")

    def init(problem: Any, rng: Stream) -> State:
        start = problem.model.log_reference[None]
        return State(policy=TabularSoftmax(start), reference=TabularSoftmax(start).requires_grad_(False))

    @torch.no_grad()
    def learn(state: State, game: PreferenceGame, rng: Stream) -> dict[str, float]:
        step = 2 / (tau * (state.step + 2)) if eta is None else eta
        logp = state.policy.log_probs()
        mix = geo_mix(logp, state.reference.log_probs(), step * tau)
        wins = mix.exp() @ game.wins.T  # P(y > mix) [1, Y]
        new = mirror_step(mix, wins, step)  # <- the idea
        state.policy.logits.copy_(new)
        return {**game.evaluate(state.policy, rng), "moved": float((new.exp() - logp.exp()).abs().sum())}

    return System(init, exact, learn)
