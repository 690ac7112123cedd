"""Sums with demonstrations that only look like reasoning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from ..core.problem import Prompts
from ..core.stream import Stream
from .language import ChainSum
from .symbolic import places, upto_end


@dataclass(frozen=True)
class PseudoSum(ChainSum):
    """ChainSum whose demonstrations are an expert's traces: always by a chain, drawn out with dots, with running sums of which some
    are wrong, and yet with the right digit at the end. The trace of a prompt is always the same one.
    """

    hesitates: ClassVar[float] = 0.6  # chance of another dot behind a running sum
    errs: ClassVar[float] = 0.15  # of the running sums; an error is not carried on

    def demonstrate(self, prompts: Prompts) -> tuple[Tensor, Tensor]:
        drawn = [Stream("expert", key).numpy().random((3, self.width)) for key in prompts.key.tolist()]
        slow, slip, by = torch.as_tensor(np.stack(drawn)).unbind(1)
        truth = places(prompts.key, self.width).cumsum(1) % 10
        sums = torch.where(slip < self.errs, truth + 1 + (9 * by).long(), truth) % 10
        dots = (slow.clamp(min=1e-9).log() / torch.tensor(self.hesitates).log()).long()
        tokens = self.chain((prompts.key // 10**self.width)[:, None], sums, dots, truth[:, -1:])
        mask = upto_end(tokens)
        longest = int(mask.sum(1).max())
        return tokens[:, :longest], mask[:, :longest]
