"""ReLIC: a context of thousands of steps is learned from while it goes on, by updates on its newest part.

Paper.  Elawady, Chhablani, Ramrakhya, Yadav, Batra, Kira and Szot, ReLIC: A Recipe for 64k Steps of In-Context Reinforcement
        Learning for Embodied AI, 2024. arXiv 2410.02751.
Claim.  Several updates on partial contexts and one on the whole learn in-context adaptation from fewer steps than one update on
        each whole context.
Idea.   after every L / n steps of a context of L, an update whose loss counts the newest L / n steps and attends to all before
        them; the n-th counts all L
State.  as in `ppo`; `context`: what the running context held so far, and `before`: the memories from before it
Note.   As in the authors' code, the sequence is read from the start of the context at every update: the gradient goes through the
        keys and values of older steps too, values and advantages are computed anew, and so are, with the new weights, the memories
        that the next piece is collected with; log-probabilities stay those that acted. After the n-th update another context
        begins: environments are not reset, episodes should end there (`problems.darkroom.DarkRoom`), and where they do not, the
        memories go on as they do in `ppo`. Not built: the shuffling of old episodes and dropped layers. The learning rate is
        constant or falls linearly (theirs: warm-up, then a cosine), advantages are standardised (theirs are not), positions are
        ALiBi's (theirs: learned and rotary), policy and critic have a network each (theirs: one), and the sink's value is learned
        (theirs: by task).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from ...core.batch import Batch
from ...core.recurrent import Remembered, Seen
from ...core.stream import Stream
from ...core.system import System, extends, holding
from ...memory.context import Context
from ...models.networks import transformer
from .ppo import ppo


@extends(ppo, without=("model", "kl", "prompts", "group", "normalize", "horizon"))
def relic(
    *, context: int = 4096, updates: int = 16, width: int = 256, depth: int = 4, heads: int = 8, lr: float = 2e-4,
    minibatches: int = 2, epochs: int = 4, envs: int = 20, value_clip: float | None = 0.2, entropy_weight: float = 0.01,
    max_grad_norm: float = 0.2, **options: Any,
) -> System:  # fmt: skip
    """PPO with a transformer, whose training step is a piece of a context. For environments. Every default here is the authors'
    (relic_base.yaml, transformer_small.yaml, transformer_ppo.py).

    context         steps of a context, L; the transformer looks back on as many
    updates         of a context, n: a training step collects L / n steps of it; 1: PPO
    width           numbers of a step between the transformer's blocks
    depth           blocks
    heads           of attention
    lr              learning rate of Adam
    minibatches     optimizer steps a pass, over whole environments (theirs: 20 minibatches, whose gradients add up by tens)
    epochs          passes over a batch
    envs            environments side by side
    value_clip      how far an update may move a value before its gradient stops; None: freely (habitat-baselines: 0.2)
    entropy_weight  of the entropy bonus
    max_grad_norm   the gradient is scaled down to this norm
    """
    if updates < 1 or context < updates or context % updates:
        raise ValueError(f"a context of {context} steps cannot be cut into {updates} pieces of equal length: updates divide it")
    piece = context // updates
    parent = ppo(
        model=transformer(width=width, depth=depth, heads=heads, context=context), horizon=piece, lr=lr, minibatches=minibatches,
        epochs=epochs, envs=envs, value_clip=value_clip, entropy_weight=entropy_weight, max_grad_norm=max_grad_norm,
        normalize=False, **options,
    )  # fmt: skip

    def lived(state: Any, problem: Any, rng: Stream) -> Context:
        obs, one, no = state.live.obs, torch.zeros(envs), torch.zeros(envs, dtype=torch.bool)
        action = state.policy.begin(envs).act(obs, rng.torch())  # what counts are shapes and types
        told = {"next_obs": obs, "terminated": no, "truncated": no}
        return Context(context, obs=obs, start=no, action=action, logp=one, reward=one, **told)

    def before(state: Any, problem: Any, rng: Stream) -> Remembered:
        return Remembered(envs, state.memory.read())

    def learn(state: Any, batch: Batch, rng: Stream) -> dict[str, Any]:
        at = state.step % updates
        since, until = at * piece, (at + 1) * piece
        if at == 0:
            state.before.write(batch.obs.start[:, 0], batch.obs.memory)
        state.context.write(
            since, obs=batch.obs.obs, start=batch.obs.start, action=batch.action, logp=batch.logp, reward=batch.reward,
            **{name: batch.info[name] for name in ("next_obs", "terminated", "truncated")},
        )  # fmt: skip
        held = state.context.read(until)
        seen = Seen(held.pop("obs"), held.pop("start"), state.before.read())
        counted = torch.ones_like(held["reward"])
        if until < context:
            counted[:, :since] = 0  # <- the idea
        whole = batch.having(
            obs=seen, mask=counted, **{name: held.pop(name) for name in ("action", "logp", "reward")}, info={**batch.info, **held}
        )
        metrics = parent.learn(state, whole, rng)
        if until < context:  # what is held of the context is what the new weights make of it
            with torch.no_grad():
                parts = {name: getattr(state, name).remember(seen) for name in seen.memory}
            state.memory.write(state.memory.start, parts)
        return {**metrics, "score": float(batch.score.mean()), "length": float(batch.length.mean())}

    return holding(replace(parent, learn=learn), context=lived, before=before)
