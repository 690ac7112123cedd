"""Networks whose weights another network writes: one of them, or many small policies, and environments as those meet them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..core.problem import Control, Step, Vector, flat_size
from ..core.stream import Stream
from .build import critic_for, policy_for
from .control import CategoricalPolicy, ControlCritic, ControlPolicy, GaussianPolicy, Sampler, control_critic
from .moments import Normalizer
from .network import Headed, Network, at_least, linear
from .stateful import Seen, chooses

Shape = tuple[int, ...]
Layers = list[tuple[Tensor, Tensor]]  # weights [K, I, O] and biases [K, O] of K nets, zero beyond a net's own units


def shapes(widths: Shape, layers: int) -> tuple[Shape, ...]:
    """Every list of one to `layers` hidden widths."""
    return tuple(shape for depth in range(1, layers + 1) for shape in product(widths, repeat=depth))


@dataclass(frozen=True)
class Population(Control):
    """A control problem that many nets act in: the last number of an observation says which net the environment has.

    problem  the control problem
    shapes   hidden widths of each net
    sampled  nets at a time, each in as many environments; they are drawn anew after `every` steps, every depth as likely as
             another and every net of it; None: all, in turn, and never anew
    every    see there
    shared   one network writes the weights of all; False: each has weights of its own
    """

    problem: Control
    shapes: tuple[Shape, ...]
    sampled: int | None = None
    every: int = 1
    shared: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.problem, Control):
            raise TypeError(f"small policies act in environments, and {type(self.problem).__name__} is no Control problem")
        if not self.shapes or not all(shape and min(shape) >= 1 for shape in self.shapes):
            raise ValueError(f"every net needs a hidden layer and every layer a unit: {self.shapes}")
        if self.sampled is not None and not 1 <= self.sampled <= len(self.shapes):
            raise ValueError(f"sampled lies in 1..{len(self.shapes)}, the number of nets, not {self.sampled}")

    @property
    def observation_space(self) -> Any:  # type: ignore[override]
        from gymnasium.spaces import Box

        return Box(-math.inf, math.inf, (flat_size(self.problem.observation_space) + 1,))

    @property
    def action_space(self) -> Any:  # type: ignore[override]
        return self.problem.action_space

    def make(self, count: int) -> Assigned:
        if self.sampled is not None and count % self.sampled:
            raise ValueError(f"{count} environments cannot be shared evenly among {self.sampled} nets")
        return self.around(self.problem.make(count))

    def around(self, vector: Vector) -> Assigned:
        """Environments of the problem itself, as the policy meets them."""
        return Assigned(self, vector)

    def evaluate(self, policy: Any, rng: Stream) -> dict[str, float]:
        return self.problem.evaluate(policy, rng)

    def draw(self, count: int, rng: Stream) -> Tensor:
        """Which net each of `count` environments has [count]."""
        if self.sampled is None:
            return torch.arange(count) % len(self.shapes)
        depths = np.array([len(shape) for shape in self.shapes])
        share = 1 / np.bincount(depths)[depths]
        drawn = rng.numpy().choice(len(depths), self.sampled, replace=False, p=share / share.sum())
        return torch.from_numpy(drawn.repeat(count // self.sampled))


class Assigned(Vector):
    """Environments each of which has a net, see `Population`."""

    def __init__(self, problem: Population, inner: Vector):
        self.problem, self.inner = problem, inner
        self.count, self.resumes = inner.count, inner.resumes
        self.seed, self.clock, self.net = 0, 0, torch.zeros(self.count, dtype=torch.long)

    def reset(self, rng: Stream) -> Tensor:
        self.seed, self.clock = (rng / "nets").seed, 0
        self.net = self.problem.draw(self.count, Stream(self.seed, 0))
        return self.with_net(self.inner.reset(rng))

    def with_net(self, obs: Tensor) -> Tensor:
        return torch.cat([obs, self.net[:, None].to(obs)], 1)

    def step(self, action: Tensor) -> Step:
        step = self.inner.step(action)
        next_obs = self.with_net(step.next_obs)
        self.clock += 1
        if self.problem.sampled is not None and self.clock % self.problem.every == 0:
            self.net = self.problem.draw(self.count, Stream(self.seed, self.clock))
        return replace(step, obs=self.with_net(step.obs), next_obs=next_obs)

    def get_state(self) -> dict[str, Tensor]:
        return {**self.inner.get_state(), "net": self.net.clone(), "drawn": torch.tensor([self.seed, self.clock])}

    def set_state(self, state: dict[str, Tensor]) -> None:
        self.inner.set_state({name: x for name, x in state.items() if name not in ("net", "drawn")})
        self.net = state["net"].clone()
        self.seed, self.clock = (int(x) for x in state["drawn"])


class Many(nn.Module):
    """tanh nets of many shapes side by side, padded to one size.

    Layer j of a net stands in place j, its output layer in the last; what a net lacks is left out on its way.
    """

    has: Tensor  # [M, L + 1] which places a net fills
    units: Tensor  # [M, L + 1, 2] inputs and outputs there

    def __init__(self, inputs: int, outputs: int, shapes: tuple[Shape, ...]):
        super().__init__()
        self.inputs, self.outputs, self.shapes = inputs, outputs, shapes
        places = max(map(len, shapes)) + 1
        has, units = torch.zeros(len(shapes), places, dtype=torch.bool), torch.ones(len(shapes), places, 2, dtype=torch.long)
        for m, shape in enumerate(shapes):
            for place, i, o in zip([*range(len(shape)), places - 1], (inputs, *shape), (*shape, outputs), strict=True):
                has[m, place], units[m, place] = True, torch.tensor([i, o])
        self.register_buffer("has", has, persistent=False)
        self.register_buffer("units", units, persistent=False)
        self.tile = int(units.max())

    def tiles(self, which: Tensor) -> tuple[Tensor, Tensor]:
        """Of the nets `which` [K]: weights [K, L + 1, tile, tile] and biases [K, L + 1, tile], whatever their sizes."""
        raise NotImplementedError

    def write(self, which: Tensor) -> Layers:
        """The layers of the nets `which` [K]."""
        weight, bias = self.tiles(which)
        inside = torch.arange(self.tile, device=which.device) < self.units[which][..., None]  # [K, L + 1, 2, tile]
        weight = weight * (inside[:, :, 0, :, None] & inside[:, :, 1, None])
        bias = bias * inside[:, :, 1]
        wide = max(max(shape) for shape in self.shapes)
        first, rest = (slice(0, self.inputs), slice(0, wide)), (slice(0, wide), slice(0, wide))
        ends = [(first if not place else rest) for place in range(self.has.shape[1] - 1)]
        ends.append((slice(0, wide), slice(0, self.outputs)))
        return [(weight[:, place, i, o], bias[:, place, o]) for place, (i, o) in enumerate(ends)]

    def run(self, x: Tensor, net: Tensor, which: Tensor, layers: Layers) -> Tensor:
        """x [B, I], net [B] the row of `which` [K] that acts -> [B, O]. Every net sees every row, its own answer is kept."""
        h = x.expand(len(which), *x.shape)
        for place, (weight, bias) in enumerate(layers):
            after = torch.baddbmm(bias[:, None], h, weight)
            if place == len(layers) - 1:
                return after[net, torch.arange(len(x), device=x.device)]
            h = after.tanh() if not place else torch.where(self.has[which, place, None, None], after.tanh(), h)
        raise AssertionError

    def forward(self, x: Tensor) -> Tensor:
        """x [..., I + 1], the net's number last -> [..., O]"""
        rows = x.reshape(-1, self.inputs + 1)
        which, net = rows[:, -1].long().unique(return_inverse=True)
        return self.run(rows[:, :-1], net, which, self.write(which)).view(*x.shape[:-1], self.outputs)

    def compiled(self, x: Tensor) -> bool:
        """No kernel knows it."""
        return False

    @torch.no_grad()
    def alone(self, index: int) -> Alone:
        """Net `index` as it is now, as a module of its own that has no more than its own weights."""
        shape, which = self.shapes[index], torch.tensor([index], device=self.has.device)
        sizes = list(zip((self.inputs, *shape), (*shape, self.outputs), strict=True))
        written = self.write(which)
        parts: list[nn.Module] = []
        for (i, o), (weight, bias) in zip(sizes, [*written[: len(shape)], written[-1]], strict=True):
            layer = nn.utils.skip_init(nn.Linear, i, o)
            layer.weight.copy_(weight[0, :i, :o].T)
            layer.bias.copy_(bias[0, :o])
            parts += [layer, nn.Tanh()]
        return Alone(*parts[:-1])


class Alone(nn.Sequential):
    """A net by itself."""

    def compiled(self, x: Tensor) -> bool:
        """No kernel knows it."""
        return False


class Hyper(Many):
    """Weights written by a graph hypernetwork: what a layer is, two sweeps of a gated unit along the chain of layers, a decoder
    that writes a tile, and each net cuts out what it needs. Zhang, Ren and Urtasun, 2019; arXiv:2309.16663

    hidden  numbers that stand for a layer
    """

    def __init__(self, inputs: int, outputs: int, shapes: tuple[Shape, ...], *, hidden: int):
        super().__init__(inputs, outputs, shapes)
        self.encode = nn.Linear(4, hidden)
        self.message = nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU())
        self.gate = nn.GRUCell(hidden, hidden)
        self.norm = nn.LayerNorm(hidden)
        self.decode = nn.Sequential(nn.Linear(hidden, 4 * hidden), nn.ReLU(), nn.Linear(4 * hidden, 8 * hidden), nn.ReLU())
        self.weight, self.bias = nn.Linear(8 * hidden, self.tile**2), nn.Linear(8 * hidden, self.tile)

    def tiles(self, which: Tensor) -> tuple[Tensor, Tensor]:
        has, units = self.has[which], self.units[which]
        places = has.shape[1]
        place = torch.arange(places, device=has.device).expand(has.shape)
        last = place == places - 1
        h = list(self.encode(torch.stack([*units.float().log().unbind(-1), place / places, last.float()], -1)).unbind(1))
        for order in (range(places), reversed(range(places))):
            before = None
            for p in order:
                said = torch.zeros_like(h[p]) if before is None else self.message(before)
                h[p] = torch.where(has[:, p, None], self.gate(said, h[p]), h[p])
                before = h[p] if before is None else torch.where(has[:, p, None], h[p], before)
        z = self.decode(self.norm(torch.stack(h, 1)))
        weight = self.weight(z).unflatten(-1, (self.tile, self.tile)) * (2 / units[..., :1, None]).sqrt()
        return weight, (0.2 * self.bias(z)).tanh()


class Written(nn.Module):
    """A tanh layer of its own, which reads the observation, then layers that a hypernetwork writes: [..., O] -> [..., width].

    Ha, Dai and Le, HyperNetworks, 2016, sec. 3.1: a static hypernetwork, which knows of a layer what it is and where, so that all
    layers are made of the same parameters. arXiv:1609.09106
    """

    def __init__(self, inputs: int, *, width: int, depth: int, hidden: int):
        super().__init__()
        self.features, self.first = width, linear(inputs, width)
        self.written = Hyper(width, width, ((width,) * (depth - 1),), hidden=hidden)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x).tanh()
        one = torch.zeros(1, dtype=torch.long, device=h.device)
        rows = h.reshape(-1, self.features)
        return self.written.run(rows, one.expand(len(rows)), one, self.written.write(one)).tanh().view(h.shape)


@dataclass(frozen=True)
class HyperNetwork(Network):
    width: int
    depth: int
    hidden: int

    def __post_init__(self) -> None:
        at_least(1, width=self.width, hidden=self.hidden)
        at_least(2, depth=self.depth)

    def net(self, space: Any, outputs: int, gain: float) -> nn.Module:
        return Headed(Written(flat_size(space), width=self.width, depth=self.depth, hidden=self.hidden), outputs, gain)


def hyper(*, width: int = 64, depth: int = 2, hidden: int = 16) -> Network:
    """tanh layers whose weights one small network writes: see `Written`.

    width   units of a hidden layer
    depth   hidden layers that are written, at least 2; the layer before them and the head have weights of their own
    hidden  numbers that stand for a layer in the network that writes
    """
    return HyperNetwork(width, depth, hidden)


class Apart(Many):
    """Each net has weights of its own: orthogonal with gain sqrt(2), the last layer's 0.01, biases 0."""

    def __init__(self, inputs: int, outputs: int, shapes: tuple[Shape, ...]):
        super().__init__(inputs, outputs, shapes)
        count, places = self.has.shape
        self.weight = nn.Parameter(torch.zeros(count, places, self.tile, self.tile))
        self.bias = nn.Parameter(torch.zeros(count, places, self.tile))
        for m, p in self.has.nonzero().tolist():
            i, o = self.units[m, p].tolist()
            self.weight.data[m, p, :i, :o] = nn.init.orthogonal_(torch.empty(i, o), 0.01 if p == places - 1 else math.sqrt(2))

    def tiles(self, which: Tensor) -> tuple[Tensor, Tensor]:
        return self.weight[which], self.bias[which]


class Populous(ControlPolicy):
    """A policy whose net is `Many`."""

    net: Many

    def meets(self, problem: Control) -> Control:
        """The problem as the nets see it when all are to be judged, in turn."""
        return Population(problem, self.net.shapes)

    def sampler(self, generator: torch.Generator, calls: int = 1) -> Sampler:
        """The weights are written once for as long as the same nets act."""
        held: list[Any] = []

        @torch.no_grad()
        def sample(obs: Tensor) -> tuple[Tensor, Tensor]:
            which, net = obs[:, -1].long().unique(return_inverse=True)
            if not held or not torch.equal(held[0], which):
                held[:] = which, self.net.write(which)
            x = (obs if self.norm is None else self.norm(obs))[:, :-1]
            found = self.head(self.net.run(x, net, which, held[1]))
            action = found.sample(generator)
            return action, found.logp(action)

        return sample

    def moments(self) -> Normalizer | None:
        """Those of observations without the number of a net."""
        if self.norm is None:
            return None
        norm = Normalizer(self.net.inputs)
        for name, x in norm.named_buffers():
            mine = getattr(self.norm, name)
            x.copy_(mine[:-1] if mine.dim() else mine)
        return norm


class PopulousCategorical(Populous, CategoricalPolicy):
    def alone(self, index: int) -> CategoricalPolicy:
        """Net `index` as a policy of its own, for the problem itself."""
        return CategoricalPolicy(self.net.alone(index), self.moments())


class PopulousGaussian(Populous, GaussianPolicy):
    def alone(self, index: int) -> GaussianPolicy:
        """Net `index` as a policy of its own, for the problem itself."""
        policy = GaussianPolicy(self.net.alone(index), self.moments(), self.low, self.high)
        policy.log_std.data.copy_(self.log_std.data)
        return policy


class Unaware(ControlCritic):
    """A critic that does not see which net acts."""

    def value(self, obs: Tensor, action: Tensor, mask: Tensor) -> Tensor:
        return self.net((obs if self.norm is None else self.norm(obs))[..., :-1]).squeeze(-1)


@policy_for.register
def _(problem: Population, rng: Stream, *, hidden: int = 16, normalize: bool = False, **_: Any) -> Populous:
    """hidden: numbers that stand for a layer in the hypernetwork."""
    inputs, space = flat_size(problem.problem.observation_space), problem.action_space
    discrete = chooses(space)
    if not discrete and not (hasattr(space, "low") and len(space.shape) == 1):
        raise TypeError(f"{problem.problem} takes actions in {space}: small policies take Discrete ones or those of a flat Box")
    sizes = inputs, int(space.n) if discrete else space.shape[0], problem.shapes
    with rng.fork():
        net = Hyper(*sizes, hidden=hidden) if problem.shared else Apart(*sizes)
    norm: Any = Seen(inputs, 1) if normalize else None
    if discrete:
        return PopulousCategorical(net, norm)
    low, high = (torch.as_tensor(bound).float() for bound in (space.low, space.high))
    return PopulousGaussian(net, norm, low, high)


@critic_for.register
def _(problem: Population, rng: Stream, policy: Populous, *, width: int = 64, depth: int = 2, **_: Any) -> Unaware:
    return Unaware(control_critic(problem.problem, rng, width=width, depth=depth).net, policy.norm)
