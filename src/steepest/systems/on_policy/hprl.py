"""HPRL: a meta-policy runs one program after another, looks at what each has done, and is paid for each.

Paper.  Liu, Hu, Cheng, Lee and Sun, Hierarchical Programmatic Reinforcement Learning via Learning to Compose Programs, 2023.
        arXiv 2301.12950.
Claim.  Composing several programs earns more in Karel than the best single program (LEAPS, arXiv 2108.13643).
Idea.   pi(program_i | world after program_1 .. program_{i-1}), r_i = what program_i earns while it runs; PPO
State.  as ppo
Note.   The paper's action is a point in the latent space of a program autoencoder, which a frozen decoder turns into a program.
        Here it is one of a finite library drawn from the same grammar: that keeps the claim about composing apart from how well an
        autoencoder decodes, but reaches no program outside the library. The authors' meta-policy is recurrent; this one sees the
        whole world and how many programs are left, which is all that the future depends on.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ...core.state import State
from ...core.stream import Stream
from ...core.system import System, extends
from ...problems.karel import Karel
from .ppo import ppo


@extends(ppo, without=("prompts", "group", "model", "kl", "normalize"))
def hprl(
    *, entropy_weight: float = 0.05, lr: float = 1e-5, epochs: int = 4, minibatches: int = 10, envs: int = 16, horizon: int = 800,
    **options: Any,
) -> System:  # fmt: skip
    """PPO whose actions are programs. For Karel.

    entropy_weight  of the entropy bonus (authors' script: 0.05, 0.1 on hard tasks)
    lr              learning rate of Adam (authors' script: 1e-5)
    epochs          passes over a batch
    minibatches     optimizer steps of a pass (authors' script: 10)
    envs            worlds side by side (authors' script: 16)
    horizon         programs run in each (authors' script: 800)
    """
    system = ppo(
        entropy_weight=entropy_weight, lr=lr, epochs=epochs, minibatches=minibatches, envs=envs, horizon=horizon, **options
    )  # fmt: skip

    def init(problem: Karel, rng: Stream) -> State:
        if not isinstance(problem, Karel):
            raise TypeError(f"hprl composes programs, and {type(problem).__name__} has none: take FourCorners, or ppo for actions")
        return system.init(problem, rng)

    return replace(system, init=init)  # <- the idea: an action of the problem is a program
