"""DPO, the discovered one: PPO with a smooth price on the ratio that was read off a meta-learned one.

Paper.  Lu, Kuba, Letcher, Metz, Schroeder de Witt and Foerster, Discovered Policy Optimisation, 2022. arXiv 2210.05639.
Claim.  With the hyper-parameters of PPO it earns at least what PPO does.
Idea.   maximise E [r A - f(r, A)], f = relu(x - a tanh(x / a)) of x = (r - 1) A where A >= 0, of x = A log r with b where A < 0
State.  as ppo
Note.   The meta-learned drift itself is `lpo`'s. alpha and beta presume advantages of unit scale; they are standardised
        over the batch, the authors' code does it in each minibatch.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from ...core.system import System, extends
from ...losses import discovered_drift, mirror_drift
from .ppo import ppo


@extends(ppo, without=("clip_range", "loss"))
def discovered_po(
    *, alpha: float = 2.0, beta: float = 0.6, epochs: int = 4, value_clip: float | None = 0.2, **options: Any
) -> System:  # fmt: skip
    """PPO with a drift in place of the clip.

    alpha       how much a likelier good action may gain, in advantages, before the gain flattens (paper: 2)
    beta        at what -A log r an unlikelier bad action is pulled back (paper: 0.6)
    epochs      passes over a batch (authors' code: 4)
    value_clip  how far an update may move a value before its gradient stops; None: freely (authors' code: 0.2)
    """
    if not (alpha > 0 and beta > 0):
        raise ValueError(f"alpha and beta must be positive, not {alpha} and {beta}: at 0 nothing could be gained")
    drift = partial(discovered_drift, alpha=alpha, beta=beta)  # <- the idea
    return ppo(loss=mirror_drift(drift=drift), epochs=epochs, value_clip=value_clip, **options)
