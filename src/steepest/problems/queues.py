"""Queues that share a server, known completely: the least problem in which every fixed habit is bad and a mixture is good."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .exact import Made
from .tabular import TabularMDP


@dataclass(frozen=True)
class TwoQueues(Made):
    """Two queues and one server: in a slot it serves one of them, then at most one customer comes to each. Costs.

    State (i, j) has number i * (cap + 1) + j; action 0 serves the first queue, 1 the second. An empty queue is served in vain,
    and who comes to a full one is turned away. The cost of a slot is (1 - gamma)(i + j), so that a value is the
    discounted mean length of both together. The first state is empty. With one queue served for ever the other
    grows to the cap.

    first   probability that a customer comes to the first queue
    second  and to the second
    cap     longest queue
    gamma   discount
    seed    none is needed: there is one instance
    """

    first: float = 0.4
    second: float = 0.4
    cap: int = 15
    gamma: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        if not (0 <= self.first <= 1 and 0 <= self.second <= 1):
            raise ValueError(f"first and second are probabilities, not {self.first} and {self.second}")
        if self.cap < 1:
            raise ValueError(f"cap must be at least 1, not {self.cap}: without a cap the states are not finite")

    def build(self) -> TabularMDP:
        n = self.cap + 1
        length = torch.arange(n)
        P = torch.zeros(n * n, 2, n * n, dtype=torch.float64)
        for action in (0, 1):
            i = (length - (1 - action)).clamp(min=0)[:, None].expand(n, n)
            j = (length - action).clamp(min=0)[None].expand(n, n)
            for a, chance in ((0, 1 - self.first), (1, self.first)):
                for b, other in ((0, 1 - self.second), (1, self.second)):
                    after = (i + a).clamp(max=self.cap) * n + (j + b).clamp(max=self.cap)
                    P[torch.arange(n * n), action, after.reshape(-1)] += chance * other
        cost = (1 - self.gamma) * (length[:, None] + length).double().reshape(-1, 1).expand(-1, 2)
        rho = torch.eye(n * n, dtype=torch.float64)[0]
        return TabularMDP(P, cost.clone(), rho, self.gamma, "cost")
