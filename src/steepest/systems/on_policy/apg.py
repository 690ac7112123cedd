"""APG: a trained policy learns a second task, and a multiplier on what the first one loses keeps it.

Paper.  Hao, Lu, Liang, Zhou and Mou, Adaptive Policy Learning to Additional Tasks, 2023. arXiv 2305.15193.
Claim.  With few data the added task is done better than by deterministic policy gradient, and the first task is kept.
Idea.   minimise mean c(s, mu(s)) + g V(f(s, mu(s))) + lambda (Q0(s, mu0(s)) - Q0(s, mu(s)))_+ with c and f fitted models
State.  policy; origin and original (the frozen first actor and its critic); critic of the cost and its target, model, replay,
        multiplier, an Adam each for policy and critic; `live` environments
Note.   The paper is reported as withdrawn by its authors: its rates of convergence are not relied upon. The rule is read from its
        abstract. Values are (1 - g) times the discounted sum, so that they and the multiplier have the units of one step; what
        follows a fall is charged `fallen`, or falling would be the cheapest way to stand anywhere. The two terms are weighed by
        1 / (1 + lambda) and lambda / (1 + lambda), which changes the step's size alone.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import mse_loss, relu

from ...collectors.charged import charged
from ...core.batch import Batch
from ...core.live import Live
from ...core.state import State
from ...core.stream import Stream
from ...core.system import System
from ...memory.average import Average
from ...memory.replay import Replay
from ...models.lessons import taught, value_of
from ...models.ridge import Quadratic
from ...models.twin_q import mlp
from ...optimize.dual import Multiplier
from ...optimize.epochs import descend
from ...problems.cart import CartTasks


def apg(
    *, price: float = 10.0, rate: float = 10.0, keep: float = 0.95, fallen: float = 1.0, discount: float = 0.98, noise: float = 0.2,
    lr: float = 1e-3, tau: float = 0.01, updates: int = 50, rows: int = 128, envs: int = 4,
    horizon: int = 50, hidden: int = 64, lessons: int = 600,
) -> System:  # fmt: skip
    """One-step lookahead through a fitted model for an added cost. For CartTasks.

    price      the least multiplier, with which it begins; inf: the policy stays as it is
    rate       of its growth, for the loss of the whole return
    keep       share of the longest episode's return below which it grows
    fallen     cost of every step after an episode that was terminated
    discount   of costs and rewards, per step
    noise      standard deviation of the noise while collecting
    lr         learning rate of both Adams
    tau        share of the new parameters in an update of the critic's target
    updates    of both, a step
    rows       of the replay in an update
    envs       environments side by side
    horizon    steps in each
    hidden     width of both hidden layers
    lessons    updates that teach the first task, in `init`, to the actor and as many to its critic
    """
    if min(price, rate, noise, fallen) < 0 or not 0 <= discount < 1:
        raise ValueError(
            f"price, rate, noise and fallen must not be negative and discount in [0, 1), not {price}, {rate}, {noise}, {fallen} "
            f"and {discount}"
        )

    def init(problem: CartTasks, rng: Stream) -> State:
        policy, original = taught(problem, rng, hidden=hidden, noise=noise, discount=discount, updates=lessons)
        states, actions = len(policy.mean), problem.action_space.shape[0]
        with (rng / "critic").fork():
            critic = mlp(states, 1, hidden)
        torch._foreach_zero_([p.data for p in critic[-1].parameters()])
        obs, number = torch.zeros(states), torch.zeros(())
        state = State(
            policy=policy, origin=Average(policy, 1.0), original=original.requires_grad_(False), critic=critic,
            target=Average(critic, 1 - tau), model=Quadratic(states + actions, states + 1),
            replay=Replay(20000, obs=obs, next_obs=obs, cost=number, terminated=number),
            multiplier=Multiplier(price, floor=price), live=Live(problem, envs, rng / "live"),
        )  # fmt: skip
        state.optimizers = {name: torch.optim.Adam(getattr(state, name).parameters(), lr) for name in ("policy", "critic")}
        return state

    def learn(state: State, batch: Batch, rng: Stream) -> dict[str, Any]:
        policy, critic, generator = state.policy, state.critic, rng.torch(state.device)
        parts: Any = state
        obs, act, next_obs, cost, ended = (
            x.flatten(0, 1) for x in (batch.obs, batch.action, *(batch.info[k] for k in ("next_obs", "cost", "terminated")))
        )
        parts.model.write(torch.cat([obs, act], 1), torch.cat([next_obs - obs, cost[:, None]], 1))
        parts.replay.write(obs=obs, next_obs=next_obs, cost=cost, terminated=ended.float())
        if "kept" in batch.info:
            parts.multiplier.rise(rate * (keep - batch.info["kept"]))
        share = 1 / (1 + parts.multiplier.value.detach())
        for _ in range(updates):
            drawn = parts.replay.read(rows, generator)
            with torch.no_grad():
                follows = parts.target.read()(drawn["next_obs"])[:, 0]
                goal = (1 - discount) * drawn["cost"] + discount * torch.where(drawn["terminated"] > 0, fallen, follows)
            value_loss = mse_loss(critic(drawn["obs"])[:, 0], goal)
            descend(state.optimizers["critic"], value_loss)
            parts.target.write(critic)
            s, mine = drawn["obs"], policy(drawn["obs"])
            said = parts.model(torch.cat([s, mine], 1))
            ahead = (1 - discount) * said[:, -1] + discount * critic(s + said[:, :-1])[:, 0]
            lost = relu(value_of(parts.original, s, parts.origin.read()(s)) - value_of(parts.original, s, mine))
            descend(state.optimizers["policy"], (share * ahead + (1 - share) * lost).mean())  # <- the idea
        told = {"cost": cost.mean(), "value_loss": value_loss.detach(), "price": parts.multiplier.value.detach()}
        return {name: float(x) for name, x in {**batch.info, **told}.items() if isinstance(x, float) or x.dim() == 0}

    return System(init, charged(envs=envs, horizon=horizon), learn)
