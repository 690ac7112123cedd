"""One loss of your own, on a text and on a cart pole: a loss knows log-probabilities, ratios and advantages, not what was decided.

    python examples/own_loss.py
"""

from __future__ import annotations

from functools import partial

from torch import Tensor

from steepest.collectors.rollout import rollout
from steepest.core import Batch, State, Stream, System, begin, train
from steepest.credit import gae, standardize
from steepest.engines import policy_gradient
from steepest.engines.values import values
from steepest.losses import Terms, loss, squared
from steepest.losses.check import check_loss
from steepest.models.build import actor_state
from steepest.optimize import epochs
from steepest.problems.control import CartPole
from steepest.problems.language import ModeLottery
from steepest.systems.reasoning.grpo import grpo


@loss()
def tanh_clip(t: Terms, *, width: float = 0.2) -> Tensor:
    """PPO's clip with round corners: the slope is 1 at ratio 1 and fades on both sides. -> [N, T]"""
    return -t.advantage * (1 + width * ((t.ratio - 1) / width).tanh())


def credit(state: State, batch: Batch) -> dict[str, Tensor]:
    """Generalised advantages from a critic."""
    value, later, terminated, truncated = values(state, batch)
    advantage = gae(batch.reward, value, later, terminated, truncated, discount=0.99, decay=0.95)
    return {"advantage": standardize(advantage, batch.mask), "value": value, "target": advantage + value}


def tanh_ppo(*, lr: float = 1e-3) -> System:
    """PPO with the loss above, put together from parts."""
    return policy_gradient(
        init=partial(actor_state, lr=lr, critic=True), collect=rollout(horizon=128), credit=credit,
        loss=tanh_clip() + 0.5 * squared(), update=epochs(4, minibatches=4),
    )  # fmt: skip


def tanh_grpo() -> System:
    """GRPO with the loss above: the paper's own file has a slot for it."""
    return grpo(loss=tanh_clip(), kl=0.0, lr=3e-4, group=8)


def main() -> None:
    print("laws that the loss obeys:", ", ".join(check_loss(tanh_clip())))
    for system, problem, steps in ((tanh_grpo(), ModeLottery(warm=150), 60), (tanh_ppo(), CartPole(), 30)):
        state = begin(system, problem)
        before = problem.evaluate(state.policy, Stream(0, "evaluate"))
        for record in train(system, problem, steps=steps, state=state):
            if record.step % 10 == 0:
                print(f"{type(problem).__name__:11} step {record.step:3}  loss {record.metrics['loss']:+.4f}")
        after = problem.evaluate(state.policy, Stream(0, "evaluate"))
        for figure, x in after.items():
            print(f"{type(problem).__name__:11} {figure}: {before[figure]:.3g} -> {x:.3g}")


if __name__ == "__main__":
    main()
