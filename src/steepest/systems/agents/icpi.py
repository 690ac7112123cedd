"""ICPI: a frozen language model that reads its own past imagines the future of every action, and the best one is taken.

Paper.  Brooks, Walls, Lewis and Singh, Large Language Models can Implement Policy Iteration, 2022. arXiv 2210.03821.
Claim.  With no gradient, in-context policy iteration reaches good policies in fewer steps than tabular Q-learning.
Idea.   act = argmax_a Q(s, a); Q(s, a) = sum_t gamma^t r_t of a rollout in which one model, prompted with past
        transitions, is the world and, prompted with recent good trajectories, is the policy, which so improves too
State.  policy.memory: the trajectories of the past; policy.meter: calls and tokens so far
Note.   One training step is one episode. Questions that do not depend on each other (of all actions; end, reward
        and next state) share a request. Without an endpoint the library's scripted model answers. The authors' runs
        count every trajectory as a success: threshold=-inf.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ...core.batch import Batch
from ...core.state import State
from ...core.stream import Stream
from ...core.system import System
from ...memory.trajectories import TrajectoryStore
from ...models.chat import ChatClient, Meter, Question, ask
from ...models.in_context import Past, Reading
from ...problems.scripted import MODEL, InductionBrain, scripted
from ...problems.textmdp import TextMDP


class InContext(nn.Module):
    """The policy whose parameters are its memories, read into prompts. Options: see `icpi`."""

    def __init__(
        self, problem: TextMDP, client: Callable[[], ChatClient], reading: Reading, sampling: dict[str, Any],
        capacity: int, min_successes: int, argmax: bool,
    ):  # fmt: skip
        super().__init__()
        self.problem, self.client, self.reading, self.sampling = problem, client, reading, sampling
        self.min_successes, self.argmax = min_successes, argmax
        example = torch.zeros(len(problem.sizes))
        self.memory = TrajectoryStore(capacity, problem.horizon, obs=example, action=torch.zeros((), dtype=torch.long))
        self.meter = Meter()

    def past(self) -> Past:
        def model(questions: list[Question], rng: Stream) -> list[Any]:
            return ask(self.client(), self.meter, questions, rng, stop=self.problem.stop, **self.sampling)

        return Past(self.problem, self.memory.read(), self.reading, model)

    def act(self, obs: Tensor, generator: torch.Generator, greedy: bool = False) -> Tensor:
        """obs [B, d] -> action [B] long. Random until all actions were tried and one episode succeeded; greedy: then not."""
        rng = Stream(int(torch.randint(2**62, (), generator=generator, device=generator.device)))
        draw, past = (rng / "choice").numpy(), self.past()
        action = draw.integers(len(self.problem.actions), size=len(obs))
        trust = 1.0 if greedy else 1 / (1 + math.exp(-2 * (past.successes - self.min_successes)))
        asks = (draw.random(len(obs)) < trust).nonzero()[0]
        if past.ready and len(asks):
            states = [self.problem.write_state(tuple(row)) for row in obs[asks].long().tolist()]
            if self.argmax:
                value = past.values(states, rng / "imagine")
                best = value == value.max(1, keepdims=True)
                action[asks] = (best * draw.random(value.shape)).argmax(1)  # <- the idea (ties are random)
            else:
                action[asks] = past.choices(states, rng / "imitate")
        return torch.as_tensor(action, device=obs.device)


def icpi(
    *, endpoint: str | None = None, model: str = "gpt-3.5-turbo-instruct", noise: float = 0.0, recent: int = 8,
    threshold: float = 0.0, min_successes: int = 3, prompt_size: int = 64, max_resamples: int = 3, max_steps: int | None = None,
    temperature: float = 0.1, max_tokens: int = 100, capacity: int = 1024, max_calls: int | None = None, argmax: bool = True,
) -> System:  # fmt: skip
    """In-context policy iteration on a TextMDP with named actions.

    endpoint       an OpenAI-compatible server up to /v1; None: the library's scripted model
    model          its name there
    noise          share of random answers of the scripted model
    recent         successful trajectories that the rollout policy reads (episodes; authors' code)
    threshold      a trajectory succeeds if its discounted return is above it (authors' code; -inf: all do, as in their runs)
    min_successes  successes at which half the actions are the model's (authors' code)
    prompt_size    examples in a prompt
    max_resamples  prompts tried until an answer is valid (authors' code)
    max_steps      longest imagined future (steps); None: the problem's horizon
    temperature    of the model's answers (authors' code)
    max_tokens     longest answer (tokens; authors' code)
    capacity       trajectories remembered
    max_calls      budget of completions, over the whole life of the State; None: any number
    argmax         False: act as the rollout policy does, with no look ahead (the paper's ablation)
    """
    if min(max_resamples, max_tokens) < 1:
        raise ValueError(f"max_resamples and max_tokens must be at least 1, not {max_resamples} and {max_tokens}")
    sampling = {"attempts": max_resamples, "temperature": temperature, "max_tokens": max_tokens}

    def client() -> ChatClient:
        address, name = (scripted(InductionBrain(noise)), MODEL) if endpoint is None else (endpoint, model)
        return ChatClient(address, name, max_calls=max_calls)

    def init(problem: TextMDP, rng: Stream) -> State:
        if not isinstance(problem, TextMDP):
            raise TypeError(
                f"icpi names every action and writes every transition as text; {type(problem).__name__} (actions: "
                f"{getattr(problem, 'action_space', 'none')}) is not a TextMDP: give a continuous or wordless problem a codec first"
            )
        client()  # a bad address is refused before the first episode
        reading = Reading(recent, threshold, prompt_size, problem.horizon if max_steps is None else max_steps)
        return State(policy=InContext(problem, client, reading, sampling, capacity, min_successes, argmax))

    def collect(state: State, problem: TextMDP, rng: Stream) -> Batch:
        batch = problem.play(state.policy, 1, rng, greedy=False)
        return batch.having(info={**batch.info, **problem.figures(batch)})

    def learn(state: State, batch: Batch, rng: Stream) -> dict[str, Any]:
        told = {"obs": batch.obs, "action": batch.action, "reward": batch.reward, "mask": batch.mask}
        state.policy.memory.write(**told, next_obs=batch.info["next_obs"], terminated=batch.info["terminated"])
        return {name: x for name, x in batch.info.items() if isinstance(x, float)} | state.policy.meter.read()

    return System(init, collect, learn)
