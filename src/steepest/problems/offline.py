"""Logged transitions of a control problem: graded pendulum data, and Minari data sets in and out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..core.problem import Control, Problem
from ..core.stream import Stream
from .control import Pendulum, greedy

Behaviour = Callable[[Tensor, torch.Generator], Tensor]  # obs [B, S] -> action [B, A] in the problem's units
RANDOM, EXPERT = -1238.0, -158.0  # mean returns of `uniform` and of `swing_up` on the pendulum, 400 episodes each


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

    def to(self, device: torch.device | str) -> OfflineData:
        """The same rows on another device."""
        if self.obs.device == torch.device(device):
            return self
        return OfflineData(*(getattr(self, f.name).to(device) for f in fields(self)))

    def returns(self) -> Tensor:
        """Undiscounted return of each episode [episodes]."""
        number = torch.unique(self.episode, return_inverse=True)[1]
        return torch.zeros(int(number.max()) + 1).index_add(0, number, self.rew)

    def stats(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the observations [S], [S]."""
        return self.obs.mean(0), self.obs.std(0, correction=0)


def to_unit(action: Tensor, space: Any) -> Tensor:
    """Actions in the units of a bounded Box [..., A], scaled to [-1, 1] and clipped to it."""
    middle, half = span(space)
    return ((action.cpu().float() - middle) / half).clamp(-1, 1)


def from_unit(action: Tensor, space: Any) -> Tensor:
    """Actions in [-1, 1] [..., A] in the units of a bounded Box."""
    middle, half = span(space)
    return middle + half * action.cpu()


def span(space: Any) -> tuple[Tensor, Tensor]:
    """The middle of a Box of actions and half its width [A], [A]; raises ValueError where it has no bounds."""
    if not hasattr(space, "low") or not (np.isfinite(space.low).all() and np.isfinite(space.high).all()):
        raise ValueError(f"{space} has no bounds, so its actions cannot be scaled to [-1, 1]: data need actions in a bounded Box")
    return torch.as_tensor((space.high + space.low) / 2), torch.as_tensor((space.high - space.low) / 2)


@dataclass(frozen=True)
class Stretched:
    """A policy that decides in [-1, 1], in the units of a Box."""

    policy: Any
    space: Any

    def act(self, obs: Tensor, generator: torch.Generator, greedy: bool = False) -> Tensor:
        return from_unit(self.policy.act(obs, generator, greedy), self.space)


def swing_up(obs: Tensor, generator: torch.Generator) -> Tensor:
    """The pendulum's scripted expert: pump energy while low, a PD controller near the top. obs [B, 3] -> torque [B, 1]"""
    cos, sin, speed = obs.unbind(1)
    energy = speed**2 / 6 + 5 * (cos - 1)  # 0 upright at rest, for m = l = 1, g = 10
    pump = torch.where(speed == 0, 2.0, -2 * torch.sign(speed) * torch.sign(energy))
    hold = -(10 * torch.atan2(sin, cos) + 2 * speed)
    return torch.where(cos > 0.9, hold, pump).clamp(-2, 2)[:, None]


def uniform(obs: Tensor, generator: torch.Generator) -> Tensor:
    return 4 * torch.rand(len(obs), 1, generator=generator) - 2


def noisy(obs: Tensor, generator: torch.Generator) -> Tensor:
    """Medium: the expert with N(0, 1) noise, and 3 of 10 actions random."""
    action = (swing_up(obs, generator) + torch.randn(len(obs), 1, generator=generator)).clamp(-2, 2)
    return torch.where(torch.rand(len(obs), 1, generator=generator) < 0.3, uniform(obs, generator), action)


@torch.no_grad()
def log(problem: Control, behaviour: Behaviour, *, count: int, steps: int, rng: Stream) -> OfflineData:
    """`steps` steps in each of `count` environments, acting by `behaviour`. An episode cut by the end of the log is truncated."""
    env, generator, rows = problem.make(count), (rng / "act").torch(), []
    obs = env.reset(rng / "reset")
    for t in range(steps):
        action = behaviour(obs, generator)
        out = env.step(action)
        truncated = out.truncated | ~out.terminated if t == steps - 1 else out.truncated
        rows.append((obs, to_unit(action, problem.action_space), out.reward, out.next_obs, out.terminated, truncated))
        obs = out.obs
    columns = [torch.stack(column, 1) for column in zip(*rows, strict=True)]
    done = (columns[4] | columns[5]).flatten()
    episode = done.long().cumsum(0) - done.long()
    return OfflineData(*[*(x.flatten(0, 1) for x in columns), episode])


def played(policy: Any) -> Behaviour:
    """A policy that was trained on a control problem, as a behaviour: what it does when it explores."""
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
    problem, parts = Pendulum(), halves[grade]
    counts = [round(steps * share / problem.limit) for _, share in parts]
    if min(counts) < 1:
        raise ValueError(f"{steps} steps hold no whole episode of each part of {grade!r}: ask for more")
    return join(
        *(
            log(problem, behaviour, count=count, steps=problem.limit, rng=rng / i)
            for i, (count, (behaviour, _)) in enumerate(zip(counts, parts, strict=True))
        )
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
        """Mean `return` of 20 greedy episodes; `score` is 0 for random actions and 100 for the scripted expert."""
        problem = Pendulum()
        mean = greedy(problem, Stretched(policy, problem.action_space), 20, rng)["return"]
        return {"return": mean, "score": 100 * (mean - RANDOM) / (EXPERT - RANDOM)}


def to_minari(data: OfflineData, id: str, env: Any, *, algorithm: str, **told: Any) -> Any:
    """Write a Minari data set, whose actions are in the units of `env`; its root is MINARI_DATASETS_PATH.

    env        the Gymnasium environment that was logged; the data set can recover it
    algorithm  what acted
    told       more of the data set's record: author, author_email, code_permalink, description, ref_min_score, ...
    """
    namespace = id.partition("/")[0]
    if "/" not in id or len(namespace) < 2:
        raise ValueError(f"a Minari id is namespace/name-vN with a namespace of at least 2 letters, not {id!r}: try steepest/{id}")
    import minari
    from minari.data_collector import EpisodeBuffer

    buffers = []
    for number in torch.unique(data.episode):
        part = data.rows(data.episode == number)
        observations = torch.cat([part.obs, part.next_obs[-1:]]).numpy()
        actions = from_unit(part.act, env.action_space)
        names = {"actions": actions, "rewards": part.rew, "terminations": part.terminated, "truncations": part.truncated}
        buffers.append(EpisodeBuffer(observations=observations, **{k: x.numpy() for k, x in names.items()}))
    return minari.create_dataset_from_buffers(id, buffers, env=env, algorithm_name=algorithm, data_format="hdf5", **told)


def local(id: str) -> Any:
    """The Minari data set of that id on this machine; raises FileNotFoundError with the way to get it."""
    if "/" not in id:
        raise ValueError(f"a Minari id is namespace/name-vN, not {id!r}")
    import minari

    try:
        return minari.load_dataset(id)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"this machine holds no Minari data set {id!r} ({error}). `minari download {id}` gets a published one, "
            "problems.offline.to_minari writes one of your own; MINARI_DATASETS_PATH says where they lie"
        ) from error


def from_minari(id: str) -> OfflineData:
    """A local Minari data set with vector observations and bounded actions, which are scaled to [-1, 1]."""
    source, parts = local(id), []
    for number, e in enumerate(source.iterate_episodes()):
        obs, rew = (torch.as_tensor(np.asarray(x), dtype=torch.float32) for x in (e.observations, e.rewards))
        ended, cut = (torch.as_tensor(x, dtype=torch.bool) for x in (e.terminations, e.truncations))
        act = to_unit(torch.as_tensor(e.actions), source.action_space)
        parts.append((obs[:-1], act, rew, obs[1:], ended, cut, torch.full((len(rew),), number)))
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
        env = local(self.id).recover_environment()
        actor, generator, returns = Stretched(policy, env.action_space), (rng / "act").torch(), []
        for number in range(5):
            obs, total, done = env.reset(seed=(rng / number).seed % 2**31)[0], 0.0, False
            while not done:
                with torch.no_grad():
                    action = actor.act(torch.as_tensor(obs, dtype=torch.float32)[None], generator, True)[0].numpy()
                obs, reward, terminated, truncated, _ = env.step(action)
                total, done = total + float(reward), terminated or truncated
            returns.append(total)
        env.close()
        return {"return": float(np.mean(returns))}
