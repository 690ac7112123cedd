"""Policies whose next internal state is part of what they decide, and environments as such a policy meets them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..core.problem import Control, Step, Vector, flat_size
from ..core.stream import Stream
from .build import policy_for
from .control import ControlPolicy, GaussianPolicy
from .distributions import Categorical, Gaussian
from .moments import Normalizer
from .perceptron import Mlp, parts


@dataclass(frozen=True)
class Augmented(Control):
    """A control problem with `size` numbers of internal state: observations (s, z), actions (a, z'), nothing else is new.

    Whatever works on a Control problem works on it, so no system needs to know of internal states.

    problem  the control problem
    size     numbers of internal state
    noise    standard deviation of the next internal state before training
    """

    problem: Control
    size: int
    noise: float = 0.1

    def __post_init__(self) -> None:
        if not isinstance(self.problem, Control):
            raise TypeError(f"an internal state is for environments, and {type(self.problem).__name__} is no Control problem")
        if self.size < 0 or not self.noise > 0:
            raise ValueError(f"size must be at least 0 and noise positive, not {self.size} and {self.noise}")

    @property
    def observation_space(self) -> Any:  # type: ignore[override]
        from gymnasium.spaces import Box

        return Box(-math.inf, math.inf, (flat_size(self.problem.observation_space) + self.size,))

    @property
    def action_space(self) -> Any:  # type: ignore[override]
        """A Box; of Discrete actions a pair, whose elements are rows of floats, the number of the action first."""
        from gymnasium.spaces import Box, Tuple

        space = self.problem.action_space
        if chooses(space):
            return Tuple((space, Box(-math.inf, math.inf, (self.size,))))
        if not (hasattr(space, "low") and len(space.shape) == 1):
            raise TypeError(f"{self.problem} takes actions in {space}: with an internal state they are Discrete or a flat Box")
        return longer(space, self.size)

    def make(self, count: int) -> Noted:
        return self.around(self.problem.make(count))

    def around(self, vector: Vector) -> Noted:
        """Environments of the problem itself, as the policy meets them."""
        return Noted(self, vector)

    def evaluate(self, policy: Any, rng: Stream) -> dict[str, float]:
        return self.problem.evaluate(policy, rng)


def chooses(space: Any) -> bool:
    """Whether actions in the space are Discrete: one of several."""
    return hasattr(space, "n") and not space.shape  # MultiBinary has an n and a shape


def longer(space: Any, size: int) -> Any:
    """A flat Box with `size` more numbers, of any size."""
    from gymnasium.spaces import Box

    free = np.full(size, np.inf, np.float32)
    return Box(np.concatenate([space.low, -free]), np.concatenate([space.high, free]), dtype=np.float32)


class Noted(Vector):
    """Environments that hand the internal state, the last `size` numbers of an action, back with the next observation; zeros where
    an episode begins."""

    def __init__(self, problem: Augmented, inner: Vector):
        self.inner, self.size = inner, problem.size
        self.count, self.resumes = inner.count, inner.resumes
        self.discrete = chooses(problem.problem.action_space)
        self.internal = torch.zeros(self.count, self.size)

    def reset(self, rng: Stream) -> Tensor:
        self.internal = torch.zeros(self.count, self.size)
        return torch.cat([self.inner.reset(rng), self.internal], 1)

    def step(self, action: Tensor) -> Step:
        known = action.shape[1] - self.size
        chosen = action[:, known:]
        step = self.inner.step(action[:, 0].long() if self.discrete else action[:, :known].contiguous())
        self.internal = torch.where((step.terminated | step.truncated)[:, None], 0.0, chosen)
        obs, next_obs = torch.cat([step.obs, self.internal], 1), torch.cat([step.next_obs, chosen], 1)
        return replace(step, obs=obs, next_obs=next_obs)

    def get_state(self) -> dict[str, Tensor]:
        return {**self.inner.get_state(), "internal": self.internal.clone()}

    def set_state(self, state: dict[str, Tensor]) -> None:
        self.inner.set_state({name: x for name, x in state.items() if name != "internal"})
        self.internal = state["internal"].clone()


@dataclass(frozen=True)
class Joint:
    """Of one of A choices and, independently, of numbers: a row [..., 1 + D] of floats, the choice first."""

    choice: Categorical
    rest: Gaussian

    def logp(self, action: Tensor) -> Tensor:
        return self.choice.logp(action[..., 0].long()) + self.rest.logp(action[..., 1:])

    def entropy(self) -> Tensor:
        return self.choice.entropy() + self.rest.entropy()

    def kl(self, other: Joint) -> Tensor:
        return self.choice.kl(other.choice) + self.rest.kl(other.rest)

    def mode(self) -> Tensor:
        return torch.cat([self.choice.mode()[..., None].to(self.rest.mean), self.rest.mode()], -1)

    def sample(self, generator: torch.Generator) -> Tensor:
        choice = self.choice.sample(generator)
        return torch.cat([choice[..., None].to(self.rest.mean), self.rest.sample(generator)], -1)

    def detach(self) -> Joint:
        return Joint(self.choice.detach(), self.rest.detach())


class Seen(Normalizer):
    """Normalises the first `seen` numbers; the others, an internal state, pass as they are."""

    def __init__(self, seen: int, size: int):
        super().__init__(seen + size)
        self.seen = seen

    @torch.no_grad()
    def write(self, x: Tensor) -> None:
        super().write(x)
        self.mean[self.seen :] = 0
        self.var[self.seen :] = 1


class StatefulGaussian(GaussianPolicy):
    """pi(a, z' | s, z) where actions are numbers: action [..., A + size], what is kept last."""

    kernel = True  # its numbers are those of its parent

    def __init__(self, net: Mlp, norm: Normalizer | None, problem: Augmented):
        space = problem.action_space
        super().__init__(net, norm, torch.as_tensor(space.low).float(), torch.as_tensor(space.high).float())
        self.size = problem.size
        self.log_std.data[len(self.low) - self.size :] = math.log(problem.noise)

    def meets(self, problem: Control) -> Control:
        """The problem as this policy sees it."""
        return Augmented(problem, self.size)


class StatefulCategorical(ControlPolicy):
    """pi(a, z' | s, z) where actions are choices: action [..., 1 + size] float, the choice first."""

    def __init__(self, net: Mlp, norm: Normalizer | None, problem: Augmented):
        super().__init__(net, norm)
        self.size = problem.size
        self.log_std = nn.Parameter(torch.full((self.size,), math.log(problem.noise)))

    def head(self, out: Tensor) -> Joint:
        scores = out.shape[-1] - self.size
        return Joint(Categorical.of(out[..., :scores]), Gaussian(out[..., scores:], self.log_std.clone()))

    def draw(self, shape: tuple[int, ...], *, generator: torch.Generator) -> Tensor:
        raise NotImplementedError("no kernel knows this policy")

    def blank(self, *shape: int) -> Tensor:
        return torch.empty((*shape, 1 + self.size))

    def bounded(self, action: Tensor) -> Tensor:
        return action

    def meets(self, problem: Control) -> Control:
        """The problem as this policy sees it."""
        return Augmented(problem, self.size)


@policy_for.register
def _(
    problem: Augmented, rng: Stream, *, width: int = 64, depth: int = 2, normalize: bool = False, **_: Any
) -> StatefulGaussian | StatefulCategorical:
    """As `control_policy`, but for the weights that write the next internal state: of unit scale, so that from the first step it
    says something of what was seen."""
    own, size, space = problem.problem, problem.size, problem.action_space
    seen, inner = flat_size(own.observation_space), own.action_space
    discrete = chooses(inner)
    norm = Seen(seen, size) if normalize else None
    with rng.fork():
        outputs = int(inner.n) + size if discrete else space.shape[0]
        net = Mlp(seen + size, outputs, width=width, depth=depth, gain=0.01)
        if size:
            last = parts(net.theta.data, net.sizes)[-1][0]
            last[:, -size:] = nn.init.orthogonal_(torch.empty(len(last), size))
    return (StatefulCategorical if discrete else StatefulGaussian)(net, norm, problem)
