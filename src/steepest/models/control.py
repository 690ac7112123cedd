"""Policies and critics of control problems: small tanh networks, made to cost little."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..core.problem import Control
from ..core.stream import Stream
from .distributions import HALF_LOG_TAU, Categorical, Gaussian
from .moments import Normalizer

Array = NDArray[Any]
# gradients by logp [B, 1] and by entropy ([B, 1] or None) -> those by the network's output [B, A] and by log_std
Slope = Callable[[Array, Array | None], tuple[Array, Tensor | None]]
Sampler = Callable[[Tensor], tuple[Tensor, Tensor]]


def parts(theta: Any, sizes: tuple[int, ...]) -> list[tuple[Any, Any]]:
    """Weights [I, O] and biases [O] of each layer, as views of the vector (a tensor or an array) that holds them all."""
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


def in_numpy(x: Array, layers: list[tuple[Array, Array]]) -> list[Array]:
    """The input of every layer, and the output of the last."""
    found = [x]
    for w, b in layers[:-1]:
        x = x @ w
        x += b
        np.tanh(x, out=x)
        found.append(x)
    w, b = layers[-1]
    return [*found, x @ w + b]


def slopes(g: Array, inputs: list[Array], theta: Tensor, sizes: tuple[int, ...]) -> tuple[Array, Tensor]:
    """From the gradient of the output [B, O]: that of the first layer's sum [B, H], and that of `theta` [P].

    inputs  of every layer, the first being the network's
    """
    found = torch.empty_like(theta)
    layers = zip(inputs, parts(theta.detach().numpy(), sizes), parts(found.numpy(), sizes), strict=True)
    ones = np.ones(len(g), np.float32)  # a product with it sums rows in half the time that `sum` takes
    for i, (h, (w, _), (gw, gb)) in reversed(list(enumerate(layers))):
        np.matmul(h.T, g, out=gw)
        np.matmul(ones, g, out=gb)
        if i:
            g = g @ w.T
            h = h * h
            np.subtract(1, h, out=h)
            g *= h
    return g, found


class Fused(torch.autograd.Function):
    """The network and its gradient by hand and in numpy: for the few rows of a minibatch a third of the time that autograd's
    dozen nodes take. A gradient that is itself to be differentiated goes through `plain`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, theta: Tensor, sizes: tuple[int, ...]) -> Tensor:
        ctx.save_for_backward(x, theta)
        ctx.sizes = sizes
        *ctx.inputs, out = in_numpy(x.numpy().reshape(-1, sizes[0]), parts(theta.detach().numpy(), sizes))
        return torch.from_numpy(out).view(*x.shape[:-1], sizes[-1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, theta = ctx.saved_tensors
        if torch.is_grad_enabled():
            wanted = [t for t, need in zip((x, theta), ctx.needs_input_grad, strict=False) if need]
            out = plain(x.reshape(-1, ctx.sizes[0]), theta, ctx.sizes).view_as(grad)
            again = iter(torch.autograd.grad(out, wanted, grad, create_graph=True))
            twice = [next(again) if need else None for need in ctx.needs_input_grad[:2]]
            return twice[0], twice[1], None
        g, found = slopes(grad.numpy().reshape(-1, ctx.sizes[-1]), ctx.inputs, theta, ctx.sizes)
        if not ctx.needs_input_grad[0]:
            return None, found, None
        first = parts(theta.detach().numpy(), ctx.sizes)[0][0]
        return torch.from_numpy(g @ first.T).view_as(x), found, None


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
        if x.device.type == "cpu":
            return Fused.apply(x, self.theta, self.sizes)
        return plain(x.reshape(-1, self.sizes[0]), self.theta, self.sizes).view(*x.shape[:-1], self.sizes[-1])

    def judge(self, x: Array) -> tuple[Array, Callable[[Array], None]]:
        """[B, I] -> [B, O], and what adds to the gradient of `theta`, given that of the output [B, O]: no graph, no autograd."""
        *inputs, out = in_numpy(x, parts(self.theta.detach().numpy(), self.sizes))
        return out, lambda g: add_gradient(self.theta, slopes(g, inputs, self.theta, self.sizes)[1])

    def numpy(self) -> Callable[[Array], Array]:
        """[B, I] -> [B, O] on the memory of the parameters, valid until that is replaced."""
        layers = parts(self.theta.detach().numpy(), self.sizes)
        return lambda x: in_numpy(x, layers)[-1]


def add_gradient(p: Tensor, g: Tensor) -> None:
    p.grad = g if p.grad is None else p.grad.add_(g)


def rows(obs: Tensor, norm: Normalizer | None) -> Array:
    """obs [..., O] -> [B, O], normalised."""
    x = obs.numpy().reshape(-1, obs.shape[-1])
    return x if norm is None else norm.numpy()(x)


def ahead(draw: Callable[..., Tensor], generator: torch.Generator, calls: int) -> Callable[..., Array]:
    """Random numbers of a shape, drawn for `calls` calls at once: a torch operation amid numpy's costs as much as ten of them."""
    rows: Iterator[Array] = iter(())

    def numbers(*shape: int) -> Array:
        nonlocal rows
        row = next(rows, None)
        if row is None:
            rows = iter(draw((calls, *shape), generator=generator).numpy())
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
    def numpy_head(self, out: Array, action: Array) -> tuple[Array, Array, Slope]:
        """The network's output [B, A] and actions [B, ...] -> log-probability [B], entropy [B], and their `Slope`."""

    @abstractmethod
    def numpy_sampler(self, generator: torch.Generator, calls: int) -> Callable[[Array], tuple[Array, Array]]:
        """obs [B, O] -> action [B, ...], logp [B] without a torch operation but one draw for many calls."""

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

    def judge(self, obs: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Callable[[Tensor, Tensor | None], None]] | None:
        """`logp_entropy` without a graph, and what adds to the parameters' gradients, given those of both [...]. None where it
        cannot be done by hand: on another device than the CPU."""
        if obs.device.type != "cpu":
            return None
        out, pull = self.net.judge(rows(obs, self.norm))
        logp, entropy, slope = self.numpy_head(out, action.numpy())

        def push(by_logp: Tensor, by_entropy: Tensor | None) -> None:
            g, by_std = slope(by_logp.numpy().reshape(-1, 1), None if by_entropy is None else by_entropy.numpy().reshape(-1, 1))
            pull(g)
            if by_std is not None:
                add_gradient(self.log_std, by_std)

        shape = obs.shape[:-1]
        return torch.from_numpy(logp.reshape(shape)), torch.from_numpy(entropy.reshape(shape)), push

    def kl(self, old: Any, obs: Tensor) -> Tensor:
        """KL(old || this policy) in each state [...], where `old` is what `distribution(obs)` once was."""
        return old.kl(self.distribution(obs))

    def sample(self, obs: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """obs [B, O] -> action [B, ...], logp [B]"""
        return self.sampler(generator)(obs)

    def sampler(self, generator: torch.Generator, calls: int = 1) -> Sampler:
        """`sample`, for about `calls` calls in a row with the parameters as they are: on a CPU in numpy, elsewhere in torch."""
        if next(self.parameters()).device.type == "cpu":
            fast = self.numpy_sampler(generator, calls)

            def in_numpy(obs: Tensor) -> tuple[Tensor, Tensor]:
                action, logp = fast(obs.numpy())
                return torch.from_numpy(action), torch.from_numpy(logp)

            return in_numpy

        def in_torch(obs: Tensor) -> tuple[Tensor, Tensor]:
            with torch.no_grad():
                found = self.distribution(obs)
                action = found.sample(generator)
                return action, found.logp(action)

        return in_torch

    def numpy_net(self) -> Callable[[Array], Array]:
        net = self.net.numpy()
        if self.norm is None:
            return net
        norm = self.norm.numpy()
        return lambda x: net(norm(x))

    @torch.no_grad()
    def act(self, obs: Tensor, generator: torch.Generator, greedy: bool = False) -> Tensor:
        """What the environment receives: the likeliest action if `greedy`, else a sample."""
        obs = obs.to(next(self.parameters()).device)
        found = self.distribution(obs)
        return self.bounded(found.mode() if greedy else found.sample(generator))


class CategoricalPolicy(ControlPolicy):
    """One of A actions: action [...] long."""

    def head(self, out: Tensor) -> Categorical:
        return Categorical.of(out)

    def numpy_head(self, out: Array, action: Array) -> tuple[Array, Array, Slope]:
        out -= out.max(1, keepdims=True)
        p = np.exp(out)
        total = p.sum(1, keepdims=True)
        p /= total
        out -= np.log(total)
        chosen = action.reshape(-1) + np.arange(0, out.size, out.shape[1])
        entropy = -(p * out).sum(1)

        def slope(logp: Array, wide: Array | None) -> tuple[Array, None]:
            g = p * -logp
            if wide is not None:
                g -= (out + entropy[:, None]) * (p * wide)
            g.reshape(-1)[chosen] += logp[:, 0]
            return g, None

        return out.take(chosen), entropy, slope

    def bounded(self, action: Tensor) -> Tensor:
        return action

    def numpy_sampler(self, generator: torch.Generator, calls: int) -> Callable[[Array], tuple[Array, Array]]:
        net, uniform = self.numpy_net(), ahead(torch.rand, generator, calls)

        def sample(obs: Array) -> tuple[Array, Array]:
            score = net(obs)
            score -= np.logaddexp.reduce(score, 1, keepdims=True)
            passed = np.add.accumulate(np.exp(score), 1)
            passed[:, -1] = 2  # whatever rounding did, the last action is the end
            action = (passed > uniform(len(obs), 1)).argmax(1)
            return action, score.take(action + np.arange(0, score.size, score.shape[1]))

        return sample


class GaussianPolicy(ControlPolicy):
    """A number in each of A dimensions: action [..., A]. The environment receives it clipped to [low, high]; the log-probability is
    that of the number before the clip."""

    low: Tensor
    high: Tensor

    def __init__(self, net: Mlp, norm: Normalizer | None, low: Tensor, high: Tensor):
        super().__init__(net, norm)
        self.log_std = nn.Parameter(torch.zeros(len(low)))
        self.register_buffer("low", low, persistent=False)
        self.register_buffer("high", high, persistent=False)

    def head(self, out: Tensor) -> Gaussian:
        return Gaussian(out, self.log_std.clone())  # a distribution stays what it was when the parameters move on

    def numpy_head(self, out: Array, action: Array) -> tuple[Array, Array, Slope]:
        log_std = self.log_std.detach().numpy()
        scale = np.exp(-log_std)
        z = action.reshape(out.shape) - out
        z *= scale
        constant = log_std.sum() + np.float32(HALF_LOG_TAU * len(log_std))

        def slope(logp: Array, wide: Array | None) -> tuple[Array, Tensor]:
            by_std = logp[:, 0] @ (z * z - 1)
            return z * (logp * scale), torch.from_numpy(by_std if wide is None else by_std + wide.sum())

        return -0.5 * (z * z).sum(1) - constant, np.full(len(z), constant + np.float32(0.5 * len(log_std))), slope

    def bounded(self, action: Tensor) -> Tensor:
        return torch.minimum(torch.maximum(action, self.low), self.high)

    def numpy_sampler(self, generator: torch.Generator, calls: int) -> Callable[[Array], tuple[Array, Array]]:
        net, normal = self.numpy_net(), ahead(torch.randn, generator, calls)
        log_std = self.log_std.detach()
        std, constant = log_std.exp().numpy(), float(log_std.sum()) + HALF_LOG_TAU * len(log_std)

        def sample(obs: Array) -> tuple[Array, Array]:
            mean = net(obs)
            noise = normal(*mean.shape)
            return mean + std * noise, -0.5 * (noise * noise).sum(1) - np.float32(constant)

        return sample


class ControlCritic(nn.Module):
    """V(s) [...] of obs [..., O]."""

    def __init__(self, net: Mlp, norm: Normalizer | None):
        super().__init__()
        self.net, self.norm = net, norm

    def value(self, obs: Tensor, action: Tensor, mask: Tensor) -> Tensor:
        return self.net(obs if self.norm is None else self.norm(obs)).squeeze(-1)

    def judge(self, obs: Tensor, action: Tensor) -> tuple[Tensor, Callable[[Tensor], None]] | None:
        """`value` without a graph, and what adds to the parameters' gradients; see `ControlPolicy.judge`."""
        if obs.device.type != "cpu":
            return None
        out, pull = self.net.judge(rows(obs, self.norm))
        return torch.from_numpy(out.reshape(obs.shape[:-1])), lambda g: pull(g.numpy().reshape(-1, 1))


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
    space = problem.observation_space
    if not hasattr(space, "low") or len(space.shape) != 1:
        raise TypeError(f"{problem} shows observations in {space}: a flat Box has a policy; write another policy or flatten them")
    return int(space.shape[0])
