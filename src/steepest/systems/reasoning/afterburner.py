"""Afterburner: rewrite a program so that it costs less, and learn from what the rewriting saved.

Paper.  Du et al., Afterburner: Reinforcement Learning Facilitates Self-Improving Code Efficiency Optimization, 2025.
        arXiv 2505.23387.
Claim.  Over rounds of rewriting GRPO on measured costs keeps saving, where imitation of better programs stops.
Idea.   the policy is shown (problem, best program, its cost); r = .2 form + .3 right + .5 right tanh((before - cost) / before)
State.  as grpo; with imitation a second Adam (`imitation`)
Note.   A cold start by imitation, then GRPO without KL, as in the authors' script (Elfsong/Afterburner, afterburner_train.sh: group
        32, 32 prompts, rate 1e-6). Their reward file is not in the repository: the weights and the form of the gain are the
        specification's guesses. Rounds are for tests; training shows programs as the problem draws them. DPO, which the paper
        compares with, is the system dpo. The problem says what an answer costs: ``measured(prompts, tokens, mask)``
        (`problems.straight.StraightLine`, whose costs are exact).
"""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor

from ...collectors.demonstrations import demonstrations
from ...collectors.experience import Collect
from ...collectors.generate import Gather, asked_of, generate
from ...core import Batch, State, Stream, System, extends
from ...core.batch import at_end
from ...credit.efficiency import efficiency
from ...engines.imitation import after_imitation
from .grpo import grpo


@extends(grpo, without=("collect",))
def afterburner(
    *, form: float = 0.2, right: float = 0.3, saved: float = 0.5, imitate: int = 0, imitate_lr: float = 1e-5, traces: int = 64,
    prompts: int = 32, group: int = 32, kl: float = 0.0, max_grad_norm: float = 1.0, **options: Any,
) -> System:  # fmt: skip
    """Group relative policy optimization of how much a program can be made cheaper.

    form           reward of an answer that is a program (guess: 0.2)
    right          reward of one that is right (guess: 0.3)
    saved          weight of the hyperbolic tangent of the share of the cost that a right one saves (guess: 0.5)
    imitate        steps of supervised fine-tuning on what the problem demonstrates, before (authors: some, as a cold start)
    imitate_lr     learning rate of Adam there (usual: 1e-5)
    traces         demonstrations a step there (usual: 64)
    prompts        programs to be made cheaper a step (authors' script: 32)
    group          answers to each, at least 2 (authors' script: 32)
    kl             of the estimated KL(pi || reference), a loss term (authors' script: 0)
    max_grad_norm  the gradient is scaled down to this norm
    """
    if min(form, right, saved) < 0 or not form + right + saved > 0:
        raise ValueError(f"form, right and saved must not be negative and not all be 0, not {form}, {right} and {saved}")
    gather = paid(partial(efficiency, weights=(form, right, saved)))
    system = grpo(collect=gather, prompts=prompts, group=group, kl=kl, max_grad_norm=max_grad_norm, **options)
    first = demonstrations(prompts=traces)
    return after_imitation(system, first, steps=imitate, lr=imitate_lr, max_grad_norm=max_grad_norm)


def paid(reward: Any) -> Gather:
    """Answers that earn reward(form, right, cost, before); reported are the shares of programs and of right ones, and how many of
    all answers are right and cheaper."""

    def gather(*, prompts: int, group: int) -> Collect:
        plain = generate(prompts=prompts, group=group)

        def collect(state: State, problem: Any, rng: Stream) -> Batch:
            batch = plain(state, problem, rng)
            found: tuple[Tensor, ...] = problem.measured(asked_of(batch), batch.action.cpu(), batch.mask.cpu())
            form, right, cost, before = found
            cheaper = right * (cost.median(1).values < before)
            told = {name: float(x.mean()) for name, x in (("form", form), ("right", right), ("cheaper", cheaper))}
            worth = reward(form, right, cost, before).to(batch.reward)  # <- the idea
            return batch.having(reward=at_end(worth, batch.mask), info=batch.info | told)

        return collect

    return gather
