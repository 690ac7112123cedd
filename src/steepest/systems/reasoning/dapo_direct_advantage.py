"""Direct advantage: a critic of steps first, then a policy that is fitted to the critic's advantages and never meets it again.

Paper.  Liu et al., Improving Multi-Step Reasoning Abilities of Large Language Models with Direct Advantage Policy Optimization
        (there DAPO), 2024. arXiv 2412.18279.
Claim.  From the same answers of the first policy, regression on the advantages of steps learns more than regression on outcomes.
Idea.   minimise (b log pi/ref (a | s) - A)^2 / 2,  A = V(s + a) - V(s) over its standard deviation;  s a text of whole steps, a the
        next step, V a chance fitted beforehand to how often the reference ends right from s
State.  policy, the frozen reference (`reference`), the critic (`verifier`), an Adam of each
Note.   Answers are drawn from the frozen reference in every step instead of once: the data stay those of the first policy. The
        value of an answer that has ended is its score. The paper says that advantages are scaled, not how: here by the standard
        deviation of a step's data. The loss is a multiple of the square, so that b does not change the first step.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...collectors.generate import answers, repeat
from ...collectors.prefixes import alone, continued, next_end, some_state
from ...collectors.steps import at_once, split
from ...core.batch import Batch
from ...core.state import State
from ...core.stream import Stream
from ...core.system import System
from ...engines.policy_gradient import policy_gradient
from ...engines.verifying import StepObjective
from ...losses import from_reference, regress, sequence_sum
from ...models.build import answer_state
from ...models.verifier import StepVerifier
from ...models.weights import Weights
from ...optimize.epochs import Epochs


def read(batch: Batch) -> Batch:
    """What stands before each action, as a text whose last token is to be scored."""
    obs = {name: x[:, :-1] for name, x in batch.obs.items()}
    last, one = batch.obs["ids"][:, -1:], batch.mask.new_ones(len(batch), 1)
    return Batch(obs=obs, action=last, logp=None, reward=one, mask=one, key=batch.key, extra={"step": one})


def advantage(state: State, batch: Batch) -> Tensor:
    before, last = read(batch), batch.length.long()[:, None] - 1
    here = state.verifier.score(before.obs, before.action, before.mask).squeeze(1)
    there = state.verifier.score(batch.obs, batch.action, batch.mask).gather(1, last).squeeze(1)
    gained = torch.where(batch.info["ended"], batch.score, there) - here  # <- the idea
    return (gained / (gained.std() + 1e-8))[:, None]


def dapo_direct_advantage(
    *, beta: float = 0.01, fit: int = 100, fit_lr: float = 1e-5, lr: float = 5e-7, prompts: int = 64, actions: int = 8,
    epochs: int = 1, minibatches: int = 1, micro: int | None = None, max_grad_norm: float = 1.0, temperature: float = 1.0,
    model: str | Weights | None = None, whole: bool = False,
) -> System:  # fmt: skip
    """Offline regression on the advantages of steps.

    beta           the price of a nat of KL(pi || reference), in standard deviations of the advantage
    fit            first training steps, in which the critic learns; the policy learns in those after
    fit_lr         learning rate of the critic's Adam
    lr             learning rate of the policy's Adam
    prompts        prompts a step: of an answer to each, one state is drawn
    actions        continuations from each state, at least 2: how many end right is what the critic learns, their first steps are
                   what the policy learns
    epochs         passes over a step's data, of the critic and of the policy
    minibatches    optimizer steps of a pass
    micro          rows whose gradient is computed at once; None: a whole minibatch. The gradient is the same
    max_grad_norm  the gradient is scaled down to this norm
    temperature    of sampling
    model          a folder or hub id of weights, or a configuration; None: the problem's own
    whole          an answer is one step: the regression on outcomes that the paper compares with
    """
    if not min(beta, fit_lr) > 0 or fit < 1 or actions < 2:
        raise ValueError(
            f"beta and fit_lr must be positive, fit at least 1 and actions at least 2 (an advantage compares them), not {beta}, "
            f"{fit_lr}, {fit} and {actions}"
        )

    steps = at_once if whole else split

    def init(problem: Any, rng: Stream) -> State:
        state = answer_state(problem, rng, lr=lr, reference=True, model=model, temperature=temperature)
        state.verifier = StepVerifier(state.policy, rng / "verifier")
        state.optimizers["verifier"] = torch.optim.Adam(state.verifier.parameters(), fit_lr)
        return state

    def collect(state: State, problem: Any, rng: Stream) -> Batch:
        first, asked = State(policy=state.reference), problem.prompts(prompts, (rng / "prompts").torch())
        pool = steps(problem, answers(first, problem, asked, rng / "answers"))
        length = some_state(pool.extra["step"], (rng / "states").torch()).repeat_interleave(actions)
        begun = pool.action.repeat_interleave(actions, 0)
        whole = steps(problem, continued(first, problem, repeat(asked, actions), begun, length, rng / "actions"))
        end = next_end(whole.extra["step"], length)
        told = {**whole.info, "ended": end + 1 == whole.length}
        return alone(whole, length, end).having(key=torch.arange(len(whole), device=end.device) // actions, info=told)

    update = Epochs(epochs, minibatches, micro, max_grad_norm)
    actor = policy_gradient(
        init=init, collect=collect, credit=advantage, loss=from_reference(regress(scale=1 / beta)), reduce=sequence_sum,
        update=update,
    )  # fmt: skip
    critic = Epochs(epochs, minibatches, micro, max_grad_norm, optimizer="verifier")

    def learn(state: State, batch: Batch, rng: Stream) -> dict[str, Any]:
        if state.step >= fit:
            return actor.learn(state, batch, rng)
        chance = batch.score.view(-1, actions).mean(1, keepdim=True)
        states = read(batch.rows(slice(None, None, actions))).having(target=chance)
        return {"score": float(chance.mean()), **critic(state, StepObjective(), states, rng)}

    return System(init, collect, learn)
