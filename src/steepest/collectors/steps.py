"""Steps of answers, and what they are labelled with."""

from __future__ import annotations

from typing import Any

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
    """A batch of answers with the columns of `stepped`. Raises ValueError where the problem sees a step in what was not said."""
    step, right = (x.to(batch.mask) for x in problem.steps(asked_of(batch), batch.action.cpu(), batch.mask.cpu()))
    astray = ((step > 0) & (batch.mask == 0)).nonzero()
    if len(astray):
        n, t = (int(i) for i in astray[0])
        raise ValueError(
            f"{type(problem).__name__}.steps ends a step at token {t} of answer {n}, which has {int(batch.length[n])} tokens: "
            "steps and tokens are not aligned"
        )
    last = at_once(problem, batch)
    end = last.extra["step"]
    return batch.having(extra={**batch.extra, "step": step.maximum(end), "right": right.where(end == 0, last.extra["right"])})


def at_once(problem: Any, batch: Batch) -> Batch:
    """The same columns where an answer is one step: its end."""
    ones, good = batch.mask.new_ones(len(batch)), (batch.score > 0).to(batch.mask)
    return batch.having(extra={**batch.extra, "step": at_end(ones, batch.mask), "right": at_end(good, batch.mask)})
