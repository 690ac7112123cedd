"""Observations and actions of any space as flat rows, and back; the order is that of `gymnasium.spaces.flatten`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..core.problem import flat_size

Array = NDArray[Any]


def viewer(space: Any) -> Callable[[Any, Array], None]:
    """What writes one observation of `space` into a flat row of zeros or of older numbers."""
    from gymnasium import spaces

    if isinstance(space, (spaces.Dict, spaces.Tuple)):
        parts = space.spaces if isinstance(space, spaces.Dict) else dict(enumerate(space.spaces))
        writers, at = [], 0
        for key, part in parts.items():
            size = flat_size(part)
            writers.append((key, slice(at, at + size), viewer(part)))
            at += size

        def each(seen: Any, out: Array) -> None:
            for key, rows, write in writers:
                write(seen[key], out[rows])

        return each
    if isinstance(space, (spaces.Discrete, spaces.MultiDiscrete)):
        sizes = np.ravel(space.nvec if isinstance(space, spaces.MultiDiscrete) else space.n)
        shift = np.cumsum(sizes) - sizes - np.ravel(space.start)

        def one_hot(seen: Any, out: Array) -> None:
            out[:] = 0
            out[np.ravel(seen) + shift] = 1

        return one_hot
    return lambda seen, out: np.copyto(out, np.ravel(seen), "unsafe")


def flat_actions(space: Any, name: str) -> Any:
    """The space of actions as a policy gives them; raises TypeError where there is none."""
    from gymnasium import spaces

    if isinstance(space, spaces.Box):
        return spaces.Box(space.low.ravel(), space.high.ravel())
    if isinstance(space, spaces.Discrete):
        return spaces.Discrete(int(space.n))
    if isinstance(space, spaces.MultiDiscrete):
        return spaces.MultiDiscrete(space.nvec.ravel())
    if isinstance(space, spaces.MultiBinary):
        return spaces.MultiBinary(math.prod(space.shape))
    raise TypeError(
        f"{name} takes actions in {space}: Box, Discrete, MultiDiscrete and MultiBinary are supported. Wrap the environment "
        "(gymnasium.wrappers.TransformAction), register it and name the wrapped id"
    )


def converter(space: Any) -> Callable[[Tensor], Array]:
    """From a policy's actions [count, ...] to an array of what each environment takes; numbers outside a Box are clipped to it."""
    from gymnasium import spaces

    shape, dtype = space.shape, space.dtype
    if isinstance(space, spaces.Box):
        low, high = space.low, space.high
        return lambda action: action.numpy().reshape(-1, *shape).clip(low, high).astype(dtype)  # a clipped integer cannot wrap
    if isinstance(space, spaces.MultiBinary):
        return lambda action: action.numpy().reshape(-1, *shape).astype(dtype)
    start = space.start
    return lambda action: (action.numpy().reshape(-1, *shape) + start).astype(dtype)
