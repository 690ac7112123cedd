"""CoPG: regress pairs of answers as REBEL does, but from the frozen reference: whoever gave the answers, the optimum is the same.

Paper.  Flet-Berliac et al., Contrastive Policy Gradient: Aligning LLMs on sequence-level scores in a supervised-friendly fashion,
        2024. arXiv 2406.19185.
Claim.  From answers that another policy gave it finds the best policy for the reward less the divergence; a policy gradient without
        ratios does not.
Idea.   minimise (r(y) - r(y') - beta [log pi/ref (y) - log pi/ref (y')])^2 over pairs of answers to one prompt, of any origin
State.  as grpo, and the frozen reference
Note.   Answers come from the reference unless `collect` says otherwise, as the paper's come from a fixed data set. All pairs of a
        group count. A batch in which every group agrees is skipped, also where the divergence alone would move the policy.
"""

from __future__ import annotations

from typing import Any

from ...collectors.generate import Gather, of_reference
from ...core.system import System, extends, holding
from ...credit import centred
from ...engines.answers import by_score
from ...losses import Reduce, from_reference, regress_pairs, sequence_sum
from ...models.build import as_it_began
from .grpo import grpo


@extends(grpo, without=("credit", "loss", "clip_range", "kl"))
def copg(
    *, beta: float = 0.1, group: int = 2, reduce: Reduce = sequence_sum, collect: Gather = of_reference(), **options: Any
) -> System:
    """Contrastive least squares on pairs of answers of any origin.

    beta     the price of a nat of KL(pi || reference), in reward
    group    answers to each prompt, all pairs of which count (paper: 2)
    reduce   how decisions are averaged; the square is the sum over an answer's
    collect  (prompts=, group=) -> a collector of answers; `generate` asks the policy itself
    """
    if not beta > 0:
        raise ValueError(f"beta must be positive, not {beta}: the optimum would not exist")
    objective = from_reference(regress_pairs(scale=1 / beta))  # <- the idea
    system = grpo(loss=objective, credit=by_score(centred), group=group, kl=0.0, reduce=reduce, collect=collect, **options)
    return holding(system, reference=as_it_began)
