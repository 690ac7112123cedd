"""The contract: Batch, State, System, Stream, and the loop that runs them."""

from .batch import Batch
from .problem import Control, Language, Problem, Prompts, Step, Vector, Warmup
from .state import State
from .stream import Stream
from .system import Record, System, begin, extends, holding, train

__all__ = [
    "Batch", "Control", "Language", "Problem", "Prompts", "Record", "State", "Step", "Stream", "System", "Vector", "Warmup",
    "begin", "extends", "holding", "train",
]  # fmt: skip
