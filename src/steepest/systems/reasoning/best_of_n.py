"""Best of n: answer many times and give one of the answers. Nothing is trained; what all that train are judged by.

Paper.  Wang et al., Self-Consistency Improves Chain of Thought Reasoning in Language Models, 2022. arXiv 2203.11171; pass@k:
        Chen et al., Evaluating Large Language Models Trained on Code, 2021. arXiv 2107.03374.
Claim.  The answer that most of several samples give is right more often than one sample.
Idea.   of n answers y_i say argmax_a sum_i 1[a_i = a] (majority), or argmax_i score_i
State.  policy: the model, as it began
Note.   A step asks `prompts` prompts and reports what was found; no weight moves. ``state.policy`` answers as the vote does, so
        that an evaluation is one of the vote. Asked for the greedy answer it gives that, which no vote can change.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ...collectors.experience import positive
from ...collectors.generate import generate, recognised
from ...core.batch import Batch
from ...core.problem import Language, Prompts
from ...core.state import State
from ...core.stream import Stream
from ...core.system import System
from ...models.build import policy_for
from ...models.weights import Weights
from ...problems.symbolic import pass_at_k
from ...selection import voting

Choose = Callable[[Batch], Tensor]


def by_majority(batch: Batch) -> Tensor:
    """The answer that most give."""
    return voting.majority(batch.info["kind"], batch.key)  # <- the idea


def by_likelihood(batch: Batch) -> Tensor:
    """The answer with the greatest mean log-probability of its tokens."""
    return voting.best_of_n((batch.logp * batch.mask).sum(1) / batch.length, batch.key)  # type: ignore[operator]


class Voter(nn.Module):
    """A policy that answers `count` times and gives the answer that `choose` picks."""

    def __init__(self, inner: nn.Module, problem: Language, count: int, choose: Choose):
        super().__init__()
        self.inner, self.problem, self.count, self.choose = inner, problem, count, choose

    def act(self, obs: dict[str, Tensor], generator: torch.Generator, greedy: bool = False) -> tuple[Tensor, Tensor]:
        """Answers: tokens [N, T] and mask [N, T]."""
        inner: Any = self.inner
        if greedy or self.count == 1:
            return inner.act(obs, generator, greedy)
        key = torch.arange(len(obs["ids"]), device=obs["ids"].device).repeat_interleave(self.count)
        asked = {name: x[key] for name, x in obs.items()}
        tokens, mask, logp = inner.sample(asked, generator)
        prompts = Prompts(asked["ids"].cpu(), asked["mask"].cpu(), torch.zeros(len(key), dtype=torch.long))
        kind = self.problem.kinds(prompts, tokens.cpu(), mask.cpu())
        told = Batch(asked, tokens, logp, torch.zeros_like(mask), mask, key, info={"kind": kind.to(key.device)})
        chosen = self.choose(told)
        return tokens[chosen], mask[chosen]


def best_of_n(
    *, count: int = 40, choose: Choose = by_majority, prompts: int = 16, temperature: float = 0.7, right: float = 1.0,
    model: str | Weights | None = None,
) -> System:  # fmt: skip
    """One answer out of many, with a model that stays as it is.

    count        answers to each prompt (Wang et al.: 40)
    choose       batch -> the row of each prompt, which must not look at scores: `by_majority`, or `by_likelihood`
    prompts      prompts a step
    temperature  of sampling (Wang et al.: 0.5 to 0.7)
    right        an answer with at least this score is right
    model        a folder or hub id of weights, or a configuration; None: the problem's own
    """
    positive(count=count, prompts=prompts)
    gather = recognised(generate)(prompts=prompts, group=count)

    def init(problem: Any, rng: Stream) -> State:
        inner = policy_for(problem, rng / "policy", model=model, temperature=temperature)
        return State(policy=Voter(inner.requires_grad_(False), problem, count, choose))

    def collect(state: State, problem: Any, rng: Stream) -> Batch:
        actor = State(policy=state.policy.inner)
        batch = gather(actor, problem, rng)
        rows = torch.arange(prompts, device=batch.key.device).repeat_interleave(count)  # a prompt may be drawn twice
        return batch.having(key=rows, logp=actor.policy.logp(batch.obs, batch.action, batch.mask))

    def learn(state: State, batch: Batch, rng: Stream) -> dict[str, Any]:
        hits = (batch.score >= right).view(prompts, count).sum(1)
        found = {f"pass@{k}": float(pass_at_k(count, hits, k).mean()) for k in sorted({1, count})}
        return {"score": float(batch.score.mean()), "chosen": float(batch.score[choose(batch)].mean()), **found}

    return System(init, collect, learn)
