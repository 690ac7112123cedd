"""Symmetric games of preference: answers that beat one another with known probabilities, perhaps in circles. float64."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..core.exact import Model
from ..core.stream import Stream
from .exact import Made


@dataclass(frozen=True, eq=False)
class PreferenceGame(Model):
    """Y answers to one question.

    wins           probability that the row is preferred to the column [Y, Y]; wins + wins^T = 1
    log_reference  log-probabilities of the policy to start from and to stay near [Y]
    tau            what a nat of KL(pi || reference) costs, in win rate

    Raises ValueError and names the entry where wins + wins^T is not 1.
    """

    wins: Tensor
    log_reference: Tensor
    tau: float = 0.1

    def __post_init__(self) -> None:
        answers = len(self.wins)
        if self.wins.shape != (answers, answers) or self.log_reference.shape != (answers,):
            raise ValueError(
                f"wins must be [Y, Y] and log_reference [Y], not {list(self.wins.shape)} and {list(self.log_reference.shape)}"
            )
        off = ~((self.wins + self.wins.T - 1).abs() <= 1e-9)
        if off.any():
            y, z = off.nonzero()[0].tolist()
            raise ValueError(
                f"wins[{y}][{z}] = {float(self.wins[y, z]):.6g} and wins[{z}][{y}] = {float(self.wins[z, y]):.6g} must sum to 1: "
                "one of two answers is preferred, and an answer ties with itself (1/2)"
            )
        if (self.wins < 0).any():
            raise ValueError(f"wins holds {float(self.wins.min()):.6g}, which is no probability")
        if not torch.isfinite(self.log_reference).all() or abs(float(self.log_reference.exp().sum()) - 1) > 1e-9:
            raise ValueError("log_reference must be finite log-probabilities that sum to 1: every answer needs some chance")
        if not self.tau > 0:
            raise ValueError(f"tau must be positive, not {self.tau}")

    def evaluate(self, policy: Any, rng: Stream) -> dict[str, float]:
        """`worst_win_rate` against the answer that beats the policy most, and the `gap` to the regularised equilibrium."""
        pi = policy.probs().detach().to(self.wins)[0]
        return {
            "worst_win_rate": 0.5 - exploitability(self.wins, pi),
            "gap": regularised_gap(self.wins, self.log_reference, self.tau, pi),
        }


def exploitability(wins: Tensor, pi: Tensor) -> float:
    """How much more than half of the time the best answer beats pi [Y]; 0 at a Nash equilibrium."""
    return float((wins @ pi).max()) - 0.5


def regularised_gap(wins: Tensor, log_reference: Tensor, tau: float, pi: Tensor) -> float:
    """What the best policy gains against pi [Y] when both pay tau KL(. || reference); 0 only at the regularised equilibrium.

    max_q [P(q > pi) - tau KL(q || ref)] - [1/2 - tau KL(pi || ref)], whose maximum is tau log sum ref exp(P(y > pi) / tau).
    """
    best = tau * torch.logsumexp(log_reference + wins @ pi / tau, 0)
    kl = (torch.special.xlogy(pi, pi) - pi * log_reference).sum()
    return float(best + tau * kl) - 0.5


@dataclass(frozen=True)
class IntransGame(Made):
    """Random preferences with circles in them: wins = sigmoid(spread * A), A antisymmetric with normal entries.

    answers  Y
    spread   how decided the preferences are; their log odds are normal with this standard deviation
    skew     of the reference, a softmax of normal logits with this standard deviation
    tau      what a nat of KL(pi || reference) costs, in win rate
    seed     which random instance
    """

    answers: int = 10
    spread: float = 2.0
    skew: float = 1.0
    tau: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.answers < 2 or self.spread < 0 or self.skew < 0:
            raise ValueError(
                f"a game has at least two answers, spread and skew >= 0, not {self.answers}, {self.spread}, {self.skew}"
            )

    def build(self) -> PreferenceGame:
        g = self.generator()
        odds = torch.randn(self.answers, self.answers, generator=g, dtype=torch.float64).triu(1)
        logits = self.skew * torch.randn(self.answers, generator=g, dtype=torch.float64)
        return PreferenceGame(torch.sigmoid(self.spread * (odds - odds.T)), logits.log_softmax(0), self.tau)


@dataclass(frozen=True)
class RockPaperScissors(Made):
    """Each answer beats the one before it with probability 1/2 + edge: the only equilibrium is uniform.

    edge  in (0, 1/2]
    skew  of the reference's log-probabilities, which are skew * (0, 1, 2) up to a constant
    tau   what a nat of KL(pi || reference) costs, in win rate
    seed  none is needed: there is one instance
    """

    edge: float = 0.5
    skew: float = 0.0
    tau: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.edge <= 0.5:
            raise ValueError(f"edge must lie in (0, 1/2], not {self.edge}")

    def build(self) -> PreferenceGame:
        beats = torch.eye(3, dtype=torch.float64).roll(1, 0)  # answer y beats y - 1
        logits = self.skew * torch.arange(3, dtype=torch.float64)
        return PreferenceGame(0.5 + self.edge * (beats - beats.T), logits.log_softmax(0), self.tau)
