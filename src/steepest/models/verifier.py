"""Verifiers: models that say how good an answer is after each of its steps."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..core.stream import Stream
from .language import Obs, TokenValue


def as_it_is(value: Tensor) -> Tensor:
    """The number itself, for a verifier that is a regression."""
    return value


class StepVerifier(nn.Module):
    """A head on a copy of the policy's trunk that scores every step of an answer: the chance that it is good up to there.

    A number is given after every token; which of them end a step, the problem says (``steps``), and only those are taught. The
    head starts at zero, so the first score is ``link(0)`` everywhere: one half.

    link  what makes a score of the head's number: the logistic function, or `as_it_is` where the score is a regression
    """

    def __init__(self, policy: nn.Module, rng: Stream, *, link: Callable[[Tensor], Tensor] = torch.sigmoid):
        super().__init__()
        self.inner, self.link = TokenValue(policy, rng), link  # type: ignore[arg-type]

    def value(self, obs: Obs, action: Tensor, mask: Tensor) -> Tensor:
        """The head's number once each token is read, with gradient [N, T]; 0 where the mask is. A loss of logits wants this."""
        return self.inner.after(obs, action, mask)

    @torch.no_grad()
    def score(self, obs: Obs, action: Tensor, mask: Tensor) -> Tensor:
        """The score of the answer up to and including each token [N, T]; 0 where the mask is, so `mask` may be the steps alone."""
        return self.link(self.value(obs, action, mask)).where(mask > 0, 0.0)
