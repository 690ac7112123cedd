"""A classifier, and the chain of temporary copies of its head that a method may train it with."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .distributions import Categorical


class Classifier(nn.Module):
    """Two hidden layers of ReLU and a linear head. x [B, F] -> features [B, H] -> scores [B, C]."""

    def __init__(self, inputs: int, classes: int, hidden: int):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU())
        self.head = nn.Linear(hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


class ReplicaChain(nn.Module):
    """T replicas of a classifier's decision, each from the features of the one before, under a dropout of its own.

    u = dropout(h_{t-1}; p_t), h_t = u + L_t u, decision t by the shared head of h_t; decision 0 is the classifier's. L_t begins
    at 0. The replicas serve training only: `act` and `base` know nothing of them. arXiv:2506.15051 sec. 3

    drops  p_1 .. p_T, each in [0, 1)
    """

    markov = False

    def __init__(self, base: Classifier, drops: Sequence[float]):
        super().__init__()
        if not drops or not all(0 <= p < 1 for p in drops):
            raise ValueError(f"drops are at least one rate, each in [0, 1), not {tuple(drops)}: at 1 nothing would be left")
        self.base, self.drops = base, tuple(drops)
        width = base.head.in_features
        self.links = nn.ModuleList(nn.Linear(width, width) for _ in drops)
        for p in self.links.parameters():
            nn.init.zeros_(p)

    def keep(self, count: int, generator: torch.Generator) -> Tensor:
        """What every dropout leaves and how much it is raised, for `count` examples [count, T, H]."""
        left = 1 - torch.tensor(self.drops, device=generator.device)[:, None]
        shape = count, len(self.drops), self.base.head.in_features
        return (torch.rand(shape, generator=generator, device=generator.device) < left) / left

    def distribution(self, obs: dict[str, Tensor]) -> Categorical:
        """obs: `x` [N, F] and `keep` [N, T, H] -> decisions [N, 1 + T]"""
        h = self.base.body(obs["x"])
        chain = [h]
        for link, kept in zip(self.links, obs["keep"].unbind(1), strict=True):
            u = h * kept
            h = u + link(u)
            chain.append(h)
        return Categorical.of(self.base.head(torch.stack(chain, 1)))

    def logp(self, obs: dict[str, Tensor], action: Tensor, mask: Tensor) -> Tensor:
        return self.distribution(obs).logp(action)

    @torch.no_grad()
    def act(self, x: Tensor, generator: torch.Generator, greedy: bool = False) -> Tensor:
        """x [B, F] -> labels [B], without replicas and dropout"""
        found = Categorical.of(self.base(x.to(self.base.head.weight.device)))
        return found.mode() if greedy else found.sample(generator)
