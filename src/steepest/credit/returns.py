"""Returns and advantages over time. Pure: [N, T] in, [N, T] out."""

from __future__ import annotations

import torch
from torch import Tensor


def reward_to_go(reward: Tensor, mask: Tensor, *, discount: float = 1.0, ended: Tensor | None = None) -> Tensor:
    """sum_{k >= t} discount^(k-t) r_k, where the sum stops after a decision with `ended` [N, T] (an episode's last)."""
    keep = discount * torch.ones_like(reward) if ended is None else discount * (1 - ended.to(reward))
    out, later = torch.zeros_like(reward), torch.zeros_like(reward[:, 0])
    for t in reversed(range(reward.shape[1])):
        later = reward[:, t] * mask[:, t] + keep[:, t] * later
        out[:, t] = later
    return out


def beyond_others(reward: Tensor, mask: Tensor, *, discount: float = 1.0) -> Tensor:
    """`reward_to_go` minus its mean over the other trajectories at the same time [N, T]: GPOMDP with a baseline that does not
    depend on the trajectory itself, so that it biases nothing. One that has ended counts as 0 there. N is at least 2."""
    later = reward_to_go(reward, mask, discount=discount)
    return later - (later.sum(0) - later) / (len(later) - 1)


def gae(
    reward: Tensor, value: Tensor, next_value: Tensor, terminated: Tensor, truncated: Tensor, *, discount: float, decay: float
) -> Tensor:
    """Generalised advantage estimates [N, T]; the critic's target is their sum with `value`. arXiv:1506.02438 eq. 16

    d_t = r_t + discount (1 - terminated_t) V(s'_t) - V(s_t), where s'_t is the true successor;
    A_t = d_t + discount decay (1 - terminated_t)(1 - truncated_t) A_{t+1}.

    A truncated step bootstraps from its final observation but the trace stops there. The last column
    counts as the end of what was seen: its trace is empty.
    """
    if not 0 <= discount <= 1 or not 0 <= decay <= 1:
        raise ValueError(f"discount and decay must lie in [0, 1], not {discount} and {decay}")
    alive = 1 - terminated.to(reward)
    delta = reward + discount * alive * next_value - value
    trace = discount * decay * alive * (1 - truncated.to(reward))
    return discounted(delta, trace)


def discounted(x: Tensor, keep: Tensor) -> Tensor:
    """y_t = x_t + keep_t y_{t+1}, [N, T]: what reaches t from the next 1, 2, 4, ... steps, in log T passes over whole rows."""
    x, keep, span = x.clone(), keep.clone(), 1
    while span < x.shape[1]:
        x[:, :-span] += keep[:, :-span] * x[:, span:]
        keep[:, :-span] *= keep[:, span:].clone()
        span *= 2
    return x


def standardize(x: Tensor, mask: Tensor, *, eps: float = 1e-8) -> Tensor:
    """Mean 0 and standard deviation 1 over the decisions that were made; one decision alone becomes 0."""
    count = mask.sum().clamp(min=1)
    away = (x - (x * mask).sum() / count) * mask
    return away / ((away**2).sum() / count).sqrt().add(eps)
