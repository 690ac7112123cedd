"""Memories: modules with buffers and no parameters, read and written."""

from .average import Average
from .replay import Replay
from .table import Table

__all__ = ["Average", "Replay", "Table"]
