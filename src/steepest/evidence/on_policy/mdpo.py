"""MDPO with five gradient steps a batch against one, on CartPole."""

from functools import partial

from ...problems.control import CartPole
from ...systems.on_policy.mdpo import mdpo
from ..claim import Claim, tail

claim = Claim(
    says="From the same batches of CartPole, ten gradient steps each earn more while it learns than one.",
    problem=partial(CartPole),
    ours=partial(mdpo, updates=10, lr=3e-3, critic_lr=1e-3, anneal=40, envs=16, horizon=128, critic_minibatches=8),
    baseline=partial(mdpo, updates=1, lr=3e-3, critic_lr=1e-3, anneal=40, envs=16, horizon=128, critic_minibatches=8),
    measure=tail("return", 1.0),
    unit="return of an episode, mean over training",
    steps=40,
    seeds=6,
    figure="return",
)
