"""The compiled kernels (csrc/) where they were built; without them the Python beside every use of them does the same, slower."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import torch
from torch import Tensor

VERSION = 4  # of the interface, as in csrc/steepest.c
LAYERS = 16  # of a network, at most, as there
CARTPOLE, PENDULUM, POINTMASS = range(3)  # the worlds there, in their order


def load(version: int = VERSION) -> Any:
    """The extension module `_steepest`, or None; a module of another version is refused with a warning."""
    try:
        import _steepest  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        return None
    found = getattr(_steepest, "VERSION", None)
    if found != version:
        warnings.warn(
            f"the compiled kernels of steepest are of version {found}, this source needs {version}: they stand idle and control is "
            "slower. Install the package again to build them: pip install .",
            stacklevel=2,
        )
        return None
    return _steepest


library: Any = load()  # tests put None here to reach the twins


def fits(*tensors: Tensor) -> bool:
    """Whether there are kernels and the tensors are what they work on: single precision, contiguous, on a CPU."""
    return library is not None and all(x.dtype == torch.float32 and x.device.type == "cpu" and x.is_contiguous() for x in tensors)


def own(thing: Any, name: str) -> Any:
    """What the class of `thing` says of itself; None where a parent said it, whose subclass may compute something else."""
    return vars(type(thing)).get(name)


class Known(NamedTuple):
    """A network that the kernels know, with what stands behind it."""

    net: tuple[Any, ...]  # addresses and sizes
    spread: int  # the address of log_std, or 0
    theta: Tensor
    log_std: Tensor | None


class Actor(NamedTuple):
    """A policy that a kernel can let act, while its parameters stay where they are. See `Known`."""

    net: tuple[Any, ...]
    spread: int
    noise: Tensor  # what T steps of N environments are drawn from [T, N, ...]
    action: Tensor  # room for what they do [N, T, ...]
