"""QwenLong-L1: from short inputs to long ones in stages, each of which comes back to the hard prompts of those before.

Paper.  Wan et al., QwenLong-L1: Towards Long-Context Large Reasoning Models with Reinforcement Learning, 2025. arXiv 2505.17667.
Claim.  Reached through shorter inputs, long ones are answered better than by training on long ones alone, and more steadily.
Idea.   stage k asks prompts x with bounds[k - 1] < |x| <= bounds[k], and a share of those before ~ 1 / mean reward of x
State.  as dapo, and `tracker` (the mean reward of each prompt); with imitation a second Adam (`imitation`)
Note.   DAPO and no KL, as in the authors' script (Tongyi-Zhiwen/QwenLong-L1, which has a single stage). How large the share of
        earlier prompts is, how long each stage lasts, and what a mean reward of 0 counts as are not said there: guesses. Rewards
        lie in [0, 1]; the paper's is the larger of a rule's and a judge's, `problems.rewards.max_of`. Groups that dynamic sampling
        drops are remembered too. The problem is a known set of prompts.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from ...collectors.asking import Size, hard, pool, staged
from ...collectors.demonstrations import demonstrations
from ...collectors.experience import Collect
from ...collectors.generate import Gather, generate
from ...collectors.refilled import refilled
from ...core import Batch, State, Stream, System, extends, holding
from ...engines.imitation import after_imitation
from ...memory.tracker import Tracker
from .dapo import dapo


@extends(dapo, without=("collect",))
def qwenlong_l1(
    *, bounds: tuple[float, ...] = (20_000, 60_000), ends: tuple[int, ...] = (100,), size: Size | None = None, share: float = 0.25,
    cap: float = 10.0, rounds: int = 10, imitate: int = 0, imitate_lr: float = 1e-5, traces: int = 64, max_grad_norm: float = 1.0,
    **options: Any,
) -> System:  # fmt: skip
    """Policy optimization on inputs of growing length.

    bounds         the longest input of each stage, growing (paper: 20,000 and 60,000 tokens)
    ends           the step, imitation not counted, before which each stage but the last ends
    size           (problem) -> the length of each prompt; None: its tokens
    share          of a step's prompts that come from earlier stages
    cap            the weight of an earlier prompt that nobody answered rightly; 1 is that of one always answered so
    rounds         times that a step asks, until enough groups say something (as dapo: 10)
    imitate        steps of supervised fine-tuning on what the problem demonstrates, before (paper: some, on long inputs)
    imitate_lr     learning rate of Adam there (usual: 1e-5)
    traces         demonstrations a step there (usual: 64)
    max_grad_norm  the gradient is scaled down to this norm
    """
    ask = staged(bounds, [imitate + end for end in ends], size=size, share=share, again=hard(cap=cap))  # <- the idea
    gather = refilled(rounds=rounds, gather=tracked(partial(generate, ask=ask)))
    system = holding(
        dapo(collect=gather, max_grad_norm=max_grad_norm, **options),
        tracker=lambda state, problem, rng: Tracker(pool(problem).size),
    )
    first = demonstrations(prompts=traces)
    return after_imitation(system, first, steps=imitate, lr=imitate_lr, max_grad_norm=max_grad_norm)


def tracked(gather: Gather) -> Gather:
    """The same answers, whose rewards the State's tracker takes as they come."""

    def kept(*, prompts: int, group: int) -> Collect:
        plain = gather(prompts=prompts, group=group)

        def collect(state: State, problem: Any, rng: Stream) -> Batch:
            batch = plain(state, problem, rng)
            state.tracker.write(batch.key, batch.score)
            return batch

        return collect

    return kept
