"""SPO against PPO on CartPole with a deep policy, at equal options."""

import math
from functools import partial

from ...problems.control import CartPole
from ...systems.on_policy.ppo import ppo
from ...systems.on_policy.spo import spo
from ..claim import Claim, nearness

claim = Claim(
    says=(
        "With seven hidden layers and the same options, the largest divergence of an SPO update in any state of CartPole is at "
        "most a fifth of that of PPO."
    ),
    problem=partial(CartPole),
    ours=partial(spo, lr=1e-3, envs=16, horizon=128, minibatches=4, depth=7, value_clip=None),
    baseline=partial(ppo, lr=1e-3, envs=16, horizon=128, minibatches=4, depth=7, value_clip=None),
    measure=nearness,
    unit="-log10 of the largest KL(old || new) of a state, nats",
    steps=40,
    seeds=5,
    margin=math.log10(5),
    figure="return",
    tried="",
)
