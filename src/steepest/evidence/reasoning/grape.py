"""GRAPE against the plain mean of a rubric: what a judge's confidence is good for."""

from functools import partial

import torch
from torch import Tensor

from ...core.batch import Batch
from ...core.state import State
from ...problems.language import AddCliff
from ...systems.reasoning.grape import grape
from ..claim import Claim, final


def judged(batch: Batch) -> Tensor:
    """The verdict, and an item that says nothing: a hash of the answer's tokens, even on [0, 1] in steps of 1/96. [N, 2]"""
    place = torch.arange(1, batch.mask.shape[1] + 1)
    noise = ((batch.action * batch.mask.long()) * place * 7919 % 97 * place).sum(1) + batch.key * 31
    return torch.stack([batch.score, (noise % 97).float() / 96], 1)


def doubted(state: State, batch: Batch) -> tuple[Tensor, Tensor]:
    item = judged(batch)
    return item, torch.tensor([1.0, 0.1]).expand_as(item)


def believed(state: State, batch: Batch) -> tuple[Tensor, Tensor]:
    item = judged(batch)
    return item, torch.ones_like(item)


claim = Claim(
    says="With an item judged at random, weighing a rubric by confidence learns sums of 3 to 6 digits better than its plain mean.",
    problem=partial(AddCliff),
    ours=partial(grape, rubric=doubted, kl=0.0, lr=3e-4, prompts=16, group=8),
    baseline=partial(grape, rubric=believed, kl=0.0, lr=3e-4, prompts=16, group=8),
    measure=final("accuracy"),
    unit="accuracy of sampled answers on sums of 3 to 6 digits",
    steps=60,
    seeds=5,
    tried=(
        "Nothing was tuned: the learning rate is the one that the claim of grpo found best, the confidence of 0.1 and the "
        "number of steps were fixed before the first run."
    ),
    why=(
        "Written after the run. Four of five seeds gain, one loses. An item that is noise does not change what is best on average, "
        "so believing it costs speed alone, and among 8 answers to a prompt its noise is partly averaged away."
    ),
)
