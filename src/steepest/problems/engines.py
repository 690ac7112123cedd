"""The engine that steps an id fastest without changing what comes out."""

from __future__ import annotations

from .gym import Gym, MiniGrid
from .pools import Atari
from .registered import Registered, Unknown, known
from .robots import ROBOTS, Mujoco

__all__ = ["Unknown", "engine"]


def engine(name: str) -> type[Registered]:
    """The problem that an id alone stands for; raises `Unknown` where nobody knows the id, and ValueError where the
    package that does is missing."""
    home = str(known(name).entry_point)
    if name in dict(ROBOTS):
        return Mujoco
    if home.startswith("minigrid."):
        return MiniGrid
    return Atari if home.startswith("ale_py.") else Gym
