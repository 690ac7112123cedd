"""PPO: many minibatch steps on one batch are safe once the ratio of probabilities is not paid for leaving a band.

Paper.  Schulman, Wolski, Dhariwal, Radford and Klimov, Proximal Policy Optimization Algorithms, 2017. arXiv 1707.06347.
Claim.  Clipping keeps every policy near the one that collected, where the same epochs of plain policy gradient run away.
Idea.   maximise E min(r A, clip(r, 1 - e, 1 + e) A), r = pi(a|s) / pi_old(a|s)
State.  policy, critic, one Adam; `live` environments; with kl a frozen reference; where it normalises, moments of
        observations (in the policy) and of returns
Note.   Advantages are standardised over the batch, the common code does it in each minibatch. Moments of observations are
        updated after a step, so that acting, learning and evaluating see the same; the common code moves them while acting.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...collectors.experience import Collect, experience
from ...core.batch import Batch
from ...core.problem import Control
from ...core.recurrent import observations
from ...core.state import State
from ...core.stream import Stream
from ...core.system import System
from ...engines.policy_gradient import policy_gradient
from ...losses import Loss, clip, entropy, k3, squared, squared_clip
from ...models.build import actor_state
from ...models.moments import ReturnScale
from ...models.network import Network
from ...models.weights import Weights
from ...optimize.epochs import Epochs, Update
from ...optimize.natural import watched
from ...optimize.schedules import annealed
from .vpg import generalized


def passes(epochs: Epochs) -> Update:
    """The passes as they are."""
    return epochs


def ppo(
    *, clip_range: float = 0.2, epochs: int = 10, minibatches: int = 32, lr: float = 3e-4, anneal: int | None = None,
    discount: float = 0.99, decay: float = 0.95, value_weight: float = 0.5, value_clip: float | None = None,
    entropy_weight: float = 0.0, kl: float = 0.0, max_kl: float | None = None, max_grad_norm: float = 0.5,
    envs: int = 8, horizon: int = 256, normalize: bool | None = None, width: int = 64, depth: int = 2,
    prompts: int = 16, group: int = 8, model: str | Network | Weights | None = None, loss: Loss | None = None,
    wrap: Callable[[Epochs], Update] = passes, collect: Collect | None = None,
) -> System:  # fmt: skip
    """Clipped policy gradient with a critic, for environments and for texts.

    clip_range      the band of the ratio is 1 +- this; inf: no band (paper: 0.2)
    epochs          passes over a batch (paper, MuJoCo: 10)
    minibatches     optimizer steps of a pass (paper, MuJoCo: 2048 steps in minibatches of 64)
    lr              learning rate of Adam (paper: 3e-4)
    anneal          training steps over which it falls linearly to 0; None: it is constant
    discount        of rewards, per decision (paper: 0.99); texts usually take 1
    decay           of the advantage's trace, lambda (paper: 0.95)
    value_weight    of the critic's squared error / 2 (openai/baselines: 0.5; Stable-Baselines3 leaves out the half: 1)
    value_clip      how far an update may move a value before its gradient stops; None: freely
    entropy_weight  of the entropy bonus (paper: 0 for MuJoCo, 0.01 for Atari)
    kl              of the estimated divergence from the first policy, a loss term; texts only need it
    max_kl          no further pass once the mean estimated KL(old || new) of a pass exceeds it, nats; None: never
    max_grad_norm   the gradient is scaled down to this norm (openai/baselines: 0.5)
    envs            environments side by side (control)
    horizon         steps in each (control)
    normalize       observations and returns are brought to unit scale by running moments (control); None: where actions are
                    numbers, as openai/baselines did for MuJoCo
    width           units of a hidden layer (control)
    depth           hidden layers (control)
    prompts         prompts a step (text)
    group           answers to each (text)
    model           a network (control), None: tanh layers of that width and depth; a folder or hub id of weights, or a
                    configuration (text), None: the problem's own
    loss            what replaces the clipped ratio; the critic's loss, the entropy bonus and the divergence are added to it
    wrap            what the passes over a batch become: (Epochs) -> an update
    collect         what replaces the answers or steps of these sizes: (state, problem, rng) -> Batch
    """
    if not clip_range > 0:
        raise ValueError(f"clip_range must be positive, not {clip_range}: at 0 nothing could be learned")
    if not all(bound is None or bound > 0 for bound in (value_clip, max_kl)):
        raise ValueError(f"value_clip and max_kl must be positive or None, not {value_clip} and {max_kl}")

    def init(problem: Any, rng: Stream) -> State:
        scaled = isinstance(problem, Control) and (hasattr(problem.action_space, "low") if normalize is None else normalize)
        state = actor_state(
            problem, rng, lr=lr, critic=True, reference=kl > 0, envs=envs, model=model, width=width, depth=depth, normalize=scaled
        )
        if scaled:
            state.return_scale = ReturnScale(envs, discount)
        return state

    def after(state: State, batch: Batch) -> None:
        if getattr(state.policy, "norm", None) is not None:
            state.policy.norm.write(observations(batch.obs))

    loss = clip(low=clip_range, high=clip_range) if loss is None else loss  # <- the idea
    loss = loss + value_weight * (squared() if value_clip is None else squared_clip(width=value_clip))
    if entropy_weight:
        loss = loss - entropy_weight * entropy()
    if kl:
        loss = loss + kl * k3()
    update = watched(wrap(Epochs(epochs, minibatches, max_norm=max_grad_norm, max_kl=max_kl)))
    if anneal is not None:
        update = annealed(update, lr=lr, steps=anneal)
    if collect is None:
        collect = experience(prompts=prompts, group=group, envs=envs, horizon=horizon)
    credit = generalized(discount, decay)
    return policy_gradient(init=init, collect=collect, credit=credit, loss=loss, update=update, after=after)
