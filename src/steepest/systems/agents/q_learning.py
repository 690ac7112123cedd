"""Q-learning: a table of action values, moved towards reward plus the best value that follows.

Paper.  Watkins and Dayan, Q-learning, 1992. Machine Learning 8.
Claim.  None here: it is the baseline of agents that keep their experience as text.
Idea.   Q[s, a] <- Q[s, a] + lr * (r + gamma * max_b Q[s', b] - Q[s, a])
State.  policy.table [states, actions] float64
Note.   One training step is one episode, whose updates are made in its order when it is over.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ...core.batch import Batch
from ...core.state import State
from ...core.stream import Stream
from ...core.system import System
from ...problems.textmdp import TextMDP


class EpsilonGreedy(nn.Module):
    """The best action of a table with random ties, or with probability `epsilon` any."""

    table: Tensor

    def __init__(self, problem: TextMDP, epsilon: float, initial: float):
        super().__init__()
        self.index, self.gamma, self.epsilon = problem.index, problem.gamma, epsilon
        shape = problem.states, len(problem.actions)
        self.register_buffer("table", torch.full(shape, initial, dtype=torch.float64))

    def act(self, obs: Tensor, generator: torch.Generator, greedy: bool = False) -> Tensor:
        """obs [B, d] -> action [B] long."""
        value = self.table[self.index(obs)].to(obs.device)
        ties = torch.rand(value.shape, generator=generator, device=value.device)
        best = torch.where(value == value.amax(-1, keepdim=True), ties, -1.0).argmax(-1)
        explore = torch.rand(best.shape, generator=generator, device=value.device) < (0.0 if greedy else self.epsilon)
        return torch.where(explore, ties.argmax(-1), best)


def q_learning(*, lr: float = 0.5, epsilon: float = 0.1, initial: float = 0.0) -> System:
    """Tabular Q-learning with epsilon-greedy exploration, on problems with a finite number of states.

    lr       share of the way to the target that a value moves
    epsilon  probability of a random action while collecting
    initial  value of what was never tried; high values make the agent try it (Watkins and Dayan leave it open)
    """
    if not 0 < lr <= 1 or not 0 <= epsilon <= 1:
        raise ValueError(f"lr must lie in (0, 1] and epsilon in [0, 1], not {lr} and {epsilon}")

    def init(problem: TextMDP, rng: Stream) -> State:
        if not isinstance(problem, TextMDP):
            raise TypeError(f"q_learning needs finitely many numbered states; {type(problem).__name__} is not a TextMDP")
        return State(policy=EpsilonGreedy(problem, epsilon, initial))

    def collect(state: State, problem: TextMDP, rng: Stream) -> Batch:
        batch = problem.play(state.policy, 1, rng, greedy=False)
        return batch.having(info={**batch.info, **problem.figures(batch)})

    def learn(state: State, batch: Batch, rng: Stream) -> dict[str, Any]:
        policy, table, info = state.policy, state.policy.table, batch.info
        for n, t in batch.mask.nonzero().tolist():
            s, after = policy.index(batch.obs[n, t]), policy.index(info["next_obs"][n, t])
            goes_on = 0.0 if info["terminated"][n, t] else 1.0
            target = batch.reward[n, t] + policy.gamma * goes_on * table[after].max()  # <- the idea
            table[s, batch.action[n, t]] += lr * (target - table[s, batch.action[n, t]])
        return {name: x for name, x in info.items() if isinstance(x, float)}

    return System(init, collect, learn)
