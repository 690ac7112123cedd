"""Policies and rewards as tables: one number for each of finitely many states and actions."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn


class Tabular(nn.Module):
    """A distribution over A actions in each of S states. obs [...] long numbers the state, action [...] long the action."""

    markov = True

    @abstractmethod
    def log_probs(self) -> Tensor:
        """All log-probabilities [S, A]."""

    def probs(self) -> Tensor:
        """All probabilities [S, A]."""
        return self.log_probs().exp()

    def logp(self, obs: Tensor, action: Tensor, mask: Tensor) -> Tensor:
        return self.log_probs()[obs].gather(-1, action[..., None]).squeeze(-1)

    def logp_entropy(self, obs: Tensor, action: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        return self.logp(obs, action, mask), torch.special.entr(self.probs()).sum(-1)[obs]

    @torch.no_grad()
    def sample(self, obs: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """obs [B] -> action [B], logp [B]"""
        action = torch.multinomial(self.probs()[obs], 1, generator=generator)
        return action.squeeze(1), self.log_probs()[obs].gather(1, action).squeeze(1)

    @torch.no_grad()
    def act(self, obs: Tensor, generator: torch.Generator, greedy: bool = False) -> Tensor:
        """obs [B] -> action [B]: the likeliest if `greedy`, else a sample."""
        return self.probs()[obs].argmax(-1) if greedy else self.sample(obs, generator)[0]


class TabularSoftmax(Tabular):
    """pi(a|s) = softmax of a table of logits [S, A], which starts as given."""

    def __init__(self, logits: Tensor):
        super().__init__()
        self.logits = nn.Parameter(logits.detach().clone())

    def log_probs(self) -> Tensor:
        return self.logits.log_softmax(-1)


class TabularDirect(Tabular):
    """pi(a|s) is the table itself [S, A]: no gradient flows to it, steps write it and project it back to the simplex."""

    table: Tensor

    def __init__(self, probs: Tensor):
        super().__init__()
        self.register_buffer("table", probs.detach().clone())

    def log_probs(self) -> Tensor:
        return self.table.log()

    def probs(self) -> Tensor:
        return self.table


class TabularReward(nn.Module):
    """A reward for each of S states and A actions, all 0 at first."""

    def __init__(self, like: Tensor):
        super().__init__()
        self.table = nn.Parameter(torch.zeros_like(like))

    def forward(self, obs: Tensor, action: Tensor) -> Tensor:
        """obs [...], action [...] -> [...]"""
        return self.table[obs, action]
