"""Easy to hard: a verifier of steps that saw labels of easy prompts alone is the reward on hard ones.

Paper.  Sun et al., Easy-to-Hard Generalization: Scalable Alignment Beyond Human Supervision, 2024. arXiv 2403.09472.
Claim.  Labelled on easy problems, a verifier of steps ranks answers to hard ones better than a verifier of outcomes or a vote.
Idea.   v_t = chance that step t is right, learned on easy prompts;  reward of step t: min(v_t, m) - m + bonus / steps, m the
        least score before it;  at the end 1[right] where a label exists, else a constant
State.  as ppo, the verifier (`verifier`) and its Adam
Note.   The rewards are those of the authors' code (Edward-Sun/easy-to-hard, math_rl_utils.py: scheme `min`, bound 0.5, bonus and
        constant 0.25), without its penalty for a wrong form; there the text behind the last step is not scored, here it is a
        step. No fine-tuning on easy demonstrations comes first. `hard`, `majority` and `voted` are reported, not learned from.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...collectors.generate import answers, asked_of, repeat
from ...collectors.steps import at_once, split
from ...core import Batch, Prompts, State, Stream, System, extends
from ...core.batch import at_end
from ...credit.steps import falls, worst
from ...engines.verifying import StepObjective
from ...models.verifier import StepVerifier
from ...optimize.epochs import Epochs
from ...selection.voting import majority, weighted_majority
from ..on_policy.ppo import ppo

DRAWS = 100  # times that prompts are drawn until enough of them are easy


def easy_prompts(problem: Any, count: int, easy: int, rng: Stream) -> Prompts:
    """`count` prompts whose category is below `easy`: no other is labelled. Raises ValueError where they are too rare."""
    found = list[Prompts]()
    for draw in range(DRAWS):
        some = problem.prompts(count, (rng / draw).torch())
        rows = problem.category(some.key) < easy
        found.append(Prompts(some.ids[rows], some.mask[rows], some.key[rows]))
        if sum(len(part.key) for part in found) >= count:
            return Prompts(*(torch.cat([getattr(part, x) for part in found])[:count] for x in ("ids", "mask", "key")))
    raise ValueError(f"fewer than {count} of {DRAWS * count} prompts have a category below easy={easy}: raise it")


def rewarded(state: State, batch: Batch, known: Tensor, bound: float, bonus: float, unknown: float) -> Batch:
    """The rewards of the verifier, and at the end that of the label where it is `known` [N]."""
    step = batch.extra["step"]
    score = state.verifier.score(batch.obs, batch.action, step)
    end = at_end(torch.where(known, batch.score, unknown), batch.mask)
    reward = falls(score, step, bound=bound) + bonus * step / step.sum(1, keepdim=True) + end  # <- the idea
    return batch.having(reward=reward, extra={}, info={**batch.info, "verified": float(worst(score, step).mean())})


def votes(state: State, problem: Any, batch: Batch, hard: Tensor, group: int) -> dict[str, float]:
    """How often the answers to hard prompts are right: one of them, what most say, what the verifier's vote says."""
    if not bool(hard.any()):
        return {}
    kind = problem.kinds(asked_of(batch), batch.action.cpu(), batch.mask.cpu()).to(hard.device)[hard]
    key = torch.arange(len(batch), device=hard.device)[hard] // group
    step, right = batch.extra["step"][hard], batch.score[hard]
    rows = batch.rows(hard.nonzero().squeeze(1))
    score = worst(state.verifier.score(rows.obs, rows.action, step), step)
    chosen = {"hard": torch.arange(len(key)), "majority": majority(kind, key), "voted": weighted_majority(kind, key, score)}
    return {name: float(right[row].mean()) for name, row in chosen.items()}


@extends(ppo, without=("envs", "horizon", "normalize", "width", "depth"))
def easy_to_hard(
    *, easy: int = 1, fit: int = 100, fit_lr: float = 2e-5, process: bool = True, bound: float = 0.5, bonus: float = 0.25,
    unknown: float = 0.25, prompts: int = 64, group: int = 8, discount: float = 1.0, kl: float = 0.01, lr: float = 2e-5,
    **options: Any,
) -> System:  # fmt: skip
    """A verifier from easy prompts, then proximal policy optimization on its rewards for hard ones.

    easy      prompts of so many categories, from the easiest, have labels (``category(key)`` of the problem)
    fit       first training steps, in which the verifier learns on easy prompts; the policy learns on all in those after
    fit_lr    learning rate of the verifier's Adam (authors' recipe: 2e-5)
    process   the verifier is taught every step (a process reward model); False: the outcome alone, at the end of an answer
    bound     a step costs nothing while its score is above this (authors' recipe: 0.5)
    bonus     reward that an answer's steps share (authors' code: 0.25)
    unknown   reward at the end of an answer that has no label (authors' code: 0.25)
    prompts   prompts a step
    group     answers to each
    discount  of rewards, per token
    kl        of the estimated divergence from the first policy, a loss term (authors' recipe: 0.01, in the reward)
    lr        learning rate of Adam (authors' recipe: 2e-5)
    """
    if easy < 1 or fit < 1 or not fit_lr > 0 or not 0 < bound <= 1 or prompts < 2:
        raise ValueError(
            "easy and fit must be at least 1, prompts at least 2, fit_lr positive and bound in (0, 1], not "
            f"{easy}, {fit}, {prompts}, {fit_lr} and {bound}"
        )
    actor = ppo(prompts=prompts, group=group, discount=discount, kl=kl, lr=lr, **options)
    labelled, update = split if process else at_once, Epochs(optimizer="verifier")

    def init(problem: Any, rng: Stream) -> State:
        state = actor.init(problem, rng)
        state.verifier = StepVerifier(state.policy, rng / "verifier")
        state.optimizers["verifier"] = torch.optim.Adam(state.verifier.parameters(), fit_lr)
        return state

    def collect(state: State, problem: Any, rng: Stream) -> Batch:
        if state.step < fit:
            asked = easy_prompts(problem, prompts, easy, rng / "prompts")
            return labelled(problem, answers(state, problem, repeat(asked, group), rng))
        asked = repeat(problem.prompts(prompts, (rng / "prompts").torch()), group)
        batch = labelled(problem, answers(state, problem, asked, rng))
        known = (problem.category(asked.key) < easy).to(batch.mask.device)
        told = votes(state, problem, batch, ~known, group)
        made = rewarded(state, batch, known, bound, bonus, unknown)
        return made.having(info={**made.info, **told})

    def learn(state: State, batch: Batch, rng: Stream) -> dict[str, Any]:
        if state.step >= fit:
            return actor.learn(state, batch, rng)
        told = update(state, StepObjective(), batch.having(target=batch.extra["right"]), rng)
        return {"score": float(batch.score.mean()), **told}

    return System(init, collect, learn)
