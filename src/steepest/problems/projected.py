"""Meta-tasks: another problem, seen and acted on through a projection that changes with every context."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..core.problem import Control, Step, Vector, flat_size
from ..core.stream import Stream
from .control import CartPole, greedy


@dataclass(frozen=True)
class Projected(Control):
    """A context is some episodes of a problem under one linear projection of its observations and of its actions, drawn anew for
    each: who earns in it has learned in it. Lu et al., arXiv:2303.03982, section 5.

    obs [seen + A + 3]: the projected observation, the last action (one-hot where there are choices), the last reward, whether an
    episode begins, and 1. The entries of a projection are normal with variance 1 over its inputs; of Discrete actions it is a
    permutation. A context ends with its last episode, and that alone ends an episode here.

    problem   whose episodes they are
    seen      numbers of a projected observation
    episodes  of a context
    contexts  greedy contexts of an evaluation
    """

    problem: Control = field(default_factory=CartPole)
    seen: int = 8
    episodes: int = 4
    contexts: int = 20

    def __post_init__(self) -> None:
        for name in ("seen", "episodes", "contexts"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        space = self.problem.action_space
        if not (hasattr(space, "n") and not space.shape) and not (hasattr(space, "low") and len(space.shape) == 1):
            raise TypeError(f"{self.problem} takes actions in {space}: Discrete ones and flat Boxes can be projected")

    @property
    def acts(self) -> int:
        """Numbers of an action, as it is seen afterwards."""
        space = self.problem.action_space
        return int(space.n) if hasattr(space, "n") else int(space.shape[0])

    @property
    def observation_space(self) -> Any:  # type: ignore[override]
        from gymnasium.spaces import Box

        return Box(-math.inf, math.inf, (self.seen + self.acts + 3,))

    @property
    def action_space(self) -> Any:  # type: ignore[override]
        return self.problem.action_space

    def make(self, count: int) -> Contexts:
        return Contexts(self, count)

    def evaluate(self, policy: Any, rng: Stream) -> dict[str, float]:
        """`return` of greedy contexts, mean; `return_std` between them; `length`."""
        return greedy(self, policy, self.contexts, rng)


class Contexts(Vector):
    """`count` contexts. Their projections come from the address (seed, context, which of its row)."""

    def __init__(self, problem: Projected, count: int):
        self.problem, self.count, self.inner = problem, count, problem.problem.make(count)
        self.resumes = self.inner.resumes
        self.seed, self.context = 0, torch.zeros(count, dtype=torch.long)
        self.episode = torch.zeros(count, dtype=torch.long)
        self.eye = torch.zeros(count, flat_size(problem.problem.observation_space), problem.seen)
        self.hand = torch.zeros(count, problem.acts, problem.acts)

    def draw(self, index: int) -> None:
        """A new projection."""
        rng = Stream(self.seed, index, int(self.context[index])).numpy()
        inputs, acts = self.eye.shape[1], self.problem.acts
        self.eye[index] = torch.from_numpy(rng.standard_normal((inputs, self.problem.seen)) / math.sqrt(inputs))
        if hasattr(self.problem.action_space, "n"):
            self.hand[index] = torch.from_numpy(np.eye(acts)[rng.permutation(acts)])
        else:
            self.hand[index] = torch.from_numpy(rng.standard_normal((acts, acts)) / math.sqrt(acts))
        self.context[index] += 1
        self.episode[index] = 0

    def reset(self, rng: Stream) -> Tensor:
        self.seed = (rng / "projections").seed
        self.context.zero_()
        for index in range(self.count):
            self.draw(index)
        obs, acts = self.inner.reset(rng), self.problem.acts
        return self.show(obs, torch.zeros(self.count, acts), torch.zeros(self.count), torch.ones(self.count))

    def show(self, obs: Tensor, action: Tensor, reward: Tensor, first: Tensor) -> Tensor:
        seen = (obs.float()[:, None] @ self.eye)[:, 0]
        return torch.cat([seen, action, reward[:, None], first[:, None], torch.ones(self.count, 1)], 1)

    def step(self, action: Tensor) -> Step:
        discrete = hasattr(self.problem.action_space, "n")
        told = torch.nn.functional.one_hot(action, self.problem.acts).float() if discrete else action.float()
        meant = (told[:, None] @ self.hand)[:, 0]
        step = self.inner.step(meant.argmax(1) if discrete else meant)
        over = step.terminated | step.truncated
        self.episode += over
        last = self.episode >= self.problem.episodes
        # inside a context the next episode follows its predecessor as one observation follows another
        here = torch.where((over & ~last)[:, None], step.obs, step.next_obs)
        next_obs = self.show(here, told, step.reward, (over & ~last).float())
        obs = next_obs
        if last.any():
            for index in last.nonzero()[:, 0].tolist():
                self.draw(index)
            fresh = self.show(step.obs, torch.zeros_like(told), torch.zeros(self.count), torch.ones(self.count))
            obs = torch.where(last[:, None], fresh, next_obs)
        return Step(obs, next_obs, step.reward, step.terminated & last, step.truncated & last)

    def get_state(self) -> dict[str, Tensor]:
        mine = {name: getattr(self, name) for name in ("context", "episode", "eye", "hand")} | {"seed": torch.tensor(self.seed)}
        return {f"inner_{name}": x for name, x in self.inner.get_state().items()} | {name: x.clone() for name, x in mine.items()}

    def set_state(self, state: dict[str, Tensor]) -> None:
        self.inner.set_state({name.removeprefix("inner_"): x for name, x in state.items() if name.startswith("inner_")})
        self.context, self.episode, self.eye, self.hand = (state[name].clone() for name in ("context", "episode", "eye", "hand"))
        self.seed = int(state["seed"])
