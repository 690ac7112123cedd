"""From a problem to the State of an actor: policy, critic, reference and their optimizer."""

from __future__ import annotations

import copy
from functools import singledispatch
from typing import Any

import torch
from torch import nn

from ..core.problem import Control, Language
from ..core.state import State
from ..core.stream import Stream


@singledispatch
def policy_for(problem: Any, rng: Stream, **options: Any) -> nn.Module:
    """The policy that fits the problem's observations and actions. `options` are the model's own."""
    raise TypeError(
        f"no policy is known for {type(problem).__name__}: it is neither a Language nor a Control problem; give `init` yourself"
    )


@policy_for.register
def _(problem: Language, rng: Stream, **options: Any) -> nn.Module:
    from .language import language_policy  # imports transformers, which control users need not wait for

    return language_policy(problem, rng, **options)


@policy_for.register
def _(problem: Control, rng: Stream, **options: Any) -> nn.Module:
    from .control import control_policy

    return control_policy(problem, rng, **options)


@singledispatch
def critic_for(problem: Any, rng: Stream, policy: nn.Module) -> nn.Module:
    """A critic for the problem: ``value(obs, action, mask) -> [N, T]``."""
    raise TypeError(
        f"no critic is known for {type(problem).__name__}: it is neither a Language nor a Control problem; give `init` yourself"
    )


@critic_for.register
def _(problem: Language, rng: Stream, policy: nn.Module) -> nn.Module:
    from .language import TokenValue

    return TokenValue(policy, rng)


@critic_for.register
def _(problem: Control, rng: Stream, policy: nn.Module) -> nn.Module:
    from .control import control_critic

    return control_critic(problem, rng)


def actor_state(problem: Any, rng: Stream, *, lr: float, critic: bool = False, reference: bool = False, **model: Any) -> State:
    """State with `policy`, if asked a `critic` and a frozen `reference`, and one Adam over policy and critic.

    lr     learning rate
    model  options of the model (see `policy_for`)
    """
    if not lr > 0:
        raise ValueError(f"lr must be positive, not {lr}")
    policy = policy_for(problem, rng / "policy", **model)
    parts: dict[str, nn.Module] = {"policy": policy}
    if critic:
        parts["critic"] = critic_for(problem, rng / "critic", policy)
    if reference:
        parts["reference"] = copy.deepcopy(policy).requires_grad_(False).eval()
    state = State(**parts)
    trained = [p for name in ("policy", "critic") if name in parts for p in parts[name].parameters() if p.requires_grad]
    state.optimizers["policy"] = torch.optim.Adam(trained, lr, eps=1e-5, fused=True)
    return state
