"""Credit by windows that slide over an answer. Pure: reward [N, T], mask [N, T] -> advantage [N, T]."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad


def sliding(reward: Tensor, mask: Tensor, *, width: int = 5, stride: int = 1) -> Tensor:
    """Advantages A with sum A log pi = mean over windows of (R - b) l; R and l are a window's mean reward and mean log pi, and b is
    the mean R. arXiv:2003.03983, where both are sliding means, as of a convolution with a constant kernel.

    A window lies inside its answer. An answer shorter than `width` is one window.

    width   decisions of a window; 1: every decision by itself
    stride  from one window's begin to the next one's; above 1 the last decisions of an answer may lie in no window
    """
    if width < 1 or stride < 1:
        raise ValueError(f"a window has at least 1 decision and a stride of at least 1, not {width} and {stride}")
    length = mask.sum(1, keepdim=True).long()
    size = length.clamp(1, width)  # a row without decisions has no window
    begin = torch.arange(mask.shape[1], device=mask.device)
    whole = ((begin % stride == 0) & (begin + size <= length)).to(reward)
    upto = pad((reward * mask).cumsum(1), (1, 0))
    mean = (upto.gather(1, (begin + size).clamp(max=mask.shape[1])) - upto[:, :-1]) / size
    count = whole.sum()
    excess = whole * (mean - (whole * mean).sum() / count) / size / count
    upto = pad(excess.cumsum(1), (1, 0))
    return (upto[:, 1:] - upto.gather(1, (begin + 1 - size).clamp(min=0))) * mask
