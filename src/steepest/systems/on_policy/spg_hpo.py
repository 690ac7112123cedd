"""SPG: a classifier goes through a chain of growing dropout in one pass, and the policy gradient of the chain trains it.

Paper.  Li, Cheng and Gu, Sequential Policy Gradient for Adaptive Hyperparameter Optimization, 2025. arXiv 2506.15051.
Claim.  A trained model that is trained on with the chain, on the data that it knows, is more accurate than by plain fine-tuning.
Idea.   an episode is one example: replica t decides under dropout p_t, earns 1 if right and ends the episode if wrong;
        minimise - log pi_0(label) - sum_t G_t log pi_t(decision), G_t what is still earned
State.  policy (classifier and chain), one AdamW that decays the chain alone
Note.   Chain and end of an episode are as third parties summarise the paper (its code could not be reached); the reward and that
        replica 0 keeps its cross-entropy are a reading. Returns have no baseline: one would push away from what a mislabelled
        example is rightly taken for (see the claim). A decision is judged by its own probability: judged by the label's, with a
        baseline, moons and digits alike were unlearnt.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from ...core.batch import Batch
from ...core.state import State
from ...core.stream import Stream
from ...core.system import System
from ...engines.policy_gradient import policy_gradient
from ...losses import reinforce, sequence_sum
from ...models.classifier import Classifier, ReplicaChain
from ...optimize.epochs import Epochs
from ...problems.labelled import Labelled


def spg_hpo(
    *, drops: tuple[float, ...] = (0.1, 0.1, 0.2, 0.2), weight: float = 1.0, lr: float = 1e-3, decay: float = 0.01, batch: int = 64,
    pretrain: int = 300, hidden: int = 64,
) -> System:  # fmt: skip
    """Fine-tuning by the policy gradient of a chain of replicas. For labelled examples.

    drops     dropout of each replica, on top of that of the ones before
    weight    of the chain's policy gradient; 0: plain fine-tuning
    lr        learning rate of AdamW, before and while the chain is there
    decay     weight decay of the replicas' own layers
    batch     examples a step
    pretrain  steps of plain training, in `init`, before the chain is attached
    hidden    units of both hidden layers
    """
    if weight < 0 or not lr > 0 or decay < 0 or min(batch, hidden) < 1 or pretrain < 0:
        raise ValueError(
            f"weight, decay and pretrain must not be negative, lr positive, batch and hidden at least 1, not weight={weight}, "
            f"decay={decay}, pretrain={pretrain}, lr={lr}, batch={batch}, hidden={hidden}"
        )

    def init(problem: Labelled, rng: Stream) -> State:
        data = problem.data
        with (rng / "nets").fork():
            base = Classifier(data.x.shape[1], data.classes, hidden)
            chain = ReplicaChain(base, drops)
        optimizer, generator = torch.optim.AdamW(base.parameters(), lr, weight_decay=0.0), (rng / "pretrain").torch()
        for _ in range(pretrain):
            index = torch.randint(len(data), (batch,), generator=generator)
            optimizer.zero_grad(set_to_none=True)
            cross_entropy(base(data.x[index]), data.y[index]).backward()
            optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        state = State(policy=chain)
        groups: list[dict[str, Any]] = [{"params": [*base.parameters()], "weight_decay": 0.0}]
        groups.append({"params": [*chain.links.parameters()]})
        state.optimizers["policy"] = torch.optim.AdamW(groups, lr, weight_decay=decay)
        return state

    @torch.no_grad()
    def collect(state: State, problem: Labelled, rng: Stream) -> Batch:
        data, device = problem.data, state.device
        index = torch.randint(len(data), (batch,), generator=(rng / "examples").torch())
        label = data.y[index].to(device)[:, None]
        obs = {"x": data.x[index].to(device), "keep": state.policy.keep(batch, (rng / "dropout").torch(device))}
        decided = state.policy.distribution(obs).mode()[:, 1:]
        right = (decided == label).float()
        running = torch.cat([torch.ones_like(right[:, :1]), right[:, :-1].cumprod(1)], 1)  # until the first wrong decision
        first = torch.ones_like(right[:, :1])  # replica 0 is told the label, and earns nothing
        return Batch(
            obs, torch.cat([label, decided], 1), None, torch.cat([0 * first, right * running], 1), torch.cat([first, running], 1),
            index.to(device), info={"right": float(right[:, 0].mean()), "survived": float((right * running)[:, -1].mean())},
        )  # fmt: skip

    def credit(state: State, batch: Batch) -> Tensor:
        to_go = batch.reward.flip(1).cumsum(1).flip(1)[:, 1:]
        return torch.cat([torch.ones_like(to_go[:, :1]), weight * to_go], 1)  # <- the idea


    update = Epochs(1, 1, max_norm=float("inf"))
    return policy_gradient(init=init, collect=collect, credit=credit, loss=reinforce(), reduce=sequence_sum, update=update)
