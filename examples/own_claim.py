"""A claim of your own: two systems, the same problem and seeds, and what the paired gap says.

    python examples/own_claim.py
    steepest reproduce examples.own_claim        # the same, with a record and a picture
"""

from __future__ import annotations

from functools import partial

from steepest.evidence import Claim, tail
from steepest.evidence.run import reproduce
from steepest.problems.control import CartPole
from steepest.systems.on_policy.ppo import ppo

claim = Claim(
    says="Ten passes over a batch learn more from the same steps of CartPole than one.",
    problem=partial(CartPole),
    ours=partial(ppo, epochs=10, minibatches=8, horizon=64),
    baseline=partial(ppo, epochs=1, minibatches=8, horizon=64),
    measure=tail("return", 0.3),
    unit="return of an episode, mean over the last 30 % of training",
    steps=12,
    seeds=3,
    figure="return",
    tried="Nothing was tuned.",
)


def main() -> None:
    outcome = reproduce(claim)
    print(outcome.says)
    print(f"gap {outcome.gap:+.1f}, 95 % interval [{outcome.low:+.1f}, {outcome.high:+.1f}]: {outcome.verdict}")


if __name__ == "__main__":
    main()
