"""HyperPPO: one network writes the weights of many small policies and learns from what a few of them do.

Paper.  Hegde, Huang and Sukhatme, HyperPPO: A scalable method for finding small policies for robotic control, 2023.
        arXiv 2309.16663.
Claim.  For the same number of steps in all, more small policies are good than if each had been trained apart.
Idea.   w_k = H(shape_k); PPO on the data of a few sampled shapes moves the parameters of H alone
State.  policy (the hypernetwork), critic, one Adam; `live` environments and which net each has; with normalize moments
Note.   A gated unit sweeps once along the layers and back, as the authors' graph network does; layers are described by the
        logarithms of their sizes, their place and whether they are the last. Nets are tanh. The critic does not see which net
        acts (an option of the authors). One log standard deviation serves all nets (their default). A tile is as large as the
        largest layer.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ...core.batch import Batch
from ...core.state import State
from ...core.stream import Stream
from ...core.system import System, extends
from ...models.hyper import Population, shapes
from .ppo import ppo


@extends(ppo, without=("kl", "prompts", "group", "model"))
def hyperppo(
    *, widths: tuple[int, ...] = (4, 8, 16, 32, 64, 128, 256), layers: int = 4, sampled: int = 8, shared: bool = True,
    envs: int = 8, horizon: int = 256, normalize: bool = False, **options: Any,
) -> System:  # fmt: skip
    """PPO on a population of small policies. For environments. `width` and `depth` are the critic's.

    widths     what a hidden layer of a policy may have, units (paper: 4 to 256)
    layers     hidden layers of a policy, at most; every list of widths of one layer or more is in the population (paper: 4)
    sampled    policies that collect a batch, drawn anew for each, as often of one depth as of another (authors' code: 8)
    shared     one hypernetwork writes the weights of all; False: each has weights of its own, and this is PPO on each apart
    envs       environments side by side, divided evenly among the sampled policies
    horizon    steps in each
    normalize  observations and returns are brought to unit scale by running moments
    """
    if layers < 1 or not widths:
        raise ValueError(f"policies need a hidden layer and a width to choose, not layers={layers} and widths={widths}")
    if envs % sampled:
        raise ValueError(f"{envs} environments cannot be divided evenly among {sampled} sampled policies: change envs or sampled")
    inner = ppo(envs=envs, horizon=horizon, normalize=normalize, **options)
    population = shapes(widths, layers)

    def met(problem: Any) -> Population:
        return Population(problem, population, min(sampled, len(population)), horizon, shared)  # <- the idea

    def init(problem: Any, rng: Stream) -> State:
        return inner.init(met(problem), rng)

    def collect(state: State, problem: Any, rng: Stream) -> Batch:
        return inner.collect(state, met(problem), rng)

    return replace(inner, init=init, collect=collect)
