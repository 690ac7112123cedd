"""A run of your own loop that is cut short and gone on with: bit for bit the run that nobody disturbed.

    python examples/resume.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

from steepest.core import begin, train
from steepest.core.save import Checkpoints, latest, restore
from steepest.problems.control import CartPole
from steepest.systems.on_policy.ppo import ppo


def main() -> None:
    problem, system = CartPole(), ppo(envs=4, horizon=64, epochs=2, minibatches=4)
    for record in train(system, problem, steps=10, seed=0):
        undisturbed = record.state

    with tempfile.TemporaryDirectory() as folder:
        checkpoints = Checkpoints(Path(folder), keep=2)
        for record in train(system, problem, steps=10, seed=0):
            if record.step % 3 == 0:
                checkpoints.save(record.state, {"system": "ppo", "seed": 0})
            if record.step == 7:  # the lights go out
                break

        state = begin(system, problem, seed=0)  # a new process would start here
        restore(state, latest(folder))
        print("goes on from step", state.step)
        list(train(system, problem, steps=10, seed=0, state=state))

    pairs = zip(undisturbed.parameters(), state.parameters(), strict=True)
    print("equal in every bit:", all(torch.equal(a, b) for a, b in pairs))


if __name__ == "__main__":
    main()
