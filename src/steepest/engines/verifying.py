"""What a verifier learns: the labels of steps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..core.batch import Batch
from ..core.state import State
from ..losses import Loss, Terms, cross_entropy


@dataclass(frozen=True)
class StepObjective:
    """The mean over the steps of a batch of loss(number, label): hand it to an update, ``Epochs(optimizer="verifier")`` for one.

    The batch has the labels in ``target`` and a column ``step`` of ``extra``, 1 where a step ends (see `collectors.steps`). Of
    the State it reads `verifier`. Reports the loss and, as `verifier_right`, how often number and label are on the same side.

    loss    of the head's number (`value`) and the label (`target`)
    border  the number between what counts as good and as bad: 0 for logits, 0.5 where the number itself is the score
    """

    loss: Loss = cross_entropy()  # noqa: RUF009  # frozen
    border: float = 0.0

    def weigh(self, batch: Batch) -> Batch:
        step = batch.extra["step"]
        return batch.having(weight=step / step.sum().clamp(min=1))

    def parts(self, state: State, batch: Batch, size: int) -> Iterator[Batch]:
        yield from batch.split(size)

    def __call__(self, state: State, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        step = batch.extra["step"]
        number = state.verifier.value(batch.obs, batch.action, step)
        nothing = torch.zeros_like(number)
        terms = Terms(nothing, nothing, nothing, step, value=number, target=batch.target)
        total = (self.loss(terms).loss * batch.weight).sum()
        with torch.no_grad():
            right = ((number > self.border) == (batch.target > 0.5)).float()
            told = {"verifier_loss": total.detach(), "verifier_right": (right * batch.weight).sum()}
        return total, told

    def value(self, state: State, batch: Batch) -> Tensor:
        return self(state, batch)[0]

    def pull(self, state: State, batch: Batch, report: bool) -> dict[str, Tensor]:
        total, told = self(state, batch)
        total.backward()
        return told if report else {}

    def compiled(self, state: State, batch: Batch) -> None:
        """Nothing does this natively."""
