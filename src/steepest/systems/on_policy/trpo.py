"""TRPO: the longest policy-gradient step that moves the policy's decisions no further than a bound.

Paper.  Schulman, Levine, Moritz, Jordan and Abbeel, Trust Region Policy Optimization, 2015. arXiv 1502.05477.
Claim.  With the same data and the same number of policy updates it earns more than plain policy gradient, and no update
        moves the policy further than the bound.
Idea.   maximise E r A subject to E KL(old || new) <= delta: step sqrt(2 delta / x'Fx) x, F x = g, then halve until both hold
State.  policy, critic and its Adam; `live` environments
Note.   Advantages are generalised estimates (arXiv 1506.02438) from a critic fitted by Adam; the paper's were Monte Carlo.
"""

from __future__ import annotations

from ...core.system import System
from ...losses import surrogate
from ...models.network import Network
from ...optimize.natural import TrustRegion
from .vpg import alternate


def trpo(
    *, max_kl: float = 0.01, damping: float = 0.1, cg_steps: int = 10, tries: int = 10, shrink: float = 0.5,
    critic_lr: float = 1e-3, critic_epochs: int = 5, critic_minibatches: int = 32, discount: float = 0.99, decay: float = 0.95,
    envs: int = 8, horizon: int = 256, width: int = 64, depth: int = 2, model: Network | None = None,
) -> System:  # fmt: skip
    """Natural policy gradient within a trust region, and a critic. For environments.

    max_kl              bound of the mean KL(old || new) of an update, nats (paper: 0.01)
    damping             added to the diagonal of the Fisher matrix (authors' code: 0.1)
    cg_steps            of conjugate gradient (paper: 10)
    tries               step lengths tried before the update is given up (authors' code: 10)
    shrink              each is this share of the one before (authors' code: 0.5)
    critic_lr           of the critic's Adam (openai/baselines: 1e-3)
    critic_epochs       the critic's passes over a batch (openai/baselines: 5)
    critic_minibatches  optimizer steps of a pass (openai/baselines: minibatches of 64)
    discount            of rewards, per step
    decay               of the advantage's trace, lambda (arXiv 1506.02438: 0.92 to 0.98)
    envs                environments side by side
    horizon             steps in each
    width               units of a hidden layer
    depth               hidden layers
    model               a network; None: tanh layers of that width and depth
    """
    region = TrustRegion(max_kl, damping, cg_steps, tries, shrink)  # <- the idea
    return alternate(
        surrogate(), region, lr=None, critic_lr=critic_lr, critic_epochs=critic_epochs, critic_minibatches=critic_minibatches,
        discount=discount, decay=decay, envs=envs, horizon=horizon, width=width, depth=depth, model=model,
    )  # fmt: skip
