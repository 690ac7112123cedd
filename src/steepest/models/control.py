"""Policies and critics of control problems: a network and the head that fits the actions."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ..core import native
from ..core.problem import Control
from ..core.stream import Stream
from .distributions import Bernoullis, Categorical, Categoricals, Gaussian
from .moments import Normalizer
from .network import Network
from .perceptron import mlp
from .spaces import normalizer

Sampler = Callable[[Tensor], tuple[Tensor, Tensor]]


def slope(p: Tensor) -> int:
    """The address of a parameter's gradient, to add to; zeros where there was none."""
    if p.grad is None:
        p.grad = torch.zeros_like(p)
    return p.grad.data_ptr()


def ahead(draw: Callable[..., Tensor], generator: torch.Generator, calls: int) -> Callable[..., Tensor]:
    """Random numbers of a shape, drawn for `calls` calls at once."""
    rows: Iterator[Tensor] = iter(())

    def numbers(*shape: int) -> Tensor:
        nonlocal rows
        row = next(rows, None)
        if row is None:
            rows = iter(draw((calls, *shape), generator=generator).unbind())
            row = next(rows)
        return row

    return numbers


class Deciding(nn.Module):
    """What follows from a distribution over actions."""

    @abstractmethod
    def distribution(self, obs: Any) -> Any:
        """Over actions, for each observation."""

    def logp(self, obs: Any, action: Tensor, mask: Tensor) -> Tensor:
        return self.distribution(obs).logp(action)

    def logp_entropy(self, obs: Any, action: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        found = self.distribution(obs)
        return found.logp(action), found.entropy()

    def kl(self, old: Any, obs: Any) -> Tensor:
        """KL(old || this policy) in each state [...], where `old` is what `distribution(obs)` once was."""
        return old.kl(self.distribution(obs))


class ControlPolicy(Deciding):
    """A distribution over actions for each observation. obs [..., O], logp [...].

    net   [..., O] -> the numbers that `head` reads
    norm  normalises observations, or None
    """

    markov = True
    log_std: nn.Parameter

    def __init__(self, net: Any, norm: Normalizer | None):
        super().__init__()
        self.net, self.norm = net, norm

    @abstractmethod
    def head(self, out: Tensor) -> Any:
        """The distribution that the network's output stands for."""

    def draw(self, shape: tuple[int, ...], *, generator: torch.Generator) -> Tensor:
        """The random numbers that the kernels make actions of, where they know the policy."""
        raise NotImplementedError

    @abstractmethod
    def blank(self, *shape: int) -> Tensor:
        """Room for the actions of so many observations."""

    @abstractmethod
    def bounded(self, action: Tensor) -> Tensor:
        """What the environment receives for an action."""

    def distribution(self, obs: Tensor) -> Any:
        return self.head(self.net(obs if self.norm is None else self.norm(obs)))

    def compiled(self, obs: Tensor) -> bool:
        """Whether the kernels know this policy, its very class, and take the observations."""
        return bool(native.own(self, "kernel")) and self.net.compiled(obs)

    def spread(self) -> int:
        """The address of log_std; 0 where there is none."""
        return 0

    def known(self, obs: Tensor, action: Tensor) -> native.Known | None:
        """What the kernels need to learn from obs [B, 1, O] and action [B, 1, ...]; None where they cannot."""
        blank = self.blank(*obs.shape[:-1])
        if not self.compiled(obs) or (action.shape, action.dtype) != (blank.shape, blank.dtype):
            return None
        return native.Known(self.net.address(self.norm), self.spread(), self.net.theta, self.log_std if self.spread() else None)

    def judge(self, obs: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Callable[[Tensor, Tensor | None], None]] | None:
        """`logp_entropy` without a graph, and what adds to the parameters' gradients, given those of both [...]. None where there
        is no kernel for it."""
        net, norm, blank = self.net, self.norm, self.blank(*obs.shape[:-1])
        obs, action = obs.contiguous(), action.to(blank.dtype).contiguous()
        if not self.compiled(obs) or action.shape != blank.shape:
            return None
        rows, logp, entropy = obs.numel() // net.sizes[0], torch.empty(obs.shape[:-1]), torch.empty(obs.shape[:-1])
        out, kept = torch.empty(rows * net.sizes[-1]), net.kept(rows, norm)
        held = obs, action, kept, out  # the kernels know addresses alone
        given = (net.address(norm), self.spread(), rows, *(x.data_ptr() for x in held))
        native.library.judge(*given, logp.data_ptr(), entropy.data_ptr())

        def push(by_logp: Tensor, by_entropy: Tensor | None) -> None:
            by_logp = by_logp.contiguous()
            wide = None if by_entropy is None else by_entropy.contiguous()
            native.library.push(
                *given, entropy.data_ptr(), by_logp.data_ptr(), 0 if wide is None else wide.data_ptr(), slope(net.theta),
                self.spread() and slope(self.log_std), held,
            )  # fmt: skip

        return logp, entropy, push

    def sample(self, obs: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """obs [B, O] -> action [B, ...], logp [B]"""
        return self.sampler(generator)(obs)

    def sampler(self, generator: torch.Generator, calls: int = 1) -> Sampler:
        """`sample`, for about `calls` calls in a row with the parameters as they are."""
        numbers = ahead(self.draw, generator, calls)

        def in_torch(obs: Tensor) -> tuple[Tensor, Tensor]:
            with torch.no_grad():
                found = self.distribution(obs)
                action = found.sample(generator)
                return action, found.logp(action)

        def compiled(obs: Tensor) -> tuple[Tensor, Tensor]:
            obs = obs.contiguous()
            if not self.compiled(obs):
                return in_torch(obs)
            noise, action, logp = numbers(len(obs)), self.blank(len(obs)), torch.empty(len(obs))
            native.library.sample(
                self.net.address(self.norm), self.spread(), len(obs), obs.data_ptr(), noise.data_ptr(), action.data_ptr(),
                logp.data_ptr(),
            )  # fmt: skip
            return action, logp

        return compiled

    def actor(self, obs: Tensor, generator: torch.Generator, horizon: int) -> native.Actor | None:
        """What a kernel needs to let the policy act on obs [N, O] and on what follows; None where it cannot."""
        if not self.compiled(obs):
            return None
        noise = self.draw((horizon, len(obs)), generator=generator)
        return native.Actor(self.net.address(self.norm), self.spread(), noise, self.blank(len(obs), horizon))

    @torch.no_grad()
    def act(self, obs: Tensor, generator: torch.Generator, greedy: bool = False) -> Tensor:
        """What the environment receives: the likeliest action if `greedy`, else a sample."""
        obs = obs.to(next(self.parameters()).device)
        found = self.distribution(obs)
        return self.bounded(found.mode() if greedy else found.sample(generator))


class CategoricalPolicy(ControlPolicy):
    """One of A actions: action [...] long."""

    kernel = True

    def head(self, out: Tensor) -> Categorical:
        return Categorical.of(out)

    def draw(self, shape: tuple[int, ...], *, generator: torch.Generator) -> Tensor:
        return torch.rand(shape, generator=generator)

    def blank(self, *shape: int) -> Tensor:
        return torch.empty(shape, dtype=torch.long)

    def bounded(self, action: Tensor) -> Tensor:
        return action


class GaussianPolicy(ControlPolicy):
    """A number in each of A dimensions: action [..., A]. The environment receives it clipped to [low, high]; the log-probability is
    that of the number before the clip."""

    kernel = True
    low: Tensor
    high: Tensor

    def __init__(self, net: Any, norm: Normalizer | None, low: Tensor, high: Tensor):
        super().__init__(net, norm)
        self.log_std = nn.Parameter(torch.zeros(len(low)))
        self.register_buffer("low", low, persistent=False)
        self.register_buffer("high", high, persistent=False)

    def head(self, out: Tensor) -> Gaussian:
        return Gaussian(out, self.log_std.clone())  # a distribution stays what it was when the parameters move on

    def draw(self, shape: tuple[int, ...], *, generator: torch.Generator) -> Tensor:
        return torch.randn((*shape, len(self.low)), generator=generator)

    def blank(self, *shape: int) -> Tensor:
        return torch.empty((*shape, len(self.low)))

    def spread(self) -> int:
        return self.log_std.data_ptr()

    def bounded(self, action: Tensor) -> Tensor:
        return torch.minimum(torch.maximum(action, self.low), self.high)


class MultiDiscretePolicy(ControlPolicy):
    """One of A_k choices for each of K parts: action [..., K] long.

    sizes  A_1 to A_K
    """

    def __init__(self, net: Any, norm: Normalizer | None, sizes: tuple[int, ...]):
        super().__init__(net, norm)
        self.sizes = sizes

    def head(self, out: Tensor) -> Categoricals:
        return Categoricals.of(out, self.sizes)

    def blank(self, *shape: int) -> Tensor:
        return torch.empty((*shape, len(self.sizes)), dtype=torch.long)

    def bounded(self, action: Tensor) -> Tensor:
        return action


class MultiBinaryPolicy(ControlPolicy):
    """Yes or no for each of K parts: action [..., K] long, 0 or 1."""

    def __init__(self, net: Any, norm: Normalizer | None, size: int):
        super().__init__(net, norm)
        self.size = size

    def head(self, out: Tensor) -> Bernoullis:
        return Bernoullis(out)

    def blank(self, *shape: int) -> Tensor:
        return torch.empty((*shape, self.size), dtype=torch.long)

    def bounded(self, action: Tensor) -> Tensor:
        return action


class ControlCritic(nn.Module):
    """V(s) [...] of obs [..., O]."""

    kernel = True

    def __init__(self, net: Any, norm: Normalizer | None):
        super().__init__()
        self.net, self.norm = net, norm

    def value(self, obs: Tensor, action: Tensor, mask: Tensor) -> Tensor:
        return self.net(obs if self.norm is None else self.norm(obs)).squeeze(-1)

    def known(self, obs: Tensor, action: Tensor) -> native.Known | None:
        """See `ControlPolicy.known`."""
        if not (native.own(self, "kernel") and self.net.compiled(obs)):
            return None
        return native.Known(self.net.address(self.norm), 0, self.net.theta, None)

    def judge(self, obs: Tensor, action: Tensor) -> tuple[Tensor, Callable[[Tensor], None]] | None:
        """`value` without a graph, and what adds to the parameters' gradients; see `ControlPolicy.judge`."""
        obs, net, norm = obs.contiguous(), self.net, self.norm
        if not (native.own(self, "kernel") and net.compiled(obs)):
            return None
        rows = obs.numel() // net.sizes[0]
        value, kept, where = torch.empty(obs.shape[:-1]), net.kept(rows, norm), net.address(norm)
        native.library.forward(where, rows, obs.data_ptr(), kept.data_ptr(), value.data_ptr())

        def push(by_value: Tensor) -> None:
            g = by_value.contiguous()
            native.library.backward(where, rows, obs.data_ptr(), kept.data_ptr(), g.data_ptr(), slope(net.theta), 0)

        return value, push


def control_policy(
    problem: Control, rng: Stream, *, model: Network | None = None, width: int = 64, depth: int = 2, normalize: bool = False
) -> ControlPolicy:
    """The policy for a control problem: categorical for Discrete actions, diagonal normal for a Box, categoricals for
    MultiDiscrete, Bernoullis for MultiBinary.

    model      the network; None: `mlp` of that width and depth
    width      units of a hidden layer
    depth      hidden layers
    normalize  observations are normalised by running moments, which `policy.norm.write` updates
    """
    seen, space = problem.observation_space, problem.action_space
    norm, network = normalizer(seen, normalize), mlp(width=width, depth=depth) if model is None else model
    binary = hasattr(space, "n") and space.shape
    known = hasattr(space, "n") or hasattr(space, "nvec") or hasattr(space, "low")
    if not known or len(space.shape) > 1:
        raise TypeError(
            f"{problem} takes actions in {space}: Discrete, MultiDiscrete, MultiBinary and Box spaces of one axis at most have a "
            "policy; write another or wrap it"
        )

    def net(outputs: int) -> nn.Module:
        with rng.fork():
            return network.net(seen, int(outputs), gain=0.01)

    if hasattr(space, "nvec"):
        return MultiDiscretePolicy(net(space.nvec.sum()), norm, tuple(map(int, space.nvec)))
    if binary:
        return MultiBinaryPolicy(net(space.n), norm, int(space.n))
    if hasattr(space, "n"):
        return CategoricalPolicy(net(space.n), norm)
    low, high = (torch.as_tensor(bound).float() for bound in (space.low, space.high))
    return GaussianPolicy(net(len(low)), norm, low, high)


def control_critic(
    problem: Control, rng: Stream, *, model: Network | None = None, width: int = 64, depth: int = 2, norm: Normalizer | None = None
) -> ControlCritic:
    """A critic for a control problem. norm: the policy's, if it has one, so that both see the same."""
    network = mlp(width=width, depth=depth) if model is None else model
    with rng.fork():
        return ControlCritic(network.net(problem.observation_space, 1, gain=1.0), norm)
