"""Memories: modules with buffers and no parameters, read and written."""

from .average import Average
from .replay import Replay
from .table import Table
from .tracker import Bandit, Tracker

__all__ = ["Average", "Bandit", "Replay", "Table", "Tracker"]
