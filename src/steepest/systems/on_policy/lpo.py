"""LPO: the drift of a mirror learner is a network, and evolution finds the weights with which learners end best.

Paper.  Lu, Kuba, Letcher, Metz, Schroeder de Witt and Foerster, Discovered Policy Optimisation, 2022. arXiv 2210.05639.
Claim.  Learners with the learned drift end better than with PPO's.
Idea.   grad = mean of (F(theta + s e) - F(theta - s e)) e / 2 s, F what a learner with drift theta earns in the end, divided by
        the standard deviation of F among all that were tried
State.  policy: a learner and its drift, a `DriftNet`; its Adam
Note.   The runs inside are tables of logits on bandits, where the authors' are Brax agents. All learners of a step meet the same
        bandits and the same luck, as in the authors' code. Its population starts at weights of 0, where the expected slope is 0;
        here the network's first layer is random. Their noise shrinks slowly, here it stays. The drift that was found is for any
        problem: ``ppo(loss=mirror_drift(drift=state.policy.drift))``; DPO was read off one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from ...core.state import State
from ...core.stream import Stream
from ...core.system import System
from ...losses import Terms, clip_drift, mirror_drift
from ...losses.drift import Drift
from ...models.drift import DriftNet, drift_of
from ...optimize.epochs import descend
from ...problems.bandits import Bandits, Luck


@dataclass(frozen=True)
class Tried:
    """What was added to the weights [P, D], and what learners with and with minus it earned [P] each."""

    noise: Tensor
    plus: Tensor
    minus: Tensor


class Learner(nn.Module):
    """Learns bandits from equal chances: `epochs` steps of Adam, at rate `lr`, on each round's mirror loss."""

    def __init__(self, drift: Any, *, epochs: int, lr: float):
        super().__init__()
        self.drift, self.epochs, self.lr = drift, epochs, lr

    def learned(self, luck: Luck) -> Tensor:
        """The last policy [B, K]."""
        return self.runs(self.drift, luck, 1)[0]

    def runs(self, drift: Drift, luck: Luck, count: int) -> Tensor:
        """The last policies [P, B, K] of `count` learners, each of which is a row of what the drift gets."""
        logits = luck.means.new_zeros(count, *luck.means.shape).requires_grad_()
        optimizer, loss = torch.optim.Adam([logits], self.lr), mirror_drift(drift=drift)
        for turn in range(len(luck.spot)):
            with torch.no_grad():
                before = logits.log_softmax(-1)
                arm, reward = luck.pull(before.exp(), turn)
                better = reward - reward.mean(-1, keepdim=True)
                advantage = (better / (better.std((1, 2), keepdim=True) + 1e-8)).flatten(1)
                old = before.gather(-1, arm).flatten(1)
            for _ in range(self.epochs):
                new = logits.log_softmax(-1).gather(-1, arm).flatten(1)
                descend(optimizer, loss(Terms(new, old, advantage, torch.ones_like(old))).loss.mean(1).sum())
        return logits.detach().softmax(-1)


def clipped(*, band: float, epochs: int, lr: float) -> Learner:
    """A learner with PPO's drift: what the others are compared with. The ratio's band is 1 +- `band`."""
    return Learner(partial(clip_drift, low=band, high=band), epochs=epochs, lr=lr)


def slope(tried: Tried, size: float) -> Tensor:
    """What the earnings gain along each weight [D], in standard deviations of all earnings."""
    spread = torch.cat([tried.plus, tried.minus]).std()
    return (tried.plus - tried.minus) / (2 * size * (spread + 1e-8)) @ tried.noise / len(tried.noise)  # <- the idea


def lpo(
    *, hidden: int = 128, pairs: int = 16, size: float = 0.04, lr: float = 0.01, epochs: int = 4, inner_lr: float = 0.1
) -> System:
    """Evolution strategies on the drift of mirror learners. For Bandits.

    hidden    units of the drift network (paper: 128)
    pairs     of learners a step, with opposite changes of the weights (authors' code: 16)
    size      standard deviation of such a change (evosax: 0.04)
    lr        learning rate of the drift's Adam (evosax: 0.01)
    epochs    steps of a learner on each round (authors' code: 4 passes)
    inner_lr  learning rate of a learner's Adam
    """
    if pairs < 1 or epochs < 1 or min(size, lr, inner_lr) <= 0:
        raise ValueError(f"pairs, epochs >= 1 and size, lr, inner_lr > 0, not {pairs}, {epochs}, {size}, {lr} and {inner_lr}")

    def init(problem: Bandits, rng: Stream) -> State:
        with rng.fork():
            state = State(policy=Learner(DriftNet(hidden), epochs=epochs, lr=inner_lr))
        state.optimizers["policy"] = torch.optim.Adam(state.policy.parameters(), lr)
        return state

    def collect(state: State, problem: Bandits, rng: Stream) -> Tried:
        learner = cast(Any, state.policy)
        theta, luck = parameters_to_vector(learner.parameters()), problem.draw(problem.count, (rng / "bandits").torch())
        noise = torch.randn(pairs, len(theta), generator=(rng / "noise").torch())
        weights = learner.drift.rows(theta + size * torch.cat([noise, -noise]))
        earned = -luck.lost(learner.runs(partial(drift_of, *weights), luck, 2 * pairs))
        return Tried(noise, *earned.split(pairs))

    def learn(state: State, tried: Tried, rng: Stream) -> dict[str, float]:
        optimizer, weights = state.optimizers["policy"], list(state.policy.parameters())
        rise = [torch.empty_like(p) for p in weights]
        vector_to_parameters(slope(tried, size), rise)
        for p, up in zip(weights, rise, strict=True):
            p.grad = -up
        optimizer.step()
        return {"return": float(torch.cat([tried.plus, tried.minus]).mean())}

    return System(init, collect, learn)
