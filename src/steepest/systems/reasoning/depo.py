"""DEPO: choose a fifth of the prompts once, then in every epoch answer only those of them with something left to explore.

Paper.  Tang et al., Towards High Data Efficiency in Reinforcement Learning with Verifiable Reward, 2025. arXiv 2509.01321.
Claim.  With a fifth of the prompts and fewer answers it becomes as good as GRPO on all of them.
Idea.   before: argmax det of diag(w)^1/2 S diag(w)^1/2, w PageRank on similarities S of prompts, then draws ~ N(accuracy; 1/2, s);
        each epoch: of a batch the a with the highest mean of |A| H over the last 3 epochs, and the r that were asked least
State.  as grpo, and `chosen` (the prompts, in order), `explored` (explorability and uses of each prompt)
Note.   As in the authors' code (txy77/DEPO, rollout_purning.py and its configuration): a = 1 - 0.03 an epoch, at least 0.4; three
        epochs; a wrong answer counts only up to 1.5 times the entropy of the right ones; what was never asked always is. There r
        fills a batch up to the number of devices, here it is a share. The offline part is not in that code: S is the cosine of the
        policy's last states, half of the prompts pass the determinant, the spread is a guess. Batches keep their members, so that
        in 1 / r epochs the least number of uses grows by 1. The problem is a known set of prompts.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ...collectors.asking import choose, pool
from ...collectors.generate import answers, generate, repeat
from ...core import Batch, Prompts, State, Stream, System, extends, holding
from ...core.problem import Pool
from ...memory.latest import Latest
from ...memory.recent import Recent
from ...selection.curation import explorability, greedy_dpp, most_explorable, normal_weight, pagerank
from .grpo import grpo

CHUNK = 128  # prompts that are asked at once
FLOOR = 0.4  # of the share that is kept (authors' code)


@extends(grpo, without=("collect", "select", "after"))
def depo(
    *, keep: float = 0.2, diverse: float = 0.5, draws: int = 8, spread: float = 0.25, decay: float = 0.03, replay: float = 0.1,
    window: int = 3, most: float = 1.5, right: float = 1.0, prompts: int = 16, **options: Any,
) -> System:  # fmt: skip
    """Group relative policy optimization on prompts that are curated beforehand and pruned as it goes.

    keep     share of the prompts that is trained on (paper: 0.2)
    diverse  share of them that is left after those were taken out that are like others; at least keep
    draws    answers to each of these, before training, from which its accuracy is estimated
    spread   of the normal density around an accuracy of 1/2 by which prompts are drawn
    decay    of the share of a batch that is answered, an epoch; it begins at 1 and ends at 0.4 (authors' code: 0.03)
    replay   share of a batch, those asked least, that is answered whatever its score
    window   epochs over which a prompt's explorability is averaged (authors' code: 3)
    most     a wrong answer counts if its entropy is at most so many times that of the right ones (authors' code: 1.5)
    right    an answer with at least this score is right
    prompts  prompts of a batch, before it is pruned
    """
    if not 0 < keep <= diverse <= 1 or draws < 1 or not 0 <= decay <= 1 or not 0 < replay <= 1:
        raise ValueError(
            f"needs 0 < keep <= diverse <= 1, draws of at least 1, decay in [0, 1] and replay in (0, 1], not {keep}, {diverse}, "
            f"{draws}, {decay} and {replay}"
        )
    normal_weight(torch.zeros(1), spread=spread)  # refuses a spread that is none
    parent = grpo(
        collect=partial(generate, ask=partial(pruned, decay=decay, replay=replay)), select=unsure,
        after=partial(remember, most=most, right=right), prompts=prompts, **options,
    )  # fmt: skip
    return holding(
        parent, chosen=partial(curated, keep=keep, diverse=diverse, draws=draws, spread=spread, right=right),
        explored=lambda state, problem, rng: Recent(problem.size, window),
    )  # fmt: skip


@torch.no_grad()
def curated(
    state: State, problem: Any, rng: Stream, *, keep: float, diverse: float, draws: int, spread: float, right: float
) -> Latest:
    """The numbers of the prompts that are trained on, in the order of their draw, as the column `prompt`."""
    vectors = torch.cat([last_states(state, problem.pick(rows)) for rows in torch.arange(pool(problem).size).split(CHUNK)])
    similar = vectors @ vectors.T
    weight = pagerank(similar).sqrt()[:, None]
    unlike = greedy_dpp(weight * similar * weight.T, max(1, round(diverse * problem.size))).cpu()
    rate = torch.zeros(len(unlike))
    for rows in torch.arange(len(unlike)).split(CHUNK):
        tried = answers(state, problem, repeat(problem.pick(unlike[rows]), draws), rng / int(rows[0]))
        rate[rows] = (tried.score >= right).float().view(-1, draws).mean(1).cpu()
    drawn = choose(normal_weight(rate, spread=spread), min(len(unlike), max(1, round(keep * problem.size))), rng / "difficulty")
    memory = Latest(len(drawn), prompt=drawn[0])
    memory.write(torch.arange(len(drawn)), prompt=unlike[drawn])
    return memory


def last_states(state: State, asked: Prompts) -> Tensor:
    """What the policy's head reads behind each prompt, as a direction [P, hidden]."""
    obs = {"ids": asked.ids.to(state.device), "mask": asked.mask.to(state.device)}
    first = torch.full_like(obs["ids"][:, :1], state.policy.pad)
    return normalize(state.policy.states(obs, first, torch.ones_like(first, dtype=torch.float32)).double())


def pruned(state: State, problem: Pool, count: int, rng: Stream, *, decay: float, replay: float) -> Prompts:
    chosen = state.chosen.prompt
    epoch, place = divmod(state.step, -(-len(chosen) // count))
    keys = chosen[place * count : (place + 1) * count]
    share = max(FLOOR, 1 - decay * epoch)
    score, uses = state.explored.read(keys), state.explored.uses[keys]
    return problem.pick(keys[most_explorable(score, uses, share=share, replay=replay)].cpu())  # <- the idea


@torch.no_grad()
def unsure(state: State, batch: Batch) -> Batch:
    """The batch with the mean entropy of each answer's tokens, before the policy moves, as a column `unsure`."""
    spread = state.policy.logp_entropy(batch.obs, batch.action, batch.mask)[1]  # 0 where the mask is
    mean = spread.sum(1, keepdim=True) / batch.length[:, None]
    told = batch.info | {"asked": float(len(batch.key.unique()))}
    return batch.having(extra=batch.extra | {"unsure": mean * batch.mask}, info=told)


def remember(state: State, batch: Batch, *, most: float, right: float) -> None:
    good = batch.score >= right
    worth = explorability(batch.advantage[:, 0], batch.extra["unsure"][:, 0], good, batch.key, most=most)
    key, group = batch.key.unique(return_inverse=True)
    total, count = worth.new_zeros(len(key)).index_add_(0, group, worth), torch.bincount(group)
    state.explored.write(key, total / count)
