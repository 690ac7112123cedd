"""Answers that the policy gave some updates ago, as a trainer meets them whose generators run ahead of it."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..core.batch import Batch
from ..core.problem import Language
from ..core.state import State
from ..core.stream import Stream
from ..core.system import System, holding
from ..memory.queue import Queue
from .experience import Collect
from .generate import Gather, generate, remembered


def stale(lag: int, gather: Gather = generate) -> Gather:
    """Every batch is learned from `lag` updates after it was sampled, with the log-probabilities that it had then. The first `lag`
    updates learn from what the first policy said. At 0 nothing waits. The State needs the queue of `delayed`."""
    if lag < 0:
        raise ValueError(f"a batch cannot be used {-lag} updates before it is sampled: lag is at least 0")
    if lag == 0:
        return gather

    def collector(*, prompts: int, group: int) -> Collect:
        ask = gather(prompts=prompts, group=group)

        def collect(state: State, problem: Language, rng: Stream) -> Batch:
            queue: Any = state.queue
            for place in range(len(queue), lag):
                queue.write(**columns(remembered(state, ask(state, problem, rng / "first" / place)), queue))
            oldest = batch(queue.read())
            queue.write(**columns(remembered(state, ask(state, problem, rng)), queue))
            return oldest

        return collect

    return collector


def delayed(system: System, lag: int, *, rows: int, room: int = 512) -> System:
    """The system with the queue of `stale(lag)` in its State.

    rows  answers of a batch
    room  the longest prompt, tokens
    """

    def queue(state: State, problem: Language, rng: Stream) -> Queue:
        wide, told = torch.zeros(rows, problem.max_new), torch.zeros(rows, room)
        return Queue(
            lag, ids=told.long(), asked=told, action=wide.long(), logp=wide, reward=wide, mask=wide,
            key=torch.zeros(rows, dtype=torch.long),
        )  # fmt: skip

    return holding(system, queue=queue) if lag else system


def columns(made: Batch, queue: Queue) -> dict[str, Tensor]:
    """A batch as an entry: prompts padded on the left, answers on the right."""
    room, longest = queue.get_buffer("ids").shape[2], queue.get_buffer("mask").shape[2]
    width = made.obs["ids"].shape[1]
    if made.extra:
        raise ValueError(
            f"the queue keeps no columns of a collector's own ({', '.join(sorted(made.extra))}): they would be lost while it "
            "waits. Put the collector that writes them around stale(lag), or take lag = 0"
        )
    if width > room:
        raise ValueError(f"a prompt of {width} tokens does not fit the queue, which has room for {room}: raise `room`")

    def right(x: Tensor) -> Tensor:
        return pad(x, (0, longest - x.shape[1]))

    return {
        "ids": pad(made.obs["ids"], (room - width, 0)), "asked": pad(made.obs["mask"], (room - width, 0)), "key": made.key,
        "action": right(made.action), "logp": right(cast(Tensor, made.logp)), "reward": right(made.reward),
        "mask": right(made.mask),
    }  # fmt: skip


def batch(entry: dict[str, Tensor]) -> Batch:
    """The inverse of `columns`, without what is padding in all rows."""
    width, longest = int(entry["asked"].sum(1).max()), int(entry["mask"].sum(1).max())
    obs = {"ids": entry["ids"][:, -width:], "mask": entry["asked"][:, -width:]}
    own: dict[str, Any] = {name: entry[name][:, :longest] for name in ("action", "logp", "reward", "mask")}
    return Batch(obs=obs, key=entry["key"], **own)
