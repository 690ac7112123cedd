"""S5-RL: a state space model as the memory of a policy learns from whole sequences at once and remembers what lies long ago.

Paper.  Lu, Schroecker, Gu, Parisotto, Foerster, Singh and Behbahani, Structured State Space Models for In-Context Reinforcement
        Learning, 2023. arXiv 2303.03982.
Claim.  Where a decision depends on what was seen long before, a policy with S5 learns it from as many steps in which one with a
        gated recurrent unit does not.
Idea.   (a_i, b_i, c_i) o (a_j, b_j, c_j) = (a_j a_i, a_j b_i + b_j, c_i) if c_j = 0, else (a_j, b_j, 1): a scan that starts anew
State.  as in `ppo`; the memories of policy and critic go on from one collection to the next
Note.   The scan of `models.s5` says c_j = 1 as a decay of 0, which is the same sum. The paper's policy and critic share one
        network; here each has its own, as in `ppo`. The paper's meta-tasks are `problems.projected.Projected`.
"""

from __future__ import annotations

from typing import Any

from ...core.system import System, extends
from ...models.networks import s5
from .ppo import ppo


@extends(ppo, without=("model", "kl", "prompts", "group", "depth"))
def s5_rl(
    *, width: int = 256, size: int = 256, layers: int = 4, lr: float = 5e-5, minibatches: int = 8, epochs: int = 30,
    envs: int = 64, horizon: int = 1024, decay: float = 1.0, value_weight: float = 1.0, value_clip: float | None = 0.2,
    **options: Any,
) -> System:  # fmt: skip
    """PPO whose policy and critic remember by layers of S5. For environments. Every default here is the authors' (run_popgym.py).

    width          numbers between the layers
    size           numbers of a layer's state
    layers         of S5
    lr             learning rate of Adam
    minibatches    optimizer steps a pass, over whole environments
    epochs         passes over a batch
    envs           environments side by side
    horizon        steps in each
    decay          of the advantage's trace, lambda
    value_weight   of the critic's squared error in the loss
    value_clip     the critic's change in an update is held to this band
    """
    return ppo(
        model=s5(width=width, size=size, depth=layers),  # <- the idea
        lr=lr, minibatches=minibatches, epochs=epochs, envs=envs, horizon=horizon, decay=decay, value_weight=value_weight,
        value_clip=value_clip, **options,
    )  # fmt: skip
