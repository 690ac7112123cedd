"""What a policy that reads its prompt says differently from one that cannot: Terms -> [N, T]. arXiv:2507.06448"""

from __future__ import annotations

from torch import Tensor

from .terms import LOG_RATIO_MAX, Terms, loss


@loss("blind")
def perception(t: Terms, *, most: float = 10.0) -> tuple[Tensor, dict[str, Tensor]]:
    """Minus an estimate of KL(seeing || blind) at each decision: e^d - d - 1, d = log blind - log seeing, no more than `most`.

    Both sides have a gradient. It is 0 where nothing is hidden. The policy that answered could see, so that the estimate is
    without bias. Breaks the law `on_policy`.
    """
    d = (t.blind - t.new).clamp(-LOG_RATIO_MAX, LOG_RATIO_MAX)
    value = (d.exp() - d - 1).clamp(max=most)
    return -value, {"perception": value}


@loss("blind")
def double_entropy(t: Terms, *, seeing: float = 0.0, blind: float = 0.0) -> tuple[Tensor, dict[str, Tensor]]:
    """seeing (-log pi) + blind (-log pi_blind): what keeps `perception` from growing by making either side say anything at all.

    On the policy's own answers the first has no gradient in the mean, and the second is that of a cross-entropy: the blind side
    is pulled to what the seeing one says. Breaks the laws `on_policy` and `zero_advantage`.
    """
    return -(seeing * t.new + blind * t.blind), {"surprise": -t.new, "blind_surprise": -t.blind}
