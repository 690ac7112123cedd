"""Randomness that is derived, never stored."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


class Stream:
    """An address from which random numbers are drawn: ``Stream(seed, step) / "collect" / 3``.

    Two equal addresses give equal numbers, in any process and on any machine, so that a checkpoint
    never holds a generator: the step counter is enough. Names are integers or strings.
    """

    __slots__ = ("path",)

    def __init__(self, *path: int | str):
        for name in path:
            if isinstance(name, bool) or not isinstance(name, (int, str, np.integer)):
                raise TypeError(f"a Stream is addressed by integers and strings, not by {name!r} ({type(name).__name__})")
        self.path: tuple[int | str, ...] = tuple(name if isinstance(name, str) else int(name) for name in path)

    def __truediv__(self, name: int | str) -> Stream:
        return Stream(*self.path, name)

    def __repr__(self) -> str:
        return " / ".join(map(str, self.path))

    @property
    def seed(self) -> int:
        """63 bits that belong to this address alone."""
        digest = hashlib.blake2b(repr(self.path).encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") >> 1

    def torch(self, device: torch.device | str = "cpu") -> torch.Generator:
        return torch.Generator(device).manual_seed(self.seed)

    def numpy(self) -> np.random.Generator:
        return np.random.default_rng(self.seed)

    @contextmanager
    def fork(self) -> Iterator[None]:
        """Seed torch's global generator inside the block and give it back untouched afterwards.

        For constructors of modules, which know no other generator; ``init`` is the only place for it. Inside torch has one
        thread: the last digits of an orthogonal matrix depend on how many there are.
        """
        devices = range(torch.cuda.device_count()) if torch.cuda.is_available() else []
        threads = torch.get_num_threads()
        with torch.random.fork_rng(devices):
            torch.manual_seed(self.seed)
            torch.set_num_threads(1)
            try:
                yield
            finally:
                torch.set_num_threads(threads)
