"""What the length of an answer costs or earns. Pure: length [N] -> [N]."""

from __future__ import annotations

from torch import Tensor


def overlong(length: Tensor, *, longest: float, cache: float) -> Tensor:
    """0 up to `longest - cache` tokens, then falling evenly to -1 at `longest`. arXiv:2503.14476 eq. 13"""
    if not 0 < cache <= longest:
        raise ValueError(f"cache lies in (0, longest]: the penalty cannot set in {cache} tokens before the {longest}th")
    return ((longest - cache - length) / cache).clamp(-1.0, 0.0)
