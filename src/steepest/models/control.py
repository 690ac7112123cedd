"""Policies and critics of control problems: small tanh networks, made to cost little."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from ..core import native
from ..core.problem import Control, flat_size
from ..core.stream import Stream
from .distributions import Categorical, Gaussian
from .moments import Normalizer

Sampler = Callable[[Tensor], tuple[Tensor, Tensor]]
Net = tuple[int, tuple[int, ...], int, int, float]  # addresses of theta, of a mean and of a variance, as the kernels take them


def parts(theta: Tensor, sizes: tuple[int, ...]) -> list[tuple[Tensor, Tensor]]:
    """Weights [I, O] and biases [O] of each layer, as views of the vector that holds them all."""
    found, at = [], 0
    for i, o in pairwise(sizes):
        end = at + i * o
        found.append((theta[at:end].reshape(i, o), theta[end : end + o]))
        at = end + o
    return found


def plain(x: Tensor, theta: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """The network in torch, differentiable as often as one likes: x [B, I] -> [B, O]"""
    *hidden, (w, b) = parts(theta, sizes)
    for weight, bias in hidden:
        x = torch.addmm(bias, x, weight).tanh()
    return torch.addmm(b, x, w)


class Fused(torch.autograd.Function):
    """The network and its gradient as one native call each: for the few rows of a minibatch a tenth of the time that autograd's
    dozen nodes take. A gradient that is itself to be differentiated goes through `plain`. x [B, I]"""

    @staticmethod
    def forward(ctx: Any, x: Tensor, theta: Tensor, sizes: tuple[int, ...]) -> Tensor:
        out, net = torch.empty(len(x), sizes[-1]), (theta.data_ptr(), sizes, 0, 0, 0.0)
        kept = torch.empty(len(x) * sum(sizes[1:-1]))
        native.library.forward(net, len(x), x.data_ptr(), kept.data_ptr(), out.data_ptr())
        ctx.save_for_backward(x, theta, kept)
        ctx.sizes = sizes
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, theta, kept = ctx.saved_tensors
        if torch.is_grad_enabled():
            wanted = [t for t, need in zip((x, theta), ctx.needs_input_grad, strict=False) if need]
            again = iter(torch.autograd.grad(plain(x, theta, ctx.sizes), wanted, grad, create_graph=True))
            twice = [next(again) if need else None for need in ctx.needs_input_grad[:2]]
            return twice[0], twice[1], None
        g, found = grad.contiguous(), torch.zeros_like(theta)
        by_x = torch.empty_like(x) if ctx.needs_input_grad[0] else None
        net, to = (theta.data_ptr(), ctx.sizes, 0, 0, 0.0), 0 if by_x is None else by_x.data_ptr()
        native.library.backward(net, len(x), x.data_ptr(), kept.data_ptr(), g.data_ptr(), found.data_ptr(), to)
        return by_x, found if ctx.needs_input_grad[1] else None, None


class Mlp(nn.Module):
    """tanh layers of `width`, `depth` of them, orthogonal with gain sqrt(2); the last is linear with gain `gain`, biases 0.

    All numbers are one parameter `theta` [P] (`parts` are its views), so that an optimizer step costs one tensor, not
    a dozen, and a natural gradient is a vector to begin with.
    """

    def __init__(self, inputs: int, outputs: int, *, width: int, depth: int, gain: float):
        super().__init__()
        if width < 1 or depth < 0:
            raise ValueError(f"width must be at least 1 and depth at least 0, not {width} and {depth}")
        self.sizes = (inputs, *[width] * depth, outputs)
        self.theta = nn.Parameter(torch.zeros(sum(i * o + o for i, o in pairwise(self.sizes))))
        for (w, _), scale in zip(parts(self.theta.data, self.sizes), [math.sqrt(2)] * depth + [gain], strict=True):
            w.copy_(nn.init.orthogonal_(torch.empty(w.shape), scale))

    def forward(self, x: Tensor) -> Tensor:
        """x [..., I] -> [..., O]"""
        rows = x.reshape(-1, self.sizes[0]).contiguous()
        run = Fused.apply if self.compiled(rows) else plain
        return run(rows, self.theta, self.sizes).view(*x.shape[:-1], self.sizes[-1])

    def compiled(self, x: Tensor) -> bool:
        """Whether the kernels take x [..., I] and this very class."""
        return type(self) is Mlp and x.shape[-1] == self.sizes[0] and native.fits(x, self.theta)

    def address(self, norm: Normalizer | None) -> Net:
        """The network behind `norm`, for the kernels, while both stay where they are."""
        moments = (0, 0, 0.0) if norm is None else (norm.mean.data_ptr(), norm.var.data_ptr(), norm.bound)
        return (self.theta.data_ptr(), self.sizes, *moments)

    def kept(self, rows: int, norm: Normalizer | None) -> Tensor:
        """Room for what a gradient needs of a forward pass."""
        return torch.empty(rows * (sum(self.sizes[1:-1]) + (0 if norm is None else self.sizes[0])))


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


class ControlPolicy(nn.Module):
    """A distribution over actions for each observation. obs [..., O], logp [...].

    norm  normalises observations, or None
    """

    markov = True
    log_std: nn.Parameter

    def __init__(self, net: Mlp, norm: Normalizer | None):
        super().__init__()
        self.net, self.norm = net, norm

    @abstractmethod
    def head(self, out: Tensor) -> Any:
        """The distribution that the network's output stands for."""

    @abstractmethod
    def draw(self, shape: tuple[int, ...], *, generator: torch.Generator) -> Tensor:
        """The random numbers that the kernels make actions of."""

    @abstractmethod
    def blank(self, *shape: int) -> Tensor:
        """Room for the actions of so many observations."""

    @abstractmethod
    def bounded(self, action: Tensor) -> Tensor:
        """What the environment receives for an action."""

    def distribution(self, obs: Tensor) -> Any:
        return self.head(self.net(obs if self.norm is None else self.norm(obs)))

    def logp(self, obs: Tensor, action: Tensor, mask: Tensor) -> Tensor:
        return self.distribution(obs).logp(action)

    def logp_entropy(self, obs: Tensor, action: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        found = self.distribution(obs)
        return found.logp(action), found.entropy()

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

    def kl(self, old: Any, obs: Tensor) -> Tensor:
        """KL(old || this policy) in each state [...], where `old` is what `distribution(obs)` once was."""
        return old.kl(self.distribution(obs))

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

    def __init__(self, net: Mlp, norm: Normalizer | None, low: Tensor, high: Tensor):
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


class ControlCritic(nn.Module):
    """V(s) [...] of obs [..., O]."""

    kernel = True

    def __init__(self, net: Mlp, norm: Normalizer | None):
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
    problem: Control, rng: Stream, *, width: int = 64, depth: int = 2, normalize: bool = False
) -> CategoricalPolicy | GaussianPolicy:
    """The policy for a control problem: categorical for Discrete actions, diagonal normal for a Box.

    width      units of a hidden layer
    depth      hidden layers
    normalize  observations are normalised by running moments, which `policy.norm.write` updates
    """
    inputs, space = observed(problem), problem.action_space
    norm = Normalizer(inputs) if normalize else None
    discrete = hasattr(space, "n")
    if not discrete and not (hasattr(space, "low") and len(space.shape) == 1):
        raise TypeError(f"{problem} takes actions in {space}: Discrete and flat Box spaces have a policy; write another or wrap it")
    with rng.fork():
        net = Mlp(inputs, int(space.n) if discrete else space.shape[0], width=width, depth=depth, gain=0.01)
    if discrete:
        return CategoricalPolicy(net, norm)
    return GaussianPolicy(net, norm, torch.as_tensor(space.low).float(), torch.as_tensor(space.high).float())


def control_critic(
    problem: Control, rng: Stream, *, width: int = 64, depth: int = 2, norm: Normalizer | None = None
) -> ControlCritic:
    """A critic for a control problem. norm: the policy's, if it has one, so that both see the same."""
    with rng.fork():
        return ControlCritic(Mlp(observed(problem), 1, width=width, depth=depth, gain=1.0), norm)


def observed(problem: Control) -> int:
    """Numbers in an observation."""
    return flat_size(problem.observation_space)
