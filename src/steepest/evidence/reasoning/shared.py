"""What the claims on text tasks have in common."""

from ...core.stream import Stream
from ..claim import Run


def final_accuracy(run: Run) -> float:
    """The problem's accuracy of the last policy, on prompts that no training drew."""
    return run.problem.evaluate(run.state.policy, Stream(run.seed, "evaluate"))["accuracy"]
