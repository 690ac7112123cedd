"""PCPG: imitate, and let each token of an own answer be judged by how the character error rate changes around it.

Paper.  Luo et al., Pseudo-Convolutional Policy Gradient for Sequence-to-Sequence Lip-Reading, 2020. arXiv 2003.03983.
Claim.  It makes fewer character errors than cross-entropy alone, and than with a policy gradient that looks at single time steps.
Idea.   minimise (1 - a) CE - a mean over windows of (R - mean R) l;  R, l the sliding means of - change of CER and of log pi
State.  as sft
Note.   The text of the paper was not at hand beyond its abstract: the baseline (the batch's mean R), the window's defaults and the
        ramp of a are choices of this implementation. A window's l is linear in log pi, so the whole is a policy gradient with one
        advantage a token (`credit.sliding`). The error rate counts the end token as a character. The problem has
        ``demonstrate(prompts)``; one answer is sampled to each demonstrated prompt.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ...collectors.demonstrations import demonstrations
from ...collectors.experience import Collect
from ...collectors.generate import answers, asked_of, joined
from ...core import Batch, State, Stream, System, extends
from ...credit import cer_decrements, sliding
from .sft import sft


def beside_own(show: Callable[..., Collect], width: int) -> Callable[..., Collect]:
    """Demonstrations, and below them an own answer to each of the prompts, whose rewards are what its tokens take off the error
    rate. The column `shown` is 1 for demonstrations. Reported is the error rate `cer` of the own answers."""

    def gather(*, prompts: int) -> Collect:
        demonstrated = show(prompts=prompts)

        def collect(state: State, problem: Any, rng: Stream) -> Batch:
            if width > problem.max_new:
                raise ValueError(f"a window of {width} tokens never fits into answers of at most {problem.max_new}: lower width")
            shown = demonstrated(state, problem, rng)
            own = answers(state, problem, asked_of(shown), rng / "own")
            own = own.having(reward=cer_decrements(own.action, own.mask, shown.action, shown.mask))
            told, free = torch.ones_like(shown.mask), torch.zeros_like(own.mask)
            both = joined(shown.having(extra={"shown": told}), own.having(extra={"shown": free}))
            return both.having(info={"cer": 1.0 - float(own.score.mean())})

        return collect

    return gather


def weighed(state: State, batch: Batch, *, share: float, ramp: int, width: int, stride: int) -> Tensor:
    """Of demonstrated tokens the mean counts 1 - a, of windows a; `token_mean`, which divides by all tokens, is undone."""
    a = share * min(1.0, state.step / ramp) if ramp else share
    shown = batch.mask * batch.extra["shown"]
    own = batch.mask - shown
    taught = (1 - a) * shown / shown.sum()
    return batch.mask.sum() * (taught + a * sliding(batch.reward, own, width=width, stride=stride))  # <- the idea


@extends(sft, without=("epochs", "minibatches", "loss", "select", "credit"))
def pcpg(
    *, share: float = 0.5, ramp: int = 100, width: int = 5, stride: int = 1,
    collect: Callable[..., Collect] = demonstrations, **options: Any,
) -> System:  # fmt: skip
    """Supervised fine-tuning and a policy gradient on the character error rate, seen through sliding windows.

    share    a: what the policy gradient counts in the end; the cross-entropy counts 1 - a
    ramp     steps in which a grows from 0 to share, evenly; 0: it is share from the start
    width    tokens of a window; 1: every token by itself, which is the plain mixture
    stride   tokens from one window's begin to the next one's
    collect  (prompts=) -> a collector of answers to imitate
    """
    if not 0 <= share <= 1 or ramp < 0:
        raise ValueError(f"share must lie in [0, 1] and ramp not be negative, not {share} and {ramp}")
    if width < 1 or stride < 1:
        raise ValueError(f"a window has at least 1 token and a stride of at least 1, not {width} and {stride}")
    credit = partial(weighed, share=share, ramp=ramp, width=width, stride=stride)
    return sft(collect=beside_own(collect, width), credit=credit, **options)
