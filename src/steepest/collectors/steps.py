"""Steps of answers, and what they are labelled with."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..core.batch import Batch, at_end
from ..core.state import State
from ..core.stream import Stream
from .experience import Collect
from .generate import Gather, asked_of, generate


def stepped(gather: Gather = generate) -> Gather:
    """The same answers, and two columns: `step`, 1 where a step ends, and `right`, 1 where that step is right, as the problem's
    ``steps`` says. What follows the last step, or an answer without any, is a step that ends with the answer; it is right if the
    answer's score is positive. Raises TypeError where the problem has no `steps`.
    """

    def kept(*, prompts: int, group: int) -> Collect:
        collect = gather(prompts=prompts, group=group)

        def marked(state: State, problem: Any, rng: Stream) -> Batch:
            return split(problem, collect(state, problem, rng))

        return marked

    return kept


def split(problem: Any, batch: Batch) -> Batch:
    """A batch of answers with the columns of `stepped`."""
    step, right = (x.to(batch.mask) for x in problem.steps(asked_of(batch), batch.action.cpu(), batch.mask.cpu()))
    end = at_end(batch.mask.new_ones(len(batch)), batch.mask)
    good: Tensor = at_end((batch.score > 0).to(batch.mask), batch.mask)
    return batch.having(extra={**batch.extra, "step": step.maximum(end), "right": right.where(end == 0, good)})
