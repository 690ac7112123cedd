"""Answers to imitate, as a batch."""

from __future__ import annotations

from typing import Any

from ..core.batch import Batch, at_end
from ..core.state import State
from ..core.stream import Stream
from .experience import Collect, positive
from .generate import Ask, drawn


def demonstrations(*, prompts: int = 64, ask: Ask = drawn) -> Collect:
    """Draw `prompts` prompts and take the problem's own answers to them (``problem.demonstrate(prompts) -> tokens, mask``).

    Each counts as right: reward 1 on its last token. `logp` stays None: nobody acted, the policy being trained is what a ratio
    is taken to.

    ask  (state, problem, count, rng) -> which prompts
    """
    positive(prompts=prompts)

    def collect(state: State, problem: Any, rng: Stream) -> Batch:
        asked, device = ask(state, problem, prompts, rng / "prompts"), state.device
        tokens, mask = (x.to(device) for x in problem.demonstrate(asked))
        reward = at_end(mask.new_ones(len(mask)), mask)
        obs = {"ids": asked.ids.to(device), "mask": asked.mask.to(device)}
        return Batch(obs=obs, action=tokens, logp=None, reward=reward, mask=mask, key=asked.key.to(device))

    return collect
