"""A problem, a policy and a system small enough to check by hand: four arms, three questions, one answer each.

Arm (question) pays 1, the others 0. Importable, so that a fresh process can rebuild it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from steepest.core import Batch, Problem, State, System
from steepest.credit import leave_one_out
from steepest.engines import policy_gradient
from steepest.losses import clip
from steepest.optimize import epochs


@dataclass(frozen=True)
class Arms(Problem):
    """Questions with one right arm each.

    questions  how many
    arms       how many to choose from
    """

    questions: int = 3
    arms: int = 4

    def evaluate(self, policy, rng):
        best = policy.logits.argmax(-1)
        return {"accuracy": float((best == torch.arange(self.questions)).float().mean())}


class Choice(nn.Module):
    """A softmax over arms for each question. obs [N] long, action [N, T] long."""

    markov = False

    def __init__(self, questions: int, arms: int):
        super().__init__()
        self.logits = nn.Parameter(0.1 * torch.randn(questions, arms))

    def logp(self, obs, action, mask):
        return self.logits.log_softmax(-1)[obs].gather(-1, action) * mask

    def logp_entropy(self, obs, action, mask):
        logp = self.logits.log_softmax(-1)[obs]
        return logp.gather(-1, action) * mask, -(logp.exp() * logp).sum(-1, keepdim=True) * mask


def toy_state(problem, rng, lr=0.1):
    with rng.fork():
        state = State(policy=Choice(problem.questions, problem.arms))
    state.optimizers["policy"] = torch.optim.Adam(state.policy.parameters(), lr)
    return state


def toy_collect(state, problem, rng):
    key = torch.arange(problem.questions).repeat_interleave(4)
    with torch.no_grad():
        action = torch.multinomial(state.policy.logits.softmax(-1)[key], 1, generator=rng.torch())
    mask = torch.ones(len(key), 1)
    return Batch(key, action, None, (action == key[:, None]).float(), mask, key)


def against_others(state, batch):
    return leave_one_out(batch.score, batch.key)[:, None]


def toy(*, lr: float = 0.1, passes: int = 2, **slots) -> System:
    """A group policy gradient on `Arms`.

    lr      learning rate
    passes  optimizer steps a batch
    """
    given = dict(
        init=lambda problem, rng: toy_state(problem, rng, lr),
        collect=toy_collect,
        credit=against_others,
        loss=clip(),
        update=epochs(passes, minibatches=2),
    )
    return policy_gradient(**(given | slots))
