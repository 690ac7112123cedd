"""Who writes the answers to prompts: the policy itself or an engine apart from it, behind one interface."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor


class Answers(NamedTuple):
    """Answers to N prompts; T is the longest.

    tokens  [N, T] long, padded
    mask    [N, T] float, 1 up to and including the end token
    logp    [N, T] log-probability of each token as the generator saw it, 0 where the mask is
    """

    tokens: Tensor
    mask: Tensor
    logp: Tensor


class Generator(Protocol):
    """Writes one answer to each of N prompts, given as ids [N, L] and mask [N, L], with the weights that `policy` has now.

    Randomness comes from `generator` alone, so that a run repeats; what a row says must not depend on the rows beside it.

    exact  whether `logp` are the policy's own log-probabilities. Those of another engine differ by its kernels and precision,
           which the collector then corrects for
    """

    @property
    def exact(self) -> bool: ...

    def __call__(self, policy: Any, obs: dict[str, Tensor], generator: torch.Generator, greedy: bool = False) -> Answers: ...
