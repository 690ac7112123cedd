"""DPO against PPO on CartPole, each at its own learning rate."""

from functools import partial

from ...problems.control import CartPole
from ...systems.on_policy.discovered_po import discovered_po
from ...systems.on_policy.ppo import ppo
from ..claim import Claim, tail

claim = Claim(
    says=(
        "On CartPole DPO earns, while it learns, at most 40 of 500 less than PPO with the same passes, each at its best learning "
        "rate."
    ),
    problem=partial(CartPole),
    ours=partial(discovered_po, lr=3e-3, envs=16, horizon=128, epochs=4, minibatches=4, entropy_weight=0.01, value_clip=None),
    baseline=partial(ppo, lr=3e-3, envs=16, horizon=128, epochs=4, minibatches=4, entropy_weight=0.01, value_clip=None),
    measure=tail("return", 1.0),
    unit="return of an episode, mean over training",
    steps=40,
    seeds=8,
    margin=-40.0,
    figure="return",
    tried="",
)
