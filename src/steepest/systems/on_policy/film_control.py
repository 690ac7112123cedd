"""FiLM control: one policy for the whole range of a parameter that the user sets while it runs.

Paper.  Bauersfeld, Kaufmann and Scaramuzza, User-Conditioned Neural Control Policies for Mobile Robotics, 2022.
        arXiv 2211.12181.
Claim.  One policy that is told the limit of its actuators earns more over the whole range of limits than one that is not.
Idea.   h <- (1 + g(c)) h + b(c) after the first hidden layer, c the user's parameter; PPO with a c of its own in every episode
State.  as ppo
Note.   The parameter is the last of an observation's numbers, and the problem draws it. The paper's code is not published: where
        the modulation stands, its start at the identity and its width are chosen here.
"""

from __future__ import annotations

from typing import Any

from ...core.system import System, extends
from ...models.film import film
from .ppo import ppo


@extends(ppo, without=("kl", "prompts", "group", "model"))
def film_control(*, said: int = 1, hidden: int = 32, width: int = 64, depth: int = 2, **options: Any) -> System:
    """PPO whose policy and critic are steered by what the user says. For environments that show it last.

    said    how many of an observation's last numbers the user says
    hidden  units of the layer that reads them; 0: they are not looked at
    width   units of a hidden layer
    depth   hidden layers
    """
    return ppo(model=film(said=said, hidden=hidden, width=width, depth=depth), **options)  # <- the idea
