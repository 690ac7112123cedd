"""NPG: one natural gradient step for each batch, of a fixed length as the policy's decisions measure it.

Paper.  Kakade, A Natural Policy Gradient, 2001.
Claim.  A baseline: what TRPO is without its line search.
Idea.   theta <- theta + sqrt(2 delta / x'Fx) x, F x = g
State.  policy, critic and its Adam; `live` environments
Note.   The paper's step has a fixed learning rate; scaling it to a divergence came with TRPO. Advantages are generalised estimates
        from a critic, as in `trpo`, where the paper's were compatible features.
"""

from __future__ import annotations

from ...core.system import System
from ...losses import surrogate
from ...models.network import Network
from ...optimize.natural import NaturalStep
from .vpg import alternate


def npg(
    *, max_kl: float = 0.01, damping: float = 0.1, cg_steps: int = 10, critic_lr: float = 1e-3, critic_epochs: int = 5,
    critic_minibatches: int = 32, discount: float = 0.99, decay: float = 0.95, envs: int = 8, horizon: int = 256, width: int = 64,
    depth: int = 2, model: Network | None = None,
) -> System:  # fmt: skip
    """Natural policy gradient, and a critic. For environments.

    max_kl              the mean KL(old || new) that a step aims at, nats; nothing checks it
    damping             added to the diagonal of the Fisher matrix
    cg_steps            of conjugate gradient
    critic_lr           of the critic's Adam
    critic_epochs       the critic's passes over a batch
    critic_minibatches  optimizer steps of a pass
    discount            of rewards, per step
    decay               of the advantage's trace, lambda
    envs                environments side by side
    horizon             steps in each
    width               units of a hidden layer
    depth               hidden layers
    model               a network; None: tanh layers of that width and depth
    """
    step = NaturalStep(max_kl, damping, cg_steps)  # <- the idea
    return alternate(
        surrogate(), step, lr=None, critic_lr=critic_lr, critic_epochs=critic_epochs, critic_minibatches=critic_minibatches,
        discount=discount, decay=decay, envs=envs, horizon=horizon, width=width, depth=depth, model=model,
    )  # fmt: skip
