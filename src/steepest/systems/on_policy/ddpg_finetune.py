"""DDPG fine-tuning: a trained policy learns a second task by deterministic policy gradient on both tasks' sum.

Paper.  Lillicrap et al., Continuous control with deep reinforcement learning, 2016. arXiv 1509.02971.
Claim.  A baseline: what methods that add a task to a trained policy are compared with.
Idea.   maximise mean Q(s, mu(s)) with Q of reward - weight cost by TD; both begin as the first task left them
State.  policy, critic and target (of both), replay, an Adam each for policy and critic; `live` environments
Note.   Values are (1 - g) times the discounted sum, and what follows a fall is charged `fallen`, as in APG. The paper's noise is
        correlated in time, its critic's weights decay and its targets move by 0.001; here noise is white, nothing decays, and
        targets move by 0.01: a fine-tuning has hundreds of updates, not millions.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.functional import mse_loss

from ...collectors.charged import charged
from ...core.batch import Batch
from ...core.live import Live
from ...core.state import State
from ...core.stream import Stream
from ...core.system import System
from ...memory.average import Average
from ...memory.replay import Replay
from ...models.lessons import taught, value_of
from ...optimize.epochs import descend
from ...problems.cart import CartTasks


def ddpg_finetune(
    *, weight: float = 1.0, fallen: float = 1.0, discount: float = 0.98, noise: float = 0.2, lr: float = 1e-4,
    critic_lr: float = 1e-3, tau: float = 0.01, updates: int = 50, rows: int = 128, envs: int = 4, horizon: int = 50,
    hidden: int = 64, lessons: int = 600,
) -> System:  # fmt: skip
    """Deterministic policy gradient from a trained actor and its critic, on reward minus an added cost. For CartTasks.

    weight     of the added cost; 0: the first task alone
    fallen     cost of every step after an episode that was terminated
    discount   of costs and rewards, per step
    noise      standard deviation of the noise while collecting
    lr         learning rate of the actor's Adam (section 7)
    critic_lr  of the critic's (section 7)
    tau        share of the new parameters in an update of the targets
    updates    of both, a step
    rows       of the replay in an update
    envs       environments side by side
    horizon    steps in each
    hidden     width of both hidden layers
    lessons    updates that teach the first task, in `init`, to the actor and as many to its critic
    """
    if min(weight, noise, fallen) < 0 or not 0 <= discount < 1:
        raise ValueError(
            f"weight, noise and fallen must not be negative and discount in [0, 1), not {weight}, {noise}, {fallen} and {discount}"
        )

    def init(problem: CartTasks, rng: Stream) -> State:
        policy, critic = taught(problem, rng, hidden=hidden, noise=noise, discount=discount, updates=lessons)
        obs, number = torch.zeros_like(policy.mean), torch.zeros(())
        action = torch.zeros(problem.action_space.shape)
        state = State(
            policy=policy, critic=critic, target=Average(nn.ModuleDict({"policy": policy, "critic": critic}), 1 - tau),
            replay=Replay(20000, obs=obs, action=action, next_obs=obs, reward=number, terminated=number),
            live=Live(problem, envs, rng / "live"),
        )  # fmt: skip
        speeds = {"policy": lr, "critic": critic_lr}
        state.optimizers = {name: torch.optim.Adam(getattr(state, name).parameters(), speed) for name, speed in speeds.items()}
        return state

    def learn(state: State, batch: Batch, rng: Stream) -> dict[str, Any]:
        policy, critic, generator = state.policy, state.critic, rng.torch(state.device)
        parts: Any = state
        target = parts.target.read()
        columns = {"obs": batch.obs, "action": batch.action, "reward": batch.reward - weight * batch.info["cost"]}
        columns |= {"next_obs": batch.info["next_obs"], "terminated": batch.info["terminated"].float()}
        parts.replay.write(**{name: x.flatten(0, 1) for name, x in columns.items()})
        for _ in range(updates):
            drawn = parts.replay.read(rows, generator)
            with torch.no_grad():
                follows = value_of(target["critic"], drawn["next_obs"], target["policy"](drawn["next_obs"]))
                follows = torch.where(drawn["terminated"] > 0, -weight * fallen, follows)
            goal = (1 - discount) * drawn["reward"] + discount * follows
            value_loss = mse_loss(value_of(critic, drawn["obs"], drawn["action"]), goal)
            descend(state.optimizers["critic"], value_loss)
            worth = value_of(critic, drawn["obs"], policy(drawn["obs"])).mean()
            descend(state.optimizers["policy"], -worth)  # <- the idea
            parts.target.write(nn.ModuleDict({"policy": policy, "critic": critic}))
        told = {name: x for name, x in batch.info.items() if isinstance(x, float)}
        told |= {"cost": float(batch.info["cost"].mean()), "value_loss": float(value_loss.detach())}
        return told | {"worth": float(worth.detach())}

    return System(init, charged(envs=envs, horizon=horizon), learn)
