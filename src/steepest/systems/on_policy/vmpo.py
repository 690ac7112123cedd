"""V-MPO: imitate the better half of what was done, the more the better it was, without going far.

Paper.  Song et al., V-MPO: On-Policy Maximum a Posteriori Policy Optimization for Discrete and Continuous Control, 2020.
        arXiv 1909.12238.
Claim.  A baseline: an on-policy method without ratios whose two trade-offs are learned.
Idea.   minimise -sum psi log pi + alpha KL(old || new), psi = softmax(A / eta) over the half with the largest A, eta and alpha by
        the bounds they stand for
State.  as ppo; `temperature`, which is eta, and `penalty`, which is alpha, with an Adam each
Note.   Every minibatch is what the paper calls a batch. One alpha holds mean and covariance together; for continuous actions the
        paper has one for each. The policy that acted is renewed with every batch, the paper's after a number of updates.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...core.batch import Batch
from ...core.state import State
from ...core.system import System, extends
from ...losses import kl_old_new, penalized, reinforce
from ...optimize.dual import Around, Priced, learning
from ...optimize.epochs import Epochs, Update
from .ppo import ppo


def better_half(advantage: Tensor, temperature: Tensor) -> tuple[Tensor, Tensor]:
    """psi [N, T], which sums to 1 and is 0 on the lower half, and log mean exp(A / eta) over the upper []."""
    flat = advantage.reshape(-1)
    best, where = flat.topk((len(flat) + 1) // 2)
    score = best / temperature
    psi = torch.zeros_like(flat).index_copy(0, where, score.detach().softmax(0))
    return psi.view_as(advantage), score.logsumexp(0) - math.log(len(best))


@dataclass(frozen=True)
class Weighed(Around):
    """An objective whose advantages become psi, minibatch by minibatch; eta takes a step on its dual.

    bound  of the divergence of psi from the better half as it is, nats
    """

    bound: float

    def pull(self, state: State, batch: Batch, report: bool) -> dict[str, Tensor]:
        temperature: Any = state.temperature
        eta = temperature.value
        psi, log_mean = better_half(batch.advantage, eta)  # <- the idea
        psi = psi * psi.numel()  # the objective takes a mean
        metrics = self.objective.pull(state, batch.having(advantage=psi), report)
        (slope,) = torch.autograd.grad(eta * self.bound + eta * log_mean, eta)
        temperature.descend(slope, state.optimizers["temperature"])
        return metrics


@extends(ppo, without=("clip_range", "loss", "wrap"))
def vmpo(
    *, temperature: float = 1.0, temperature_bound: float = 0.01, penalty: float = 5.0, penalty_bound: float = 0.01,
    dual_lr: float = 0.01, **options: Any,
) -> System:  # fmt: skip
    """Maximum a posteriori policy optimisation with a state value. For environments.

    temperature        the first eta (paper: 1)
    temperature_bound  eps_eta, of the divergence of psi from the better half as it is, nats (paper: 0.01 on Gym, 0.1 on pixels)
    penalty            the first alpha (paper: 5)
    penalty_bound      eps_alpha, of the mean KL(old || new), nats (paper: 0.001 to 0.01)
    dual_lr            of the Adam of eta and of alpha (the paper's one rate for all is 1e-4)
    """
    if not (temperature_bound > 0 and penalty_bound > 0):
        raise ValueError(f"both bounds must be positive, not {temperature_bound} and {penalty_bound}")

    def dual(epochs: Epochs) -> Update:
        return lambda state, objective, batch, rng: epochs(
            state, Weighed(Priced(objective, penalty_bound, 1.0, torch.mean), temperature_bound), batch, rng
        )

    system = ppo(loss=reinforce() + penalized(kl_old_new()), wrap=dual, **options)
    system = learning(system, start=penalty, lr=dual_lr)
    return learning(system, start=temperature, lr=dual_lr, name="temperature", floor=1e-8)
