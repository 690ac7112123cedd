"""Steps in live environments that charge for where they lead."""

from __future__ import annotations

from typing import Any

from ..core.batch import Batch
from ..core.state import State
from ..core.stream import Stream
from .experience import Collect
from .rollout import rollout


def charged(*, envs: int, horizon: int) -> Collect:
    """A `rollout` whose ``info`` also has cost [envs, horizon], of `problem.cost`, and, where episodes ended, `kept`: their mean
    return as a share of the longest one's, for rewards of 1 a step."""
    collected = rollout(envs=envs, horizon=horizon)

    def collect(state: State, problem: Any, rng: Stream) -> Batch:
        found = collected(state, problem, rng)
        info = {**found.info, "cost": problem.cost(found.info["next_obs"].flatten(0, 1)).view_as(found.reward)}
        return found.having(info=info | ({"kept": info["return"] / problem.limit} if "return" in info else {}))

    return collect
