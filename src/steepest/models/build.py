"""From a problem to the State of an actor: policy, critic, reference and their optimizer."""

from __future__ import annotations

from functools import singledispatch
from typing import Any

import torch
from torch import nn

from ..core.live import Live
from ..core.near import nearest
from ..core.pairs import Preferences
from ..core.problem import Control, Language
from ..core.recurrent import Remembered
from ..core.state import State
from ..core.stream import Stream
from .adapters import frozen
from .network import Network
from .weights import Weights


@singledispatch
def policy_for(problem: Any, rng: Stream, **options: Any) -> nn.Module:
    """The policy that fits the problem's observations and actions.

    model, temperature              of a Language problem's, see `language_policy`
    model, width, depth, normalize  of a Control problem's, see `control_policy`
    """
    raise TypeError(
        f"no policy is known for {type(problem).__name__}: it is neither a Language nor a Control problem; give `init` yourself"
    )


@policy_for.register
def _(problem: Language, rng: Stream, *, model: str | Weights | None = None, temperature: float = 1.0, **_: Any) -> nn.Module:
    from .language import language_policy  # imports transformers, which control users need not wait for

    return language_policy(problem, rng, model=model, temperature=temperature)


@policy_for.register
def _(
    problem: Control, rng: Stream, *, model: Any = None, width: int = 64, depth: int = 2, normalize: bool = False, **_: Any
) -> nn.Module:
    from .control import control_policy
    from .recurrent import remembering

    return remembering(control_policy(problem, rng, model=network(model), width=width, depth=depth, normalize=normalize))


@policy_for.register
def _(problem: Preferences, rng: Stream, **_: Any) -> nn.Module:
    from .tabular import TabularSoftmax

    return TabularSoftmax(problem.log_reference)


@singledispatch
def critic_for(problem: Any, rng: Stream, policy: Any, **options: Any) -> nn.Module:
    """A critic for the problem: ``value(obs, action, mask) -> [N, T]``. `options` are those of `policy_for`."""
    raise TypeError(
        f"no critic is known for {type(problem).__name__}: it is neither a Language nor a Control problem; give `init` yourself"
    )


@critic_for.register
def _(problem: Language, rng: Stream, policy: Any, **_: Any) -> nn.Module:
    from .language import TokenValue

    return TokenValue(policy, rng)


@critic_for.register
def _(problem: Control, rng: Stream, policy: Any, *, model: Any = None, width: int = 64, depth: int = 2, **_: Any) -> nn.Module:
    from .control import control_critic
    from .recurrent import remembering

    norm = getattr(policy, "norm", None)
    return remembering(control_critic(problem, rng, model=network(model), width=width, depth=depth, norm=norm))


def network(model: Any) -> Network | None:
    """The model of a Control problem; raises TypeError where it is a text's."""
    if model is None or isinstance(model, Network):
        return model
    from . import networks

    known = [name for name in networks.__all__ if name != "Network"]
    raise TypeError(
        f"model={model!r} is no network{nearest(str(model), known)}: environments take one of {', '.join(known)}, e.g. mlp(); "
        "folders and ids of weights are for texts"
    )


def as_it_began(state: State, problem: Any, rng: Stream) -> nn.Module:
    """A frozen copy of the policy, for `core.system.holding`: a `reference` of systems whose parent keeps none."""
    return frozen(state.policy)


@singledispatch
def experience_for(problem: Any, rng: Stream, envs: int) -> dict[str, nn.Module]:
    """What a collector of `collectors.experience` keeps in State from one step to the next, by name."""
    return {}


@experience_for.register
def _(problem: Control, rng: Stream, envs: int) -> dict[str, nn.Module]:
    return {"live": Live(problem, envs, rng)}


def actor_state(
    problem: Any, rng: Stream, *, lr: float, critic: bool = False, reference: bool = False, envs: int = 8, **model: Any
) -> State:
    """State with `policy`, if asked a `critic` and a frozen `reference`, where they remember their `memory`, and one Adam over
    policy and critic.

    lr     learning rate
    envs   environments side by side, on a Control problem (`live`)
    model  options of the model (see `policy_for`); those that the problem's model does not have are ignored
    """
    if not lr > 0:
        raise ValueError(f"lr must be positive, not {lr}")
    policy = policy_for(problem, rng / "policy", **model)
    parts: dict[str, Any] = {"policy": policy}
    if critic:
        parts["critic"] = critic_for(problem, rng / "critic", policy, **model)
    remembers = {name: part.fresh(envs) for name, part in parts.items() if hasattr(part, "fresh")}
    if reference and remembers:
        raise ValueError("a frozen reference has no memory of the episodes that go on: a network that remembers takes kl = 0")
    if reference:
        parts["reference"] = frozen(policy)
    if remembers:
        parts["memory"] = Remembered(envs, remembers)
    state = State(**parts, **experience_for(problem, rng / "live", envs))
    trained = [p for name in ("policy", "critic") if name in parts for p in parts[name].parameters() if p.requires_grad]
    state.optimizers["policy"] = torch.optim.Adam(trained, lr, eps=1e-5, fused=True)
    return state


def answer_state(problem: Any, rng: Stream, **options: Any) -> State:
    """`actor_state` for methods that compare whole answers to prompts; raises TypeError where there are none."""
    if not isinstance(problem, Language):
        raise TypeError(
            f"this method compares whole answers to prompts, and {type(problem).__name__} is no Language problem: "
            "for environments use ppo, trpo or vpg"
        )
    return actor_state(problem, rng, **options)
