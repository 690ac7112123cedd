"""Logged transitions of a control problem: graded pendulum data, and Minari data sets in and out."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..core.problem import Problem, Step, Vector
from ..core.stream import Stream

Behaviour = Callable[[Tensor, torch.Generator], Tensor]  # obs [B, S] -> action [B, A] in [-1, 1]


@dataclass(frozen=True)
class OfflineData:
    """M logged steps, one row each, episodes one after another.

    Raises ValueError on no rows, unequal lengths, a row that is not finite, or an action outside [-1, 1];
    the message names the first offending row.
    """

    obs: Tensor  # [M, S]
    act: Tensor  # [M, A] in [-1, 1]
    rew: Tensor  # [M]
    next_obs: Tensor  # [M, S] the true successor
    terminated: Tensor  # [M] bool: nothing follows
    truncated: Tensor  # [M] bool: the clock ended, next_obs still has a value
    episode: Tensor  # [M] long

    def __post_init__(self) -> None:
        count = len(self.obs)
        if count == 0:
            raise ValueError("the data set is empty: it needs at least one step")
        for f in fields(self):
            x = getattr(self, f.name)
            if len(x) != count:
                raise ValueError(f"`{f.name}` has {len(x)} rows, `obs` has {count}: every field has one row a step")
            bad = ~torch.isfinite(x.reshape(count, -1)).all(1)
            if bool(bad.any()):
                raise ValueError(f"`{f.name}` is not finite in row {int(bad.nonzero()[0])}: repair or drop the row")
        wide = (self.act.reshape(count, -1).abs() > 1 + 1e-6).any(1)
        if bool(wide.any()):
            raise ValueError(
                f"the action of row {int(wide.nonzero()[0])} lies outside [-1, 1]: rescale with the bounds of the action space"
            )

    def __len__(self) -> int:
        return len(self.obs)

    def rows(self, index: Tensor) -> OfflineData:
        return OfflineData(*(getattr(self, f.name)[index] for f in fields(self)))

    def returns(self) -> Tensor:
        """Undiscounted return of each episode [episodes]."""
        number = torch.unique(self.episode, return_inverse=True)[1]
        return torch.zeros(int(number.max()) + 1).index_add(0, number, self.rew)

    def stats(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the observations [S], [S]."""
        return self.obs.mean(0), self.obs.std(0, correction=0)


class Swings(Vector):
    """`count` pendulums with the equations of Gymnasium's Pendulum-v1; the action is torque / 2."""

    horizon = 200

    def __init__(self, count: int):
        self.count = count
        self.state = {
            "x": torch.zeros(count, 2),
            "clock": torch.zeros(count, dtype=torch.long),
            "seed": torch.zeros(2, dtype=torch.long),
        }

    def start(self) -> Tensor:
        generator = (Stream(int(self.state["seed"][0])) / int(self.state["seed"][1])).torch()
        self.state["seed"] = self.state["seed"] + torch.tensor([0, 1])
        return (2 * torch.rand(self.count, 2, generator=generator) - 1) * torch.tensor([math.pi, 1.0])

    def see(self, x: Tensor) -> Tensor:
        return torch.stack([x[:, 0].cos(), x[:, 0].sin(), x[:, 1]], 1)

    def reset(self, rng: Stream) -> Tensor:
        self.state |= {"seed": torch.tensor([rng.seed, 0]), "clock": torch.zeros(self.count, dtype=torch.long)}
        self.state["x"] = self.start()
        return self.see(self.state["x"])

    def step(self, action: Tensor) -> Step:
        angle, speed = self.state["x"].unbind(1)
        torque = 2 * action[:, 0].clamp(-1, 1)
        away = torch.remainder(angle + math.pi, 2 * math.pi) - math.pi
        reward = -(away**2 + 0.1 * speed**2 + 0.001 * torque**2)
        speed = (speed + (15 * angle.sin() + 3 * torque) * 0.05).clamp(-8, 8)
        x = torch.stack([angle + 0.05 * speed, speed], 1)
        clock = self.state["clock"] + 1
        over = clock >= self.horizon
        fresh = torch.where(over[:, None], self.start(), x) if bool(over.any()) else x
        self.state |= {"x": fresh, "clock": torch.where(over, 0, clock)}
        return Step(self.see(fresh), self.see(x), reward, torch.zeros_like(over), over)

    def get_state(self) -> dict[str, Tensor]:
        return {name: x.clone() for name, x in self.state.items()}

    def set_state(self, state: dict[str, Tensor]) -> None:
        self.state = {name: x.clone() for name, x in state.items()}


def swing_up(obs: Tensor, generator: torch.Generator) -> Tensor:
    """The scripted expert: pump energy while low, a PD controller near the top. obs [B, 3] -> [B, 1]"""
    cos, sin, speed = obs.unbind(1)
    energy = speed**2 / 6 + 5 * (cos - 1)  # 0 upright at rest, for m = l = 1, g = 10
    pump = torch.where(speed == 0, torch.ones_like(speed), -torch.sign(speed) * torch.sign(energy))
    hold = -(10 * torch.atan2(sin, cos) + 2 * speed) / 2
    return torch.where(cos > 0.9, hold, pump).clamp(-1, 1)[:, None]


def uniform(obs: Tensor, generator: torch.Generator) -> Tensor:
    return 2 * torch.rand(len(obs), 1, generator=generator) - 1


def noisy(obs: Tensor, generator: torch.Generator) -> Tensor:
    """Medium: the expert with N(0, 0.5) noise, and 3 of 10 actions random."""
    action = (swing_up(obs, generator) + 0.5 * torch.randn(len(obs), 1, generator=generator)).clamp(-1, 1)
    return torch.where(torch.rand(len(obs), 1, generator=generator) < 0.3, uniform(obs, generator), action)


def log(env: Vector, behaviour: Behaviour, steps: int, rng: Stream) -> OfflineData:
    """`steps` steps in each environment of `env`, acting by `behaviour`. An episode cut by the end of the log is truncated."""
    obs, generator, rows = env.reset(rng / "reset"), (rng / "act").torch(), []
    for t in range(steps):
        action = behaviour(obs, generator)
        out = env.step(action)
        truncated = out.truncated | ~out.terminated if t == steps - 1 else out.truncated
        rows.append((obs, action, out.reward, out.next_obs, out.terminated, truncated))
        obs = out.obs
    columns = [torch.stack(column, 1) for column in zip(*rows, strict=True)]
    done = (columns[4] | columns[5]).flatten()
    episode = done.long().cumsum(0) - done.long()
    return OfflineData(*[*(x.flatten(0, 1) for x in columns), episode])


def played(policy: Any) -> Behaviour:
    """A trained policy as a behaviour."""
    return lambda obs, generator: policy.act(obs, generator, False)


def join(*parts: OfflineData) -> OfflineData:
    columns = {f.name: torch.cat([getattr(p, f.name) for p in parts]) for f in fields(OfflineData)}
    starts = np.cumsum([0, *(int(p.episode.max()) + 1 for p in parts)])
    columns["episode"] = torch.cat([p.episode + int(s) for p, s in zip(parts, starts, strict=False)])
    return OfflineData(**columns)


def make_graded(grade: str, steps: int, rng: Stream) -> OfflineData:
    """Pendulum data in episodes of 200. grade: random, medium, expert, medium-expert, mixed (1 episode of 20 expert)."""
    halves = {
        "random": ((uniform, 1.0),), "medium": ((noisy, 1.0),), "expert": ((swing_up, 1.0),),
        "medium-expert": ((noisy, 0.5), (swing_up, 0.5)), "mixed": ((swing_up, 0.05), (uniform, 0.95)),
    }  # fmt: skip
    if grade not in halves:
        raise ValueError(f"there is no grade {grade!r}; the grades are {', '.join(halves)}")
    counts = [round(steps * share / Swings.horizon) for _, share in halves[grade]]
    if min(counts) < 1:
        raise ValueError(f"{steps} steps hold no whole episode of each part of {grade!r}: ask for more")
    return join(
        *(log(Swings(n), b, Swings.horizon, rng / i) for i, (n, (b, _)) in enumerate(zip(counts, halves[grade], strict=True)))
    )


class Offline(Problem):
    """Data to learn from, and environments, met in evaluation only, to be judged in."""

    data: OfflineData


@dataclass(frozen=True)
class PendulumData(Offline):
    """Graded logs of the pendulum.

    grade  random, medium, expert, medium-expert or mixed
    steps  logged steps
    seed   of the log
    """

    grade: str = "medium-expert"
    steps: int = 8000
    seed: int = 0

    @cached_property
    def data(self) -> OfflineData:  # type: ignore[override]
        return make_graded(self.grade, self.steps, Stream(self.seed, "data"))

    def evaluate(self, policy: Any, rng: Stream) -> dict[str, float]:
        """`return` of 20 episodes; `score` is 0 for a random policy and 100 for the expert (-1269 and -137)."""
        obs_policy: Behaviour = lambda obs, generator: policy.act(obs, generator, True)  # noqa: E731
        with torch.no_grad():
            mean = float(log(Swings(20), obs_policy, Swings.horizon, rng).returns().mean())
        return {"return": mean, "score": 100 * (mean + 1269) / (1269 - 137)}


def to_minari(data: OfflineData, id: str, env: Any, *, algorithm: str) -> Any:
    """Write a Minari data set; its root is MINARI_DATASETS_PATH. `env` is a Gymnasium environment whose actions span `data.act`."""
    namespace = id.partition("/")[0]
    if "/" not in id or len(namespace) < 2:
        raise ValueError(f"a Minari id is namespace/name-vN with a namespace of at least 2 letters, not {id!r}: try steepest/{id}")
    import minari
    from minari.data_collector import EpisodeBuffer

    buffers = []
    for number in torch.unique(data.episode):
        part = data.rows(data.episode == number)
        observations = torch.cat([part.obs, part.next_obs[-1:]]).numpy()
        names = {"actions": part.act, "rewards": part.rew, "terminations": part.terminated, "truncations": part.truncated}
        buffers.append(EpisodeBuffer(observations=observations, **{k: x.numpy() for k, x in names.items()}))
    return minari.create_dataset_from_buffers(
        id, buffers, env=env, action_space=symmetric(env.action_space), algorithm_name=algorithm, data_format="hdf5"
    )


def symmetric(space: Any) -> Any:
    import gymnasium

    return gymnasium.spaces.Box(-1.0, 1.0, space.shape, np.float32)


def from_minari(id: str) -> OfflineData:
    """A local Minari data set with vector observations and bounded actions, which are scaled to [-1, 1]."""
    if "/" not in id:
        raise ValueError(f"a Minari id is namespace/name-vN, not {id!r}")
    import minari

    source = minari.load_dataset(id)
    low, high = source.action_space.low, source.action_space.high
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise ValueError(f"the actions of {id} have no bounds, so they cannot be scaled to [-1, 1]")
    exact = bool((low == -1).all() and (high == 1).all())
    parts = []
    for number, e in enumerate(source.iterate_episodes()):
        obs = torch.as_tensor(np.asarray(e.observations), dtype=torch.float32)
        action = e.actions if exact else 2 * (e.actions - low) / (high - low) - 1
        parts.append((
            obs[:-1], torch.as_tensor(action, dtype=torch.float32), torch.as_tensor(e.rewards, dtype=torch.float32), obs[1:],
            torch.as_tensor(e.terminations, dtype=torch.bool), torch.as_tensor(e.truncations, dtype=torch.bool),
            torch.full((len(e.rewards),), number),
        ))  # fmt: skip
    if not parts:
        raise ValueError(f"the data set {id} is empty")
    return OfflineData(*(torch.cat(column) for column in zip(*parts, strict=True)))


@dataclass(frozen=True)
class MinariData(Offline):
    """A Minari data set on this machine.

    id  namespace/name-vN
    """

    id: str = "steepest/pendulum/medium-v0"

    @cached_property
    def data(self) -> OfflineData:  # type: ignore[override]
        return from_minari(self.id)

    def evaluate(self, policy: Any, rng: Stream) -> dict[str, float]:
        """Mean undiscounted `return` of 5 episodes in the environment that the data set recovers."""
        import minari

        env, returns = minari.load_dataset(self.id).recover_environment(), []
        low, high, generator = env.action_space.low, env.action_space.high, (rng / "act").torch()
        for number in range(5):
            obs, total, done = env.reset(seed=(rng / number).seed % 2**31)[0], 0.0, False
            while not done:
                with torch.no_grad():
                    action = policy.act(torch.as_tensor(obs, dtype=torch.float32)[None], generator, True)[0].numpy()
                obs, reward, terminated, truncated, _ = env.step((low + (action + 1) / 2 * (high - low)).astype(np.float32))
                total, done = total + float(reward), terminated or truncated
            returns.append(total)
        env.close()
        return {"return": float(np.mean(returns))}
