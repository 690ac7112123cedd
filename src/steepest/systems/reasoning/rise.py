"""RISE: solve, then judge one's own answers, and learn from both at once.

Paper.  Liu et al., Trust, But Verify: A Self-Verification Approach to Reinforcement Learning with Verifiable Rewards, 2025.
        arXiv 2505.13445.
Claim.  It checks its own answers far more accurately than PPO on problems alone, and solves no worse.
Idea.   beside answers y to x, verdicts on (x, y), rewarded if they name the verifier's score of y; one PPO update on both
State.  as ppo
Note.   Which answers are judged is drawn so that every score has the same weight; the paper does not say. One verdict on each.
        Share, learning rate and discount are those of the authors' scripts (xyliu-cs/RISE); there the critic has 9e-6, and a
        divergence is in the reward, which is left out here. The problem must be able to ask for verdicts (`to_check`).
"""

from __future__ import annotations

from typing import Any

from ...collectors.asking import choose
from ...collectors.generate import answers, asked_of, generate, joined
from ...core import Batch, State, Stream, System, extends
from ...core.problem import Prompts
from ..on_policy.ppo import ppo


@extends(ppo, without=("collect", "envs", "horizon", "normalize", "width", "depth"))
def rise(
    *, share: float = 0.125, prompts: int = 1024, group: int = 8, lr: float = 5e-7, discount: float = 1.0, decay: float = 1.0,
    epochs: int = 1, minibatches: int = 8, **options: Any,
) -> System:  # fmt: skip
    """PPO on answers and on verdicts on them. For texts.

    share        verdicts, as a share of the step's answers, in [0, 1] (authors' script: 128 to 1,024)
    prompts      prompts a step (authors' script: 1,024)
    group        answers to each (authors' script: 8)
    lr           learning rate of Adam (authors' script: 5e-7)
    discount     of rewards, per token
    decay        of the advantage's trace, lambda
    epochs       passes over a step's answers and verdicts
    minibatches  optimizer steps of a pass (authors' script: 8)
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share must lie in [0, 1], not {share}: no answer is judged twice")
    solve = generate(prompts=prompts, group=group)

    def collect(state: State, problem: Any, rng: Stream) -> Batch:
        if not hasattr(problem, "to_check"):
            raise TypeError(f"{type(problem).__name__} cannot ask for verdicts on answers (`to_check`): CheckedSum can")
        solved = solve(state, problem, rng)
        count, (_, kind, size) = round(share * len(solved)), solved.score.unique(return_inverse=True, return_counts=True)
        if not count or len(size) == 1:  # answers that are all alike teach nobody to tell them apart
            return solved
        rows = choose(1 / size[kind].float().cpu(), count, rng / "judged").to(kind.device)
        said = solved.rows(rows)
        asked: Prompts = problem.to_check(asked_of(said), said.action.cpu(), said.mask.cpu())
        judged = answers(state, problem, asked, rng / "verdicts")  # <- the idea
        told = {"score_solved": float(solved.score.mean()), "score_verdict": float(judged.score.mean())}
        return joined(solved, judged).having(info=solved.info | told)

    return ppo(
        collect=collect, prompts=prompts, group=group, lr=lr, discount=discount, decay=decay, epochs=epochs,
        minibatches=minibatches, **options,
    )  # fmt: skip

