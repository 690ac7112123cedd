"""Compute-optimal test-time scaling: which way of searching for an answer to take, learned for each difficulty of a prompt.

Paper.  Liu et al., Can 1B LLM Surpass 405B LLM? Rethinking Compute-Optimal Test-Time Scaling, 2025. arXiv 2502.06703.
Claim.  The best strategy depends on policy, verifier, difficulty and budget; chosen by them it beats any one strategy for all.
Idea.   strategy(bin) = argmax over best of N, beam search, DVTS of the accuracy on other prompts of the bin; bins by the rate of
        right answers of one sample: at least 1/2, 1/10 to 1/2, less
State.  policy: the model, as it began; the verifier (`verifier`) and its Adam; right and asked of each bin and strategy (`tally`)
Note.   The verifier learns from the policy's own answers, whose steps the problem labels. Prompts on which strategies are compared
        are never those on which the choice is judged. Sizes of policies are the caller's to compare (`model`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ...collectors.beams import searched
from ...collectors.generate import answers, asked_of, generate, repeat
from ...collectors.steps import stepped
from ...core.batch import Batch
from ...core.state import State
from ...core.stream import Stream
from ...core.system import System
from ...credit.steps import worst
from ...engines.verifying import StepObjective
from ...memory.table import Table
from ...models.build import policy_for
from ...models.verifier import StepVerifier
from ...models.weights import Weights
from ...optimize.epochs import Epochs
from ...selection.strategies import best_in_bin, difficulty, halves
from ...selection.voting import weighted_majority

STRATEGIES = ("best of n", "beam search", "DVTS")
BINS = ("easy", "medium", "hard")


def compute_optimal_tts(
    *, budget: int = 16, branch: int = 4, fit: int = 100, fit_lr: float = 1e-3, prompts: int = 32, group: int = 8, probes: int = 8,
    rate: Callable[[Tensor, Tensor], Tensor] = worst, vote: Callable[[Tensor, Tensor, Tensor], Tensor] = weighted_majority,
    temperature: float = 0.7, model: str | Weights | None = None,
) -> System:  # fmt: skip
    """Strategies of one budget side by side, with a model that stays as it is.

    budget       answers that are written at once to each prompt, N (paper: 1 to 256)
    branch       extensions of each beginning in beam search and DVTS, M (paper: 4); with a smaller budget, the budget
    fit          first steps, in which the verifier learns
    fit_lr       learning rate of its Adam
    prompts      prompts a step
    group        answers to each while the verifier learns
    probes       further answers to each prompt, from which its difficulty is told
    rate         (scores, steps) -> the score of an answer: `worst`, `last` or `average` of `credit.steps`
    vote         (answer, prompt, score) -> the row that is given to each prompt
    temperature  of sampling (paper: 0.7)
    model        a folder or hub id of weights, or a configuration; None: the problem's own
    """
    wide = min(branch, budget)
    if min(budget, branch, fit, probes) < 1 or not fit_lr > 0 or budget % wide:
        raise ValueError(
            "budget, branch, fit and probes must be at least 1, fit_lr positive and budget a multiple of branch, not "
            f"{budget}, {branch}, {fit}, {probes} and {fit_lr}"
        )
    plans = ({"trees": budget}, {"keep": budget // wide, "branch": wide}, {"trees": budget // wide, "branch": wide})
    learning, update = stepped(generate)(prompts=prompts, group=group), Epochs(optimizer="verifier")

    def init(problem: Any, rng: Stream) -> State:
        policy = policy_for(problem, rng / "policy", model=model, temperature=temperature)
        verifier, places = StepVerifier(policy, rng / "verifier"), len(BINS) * len(STRATEGIES)
        state = State(policy=policy.requires_grad_(False), verifier=verifier, tally=Table(places, right=0, asked=0))
        state.optimizers["verifier"] = torch.optim.Adam(state.verifier.parameters(), fit_lr)
        return state

    def judge(state: State, batch: Batch) -> Tensor:
        step = batch.extra["step"]
        return rate(state.verifier.score(batch.obs, batch.action, step), step)

    def collect(state: State, problem: Any, rng: Stream) -> Any:
        if state.step < fit:
            return learning(state, problem, rng)
        asked, told = problem.prompts(prompts, (rng / "prompts").torch()), dict[str, float]()
        bins = difficulty(answers(state, problem, repeat(asked, probes), rng / "probes").score.view(prompts, -1).mean(1))
        right = []
        for name, plan in zip(STRATEGIES, plans, strict=True):
            found = searched(state, problem, asked, rng / "search", judge=judge, **plan)
            kind = problem.kinds(asked_of(found), found.action.cpu(), found.mask.cpu()).to(bins.device)
            rows = torch.arange(prompts, device=bins.device).repeat_interleave(budget)
            right.append(found.score[vote(kind, rows, judge(state, found))])
            told[f"{name} tokens"] = found.info["written"]
        return {"bins": bins, "right": torch.stack(right, 1), "first": halves(asked.key).to(bins.device), "told": told}

    def learn(state: State, batch: Any, rng: Stream) -> dict[str, Any]:
        if state.step < fit:
            told = update(state, StepObjective(), batch.having(target=batch.extra["right"]), rng)
            return {"score": float(batch.score.mean()), **told}
        bins, right, first = batch["bins"], batch["right"], batch["first"]
        place = bins[:, None] * len(STRATEGIES) + torch.arange(len(STRATEGIES), device=bins.device)
        state.tally.write(place[first].flatten(), "right", right[first].flatten(), "sum")
        state.tally.write(place[first].flatten(), "asked", torch.ones_like(right[first]).flatten(), "sum")
        table = (x.view(len(BINS), -1) for x in (state.tally.right, state.tally.asked))
        chosen = right.gather(1, best_in_bin(*table)[bins][:, None]).squeeze(1)  # <- the idea
        judged = {"chosen": chosen, **dict(zip(STRATEGIES, right.unbind(1), strict=True))}
        rest = {name: float(x[~first].mean()) for name, x in judged.items()} if bool((~first).any()) else {}
        return {"score": float(right.mean()), **rest, **batch["told"]}

    return System(init, collect, learn)
