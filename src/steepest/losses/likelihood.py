"""Likelihoods of answers that were verified, right and wrong ones."""

from __future__ import annotations

import torch
from torch import Tensor

from .terms import Terms, loss


@loss("success")
def nft(t: Terms, *, floor: float = 1.0) -> Tensor:
    """-w log r of right answers, and -w log max((1 - q r) / (1 - q), floor) of wrong ones: the likelihood of the wrong ones under
    what is left of the old policy when the new one, which is meant to be its right part, is taken out of it. q, the column
    `success`, is the prompt's share of right answers, in (0, 1). arXiv:2505.18116 eq. 9

    Right is what has a positive advantage. Of the weight w the advantage is w for right answers and -w q / (1 - q) for wrong ones:
    the gradient at r = 1 is then REINFORCE's. The floor bounds the value and not the gradient of what stands in it.
    """
    q = t.extra["success"].clamp(1e-6, 1 - 1e-6)  # 0 stands under the mask
    left = (1 - q * t.ratio) / (1 - q)
    held = left + (left.clamp(min=floor) - left).detach()
    wrong = t.advantage * (1 - q) / q * held.log()
    return torch.where(t.advantage > 0, -t.advantage * t.log_ratio, wrong)
