"""What the claims on text tasks have in common."""

from types import MappingProxyType

from ...core.stream import Stream
from ..claim import Run

ROLLOUTS = MappingProxyType({"prompts": 16, "group": 8})  # a step's answers, small enough for one core


def final_accuracy(run: Run) -> float:
    """The problem's accuracy of the last policy, on prompts that no training drew."""
    return run.problem.evaluate(run.state.policy, Stream(run.seed, "evaluate"))["accuracy"]
