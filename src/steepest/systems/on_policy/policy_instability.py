"""Non-Lipschitz directions: PPO that measures along which inputs its decisions flip, and whether other states agree on them.

Paper.  Korkmaz, Understanding and Diagnosing Deep Reinforcement Learning, 2024. arXiv 2406.16979.
Claim.  Where the observations are shifted, as no attacker chose, the directions agree less with those before than the
        directions of other states of the same policy do.
Idea.   v_s = grad_s CE(softmax(pi(.|s)), argmax); L(S) = mean of v v'; G_S its first eigenvector; quotient(S', S) =
        G_S'' L(S) G_S' / G_S' L(S) G_S, in [0, 1]
State.  PPO's; seen: G of the last measurement [O]
Note.   The paper takes the logits of a Q-network; here they are the policy's, whose largest is the likeliest decision too. Each v
        has length 1, so that states near a border of decisions do not outvote the rest; their lengths are reported by variance.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from ...core.batch import Batch
from ...core.state import State
from ...core.stream import Stream
from ...core.system import System, extends, holding
from ...optimize.epochs import Epochs, Objective, Update
from .ppo import ppo

# policy, states [B, O] and their sensitivities -> the sensitivities of S and of S' [B', O]
Against = Callable[[Any, Tensor, Tensor, Stream], tuple[Tensor, Tensor]]


class Seen(nn.Module):
    """The principal direction of the last measurement [O]; 0 until the first."""

    direction: Tensor

    def __init__(self, inputs: int):
        super().__init__()
        self.register_buffer("direction", torch.zeros(inputs))


def sensitivities(policy: Any, obs: Tensor) -> Tensor:
    """grad_s of -log pi(a|s) at the likeliest a, for states [B, O] -> [B, O]: the way in which the decision is lost."""
    leaf = obs.detach().clone().requires_grad_()
    with torch.enable_grad():
        found = policy.distribution(leaf)
        loss = -found.logp(found.mode().detach()).sum()
    return torch.autograd.grad(loss, leaf)[0]  # <- the idea


def spread(v: Tensor) -> Tensor:
    """L [O, O]: the mean of v v' over the states whose v [B, O] is not 0, each brought to length 1."""
    if len(v) < 2:
        raise ValueError(f"directions of at least 2 states are compared, not of {len(v)}")
    size = v.double().norm(dim=1, keepdim=True)
    if not (size > 0).any():
        raise ValueError("no input changes the policy's logits in any of these states: its gradients are all 0")
    unit = torch.where(size > 0, v.double() / size.clamp(min=1e-300), 0.0)
    return unit.T @ unit / (size > 0).sum()


def principal(found: Tensor) -> Tensor:
    """G: the eigenvector of the largest eigenvalue of L [O, O]; its largest entry is positive."""
    g = torch.linalg.eigh(found).eigenvectors[:, -1]
    return g * g[g.abs().argmax()].sign()


def quotient(direction: Tensor, found: Tensor) -> float:
    """How much of what L does along its own principal direction it does along `direction` [O]: 1 where they are one."""
    return float(direction @ found @ direction / torch.linalg.eigvalsh(found)[-1])


def halves(policy: Any, obs: Tensor, v: Tensor, rng: Stream) -> tuple[Tensor, Tensor]:
    """Two random halves of the states."""
    order = torch.randperm(len(v), generator=rng.torch())
    return v[order[: len(v) // 2]], v[order[len(v) // 2 :]]


def attacked(policy: Any, obs: Tensor, v: Tensor, rng: Stream, *, size: float = 0.1) -> tuple[Tensor, Tensor]:
    """The states, and the same moved by `size` in every input, in the sign that costs the decision most (FGSM,
    arXiv:1412.6572)."""
    return v, sensitivities(policy, obs + size * v.sign())


def shifted(policy: Any, obs: Tensor, v: Tensor, rng: Stream, *, size: float = 0.5) -> tuple[Tensor, Tensor]:
    """The states, and the same with `size` added to every input: sensors that are off, which no attacker has chosen."""
    return v, sensitivities(policy, obs + size)


@extends(ppo, without=("wrap",))
def policy_instability(*, every: int = 5, against: Against = halves, **options: Any) -> System:
    """PPO on environments, which reports `quotient` (between states), `drift` (between two measurements) and `length_variance`.

    every    training steps between two measurements
    against  what is compared: (policy, states, their sensitivities, rng) -> those of S, S'; halves, attacked or shifted
    """
    if every < 1:
        raise ValueError(f"every must be at least 1, not {every}")

    def measured(epochs: Epochs) -> Update:
        def update(state: State, objective: Objective, batch: Batch, rng: Stream) -> dict[str, Any]:
            told = epochs(state, objective, batch, rng)
            if state.step % every:
                return told
            obs, last = batch.obs.reshape(-1, batch.obs.shape[-1]), cast(Seen, state.seen).direction
            found = sensitivities(state.policy, obs)
            sizes = found.norm(dim=1)
            if not sizes.any():
                return told  # a policy that is certain everywhere has no direction
            of, other = map(spread, against(state.policy, obs, found, rng / "against"))
            told |= {"quotient": quotient(principal(other), of), "length_variance": float(sizes.var())}
            if last.any():
                told["drift"] = quotient(last.double(), of)
            last.copy_(principal(of))
            return told

        return update

    return holding(ppo(**options, wrap=measured), seen=lambda state, problem, rng: Seen(problem.observation_space.shape[0]))
