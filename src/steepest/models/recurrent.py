"""Policies and critics that remember: what `ControlPolicy` and `ControlCritic` are to observations, to whole sequences of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..core.recurrent import Memory, Seen
from .control import ControlCritic, ControlPolicy, Deciding
from .network import Recurrent


class RecurrentPolicy(Deciding):
    """A distribution over actions for each observation and what was seen before it. obs is a `Seen`, logp [N, T].

    own  the policy of a single observation, whose network is `Recurrent`
    """

    markov = False

    def __init__(self, own: ControlPolicy):
        super().__init__()
        self.own = own

    @property
    def norm(self) -> Any:
        return self.own.norm

    def fresh(self, count: int) -> Memory:
        """The memory before an episode."""
        return self.own.net.fresh(count)

    def distribution(self, obs: Seen) -> Any:
        return self.decide(obs.obs, obs.start, obs.memory["policy"])[0]

    def decide(self, obs: Tensor, start: Tensor, memory: Memory) -> tuple[Any, Memory]:
        """obs [N, T, O], start [N, T] -> the distributions, and the memory after the last observation."""
        out, memory = self.own.net(obs if self.norm is None else self.norm(obs), start, memory)
        return self.own.head(out), memory

    def remember(self, obs: Seen) -> Memory:
        """The memory after the last observation."""
        return self.decide(obs.obs, obs.start, obs.memory["policy"])[1]

    def begin(self, count: int) -> Acting:
        """What acts in `count` environments whose episodes begin."""
        device = next(self.parameters()).device
        return self.resume(tuple(x.to(device) for x in self.fresh(count)), torch.ones(count, dtype=torch.bool, device=device))

    def resume(self, memory: Memory, start: Tensor) -> Acting:
        """What acts where it is known what was seen, and which episodes begin, start [count]."""
        return Acting(self, memory, start)


class Acting:
    """A policy in the midst of episodes. It is told which of them have `ended`."""

    def __init__(self, policy: RecurrentPolicy, memory: Memory, start: Tensor):
        self.policy, self.memory, self.start = policy, memory, start

    @torch.no_grad()
    def distribution(self, obs: Tensor) -> Any:
        """Over actions, for obs [B, O] that are now seen."""
        found, self.memory = self.policy.decide(obs[:, None].to(self.start.device), self.start[:, None], self.memory)
        self.start = torch.zeros_like(self.start)
        return found

    def ended(self, over: Tensor) -> None:
        """over [B]: what is seen next is the first of another episode."""
        self.start = over.to(self.start.device)

    def sample(self, obs: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """obs [B, O] -> action [B, ...], logp [B]"""
        found = self.distribution(obs)
        action = found.sample(generator)
        return action[:, 0], found.logp(action)[:, 0]

    def act(self, obs: Tensor, generator: torch.Generator, greedy: bool = False) -> Tensor:
        """What the environment receives: the likeliest action if `greedy`, else a sample."""
        found = self.distribution(obs)
        return self.policy.own.bounded((found.mode() if greedy else found.sample(generator))[:, 0])


class RecurrentCritic(nn.Module):
    """V [N, T] of the observations of a `Seen` and what was seen before each."""

    def __init__(self, own: ControlCritic):
        super().__init__()
        self.own = own

    def fresh(self, count: int) -> Memory:
        return self.own.net.fresh(count)

    def read(self, obs: Tensor, start: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        """obs [N, T, O], start [N, T] -> values [N, T], and the memory after the last observation."""
        out, memory = self.own.net(obs if self.own.norm is None else self.own.norm(obs), start, memory)
        return out.squeeze(-1), memory

    def value(self, obs: Seen, action: Tensor, mask: Tensor) -> Tensor:
        return self.read(obs.obs, obs.start, obs.memory["critic"])[0]

    def remember(self, obs: Seen) -> Memory:
        """The memory after the last observation."""
        return self.read(obs.obs, obs.start, obs.memory["critic"])[1]

    def successors(self, obs: Seen, next_obs: Tensor, asked: Tensor) -> tuple[Tensor, Tensor]:
        """V of what was seen [N, T], and of the true successor next_obs [N, T, O] where `asked` [N, T], 0 elsewhere.

        A successor that was not seen (an episode was cut before it, or the collection ended) is read where it would have come:
        the sequence with it inside is longer, and what follows it is a new episode, which clears the memory of it.
        """
        n, t = obs.start.shape
        asked = asked.clone()
        asked[:, :-1] &= obs.start[:, 1:]  # inside an episode the successor is what was seen next
        at = torch.arange(t, device=asked.device) + asked.long().cumsum(1) - asked.long()  # where each observation comes to stand
        long = t + int(asked.sum(1).max())
        row = torch.arange(n, device=asked.device)[:, None].expand(n, t)
        x = obs.obs.new_zeros(n, long, obs.obs.shape[-1])
        start = torch.ones(n, long, dtype=torch.bool, device=asked.device)  # what stands behind the end is nobody's
        x[row, at], start[row, at] = obs.obs, obs.start
        x[row[asked], at[asked] + 1], start[row[asked], at[asked] + 1] = next_obs[asked], False
        read = self.read(x, start, obs.memory["critic"])[0]
        value, later = read[row, at], torch.zeros_like(read[:, :t])
        later[asked] = read[row[asked], at[asked] + 1]
        inside = torch.zeros_like(asked)
        inside[:, :-1] = ~obs.start[:, 1:]
        shifted = torch.cat([value[:, 1:], value[:, :1]], 1)
        return value, torch.where(inside, shifted, later)


def remembering(part: Any) -> Any:
    """A policy or critic as it is or, where its network remembers, as one of whole sequences."""
    if not isinstance(part.net, Recurrent):
        return part
    return RecurrentPolicy(part) if isinstance(part, ControlPolicy) else RecurrentCritic(part)
