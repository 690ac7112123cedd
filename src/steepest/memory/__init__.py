"""Memories: modules with buffers and no parameters, read and written."""

from .average import Average
from .queue import Queue
from .replay import Replay
from .table import Table
from .tracker import Bandit, Tracker

__all__ = [
    "Average", "Bandit", "Queue", "Replay", "Table", "Tracker",
]  # fmt: skip
