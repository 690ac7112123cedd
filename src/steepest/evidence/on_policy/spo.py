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
        "most half of that of PPO."
    ),
    problem=partial(CartPole),
    ours=partial(spo, lr=1e-3, envs=16, horizon=128, minibatches=4, depth=7, value_clip=None),
    baseline=partial(ppo, lr=1e-3, envs=16, horizon=128, minibatches=4, depth=7, value_clip=None),
    measure=nearness,
    unit="-log10 of the largest KL(old || new) of a state, nats",
    steps=40,
    seeds=5,
    margin=math.log10(2),
    figure="return",
    tried=(
        "Seeds 100 to 103, 40 steps, with the environments as they were before their resets changed. At 1e-3 the largest "
        "divergence was 0.073, 0.071, 0.17 and 0.054 nats with SPO, 0.66, 0.43, 0.36 and 0.68 with PPO (seed 100 with an "
        "entropy bonus of 0.01); the specification asks for a fifth, the margin of a half was fixed on these. SPO learned more "
        "slowly there: mean returns of 254, 254, 263 and 248 against 397, 357, 362 and 329, and 500 was reached by PPO alone. "
        "The rate was not tuned for each arm: at 3e-3, batches half as long and a bonus SPO moved by 0.41 and 1.2 nats, PPO at "
        "3e-4 by 0.07. What is tested is the paper's comparison at equal options, in divergence and not in return."
    ),
    why=(
        "Written after the run: SPO moved less on all five seeds, 4.7 times in the geometric mean, but on one only 1.3 times, so "
        "that the interval begins at 1.9 times, short of the two that were asked. It also learned more slowly."
    ),
)
