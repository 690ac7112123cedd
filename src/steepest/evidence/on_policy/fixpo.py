"""FixPO against PPO on CartPole: how far the worst update moved the worst state."""

from functools import partial

from ...problems.control import CartPole
from ...systems.on_policy.fixpo import fixpo
from ...systems.on_policy.ppo import ppo
from ..claim import Claim, Run


def kept(run: Run) -> float:
    """The share of updates after which KL(old || new) was at most 0.2 nats in every state of the batch."""
    return sum(step["kl_max"] <= 0.2 for step in run.steps) / len(run.steps)


claim = Claim(
    says=(
        "On CartPole the divergence is within the bound of 0.2 nats in every state after more of FixPO's updates than of PPO's."
    ),
    problem=partial(CartPole),
    ours=partial(fixpo, lr=3e-3, envs=16, horizon=128, minibatches=4, entropy_weight=0.01),
    baseline=partial(ppo, lr=3e-3, envs=16, horizon=128, minibatches=4, entropy_weight=0.01),
    measure=kept,
    unit="share of updates within 0.2 nats in every state",
    steps=40,
    seeds=5,
    figure="return",
)
