"""Answers that begin as others do: the states in which a method of steps stands."""

from __future__ import annotations

import torch
from torch import Tensor

from ..core.batch import Batch, at_end
from ..core.problem import Language, Prompts
from ..core.state import State
from ..core.stream import Stream
from .generate import scored


def extended(prompts: Prompts, tokens: Tensor, length: Tensor) -> Prompts:
    """The prompts, each followed by the first `length` [N] of its `tokens` [N, T]; again padded on the left."""
    said = torch.arange(tokens.shape[1], device=tokens.device) < length[:, None]
    ids, mask = torch.cat([prompts.ids, tokens], 1), torch.cat([prompts.mask, said.to(prompts.mask)], 1)
    return Prompts(*trimmed(*leftmost(ids, mask)), prompts.key)


def leftmost(ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Texts [N, L] whose padding, wherever it stood, stands on the left."""
    order = mask.long().argsort(dim=1, stable=True)
    return ids.gather(1, order), mask.gather(1, order)


def trimmed(ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Without columns that are padding in all rows."""
    spare = mask.shape[1] - int(mask.sum(1).max())
    return ids[:, spare:], mask[:, spare:]


@torch.no_grad()
def continued(state: State, problem: Language, asked: Prompts, tokens: Tensor, length: Tensor, rng: Stream) -> Batch:
    """An answer to each prompt that begins with the first `length` [N] of `tokens` [N, T] and goes on as the policy does; scored.

    Answers are no longer than the problem's `max_new`: what the policy would say beyond it is cut off. Raises ValueError for a
    beginning that leaves no room, or that has its end token already.
    """
    n, device, most, end = len(tokens), state.device, problem.max_new, problem.tokenizer.eos_token_id
    tokens, length = tokens.cpu(), length.cpu()
    said = torch.arange(tokens.shape[1]) < length[:, None]
    over = ((length >= most) | (said & (tokens == end)).any(1)).nonzero()
    if len(over):
        row = int(over[0])
        raise ValueError(f"beginning {row}, of {int(length[row])} of {most} tokens, is a whole answer: continue only what is open")
    texts = extended(asked, tokens, length)
    obs = {"ids": texts.ids.to(device), "mask": texts.mask.to(device)}
    more, there, _ = (x.cpu() for x in state.policy.sample(obs, (rng / "tokens").torch(device)))
    whole, mask = torch.full((n, most + 1), state.policy.pad), torch.zeros(n, most + 1)
    place = (length[:, None] + torch.arange(more.shape[1])).where(there > 0, most).clamp(max=most)  # beyond: a spare column
    whole.scatter_(1, place, more)
    mask.scatter_(1, place, 1.0)
    width = min(tokens.shape[1], most)
    whole[:, :width] = tokens[:, :width].where(said[:, :width], whole[:, :width])
    mask[:, :width] = mask[:, :width].maximum(said[:, :width].float())
    longest = int(mask[:, :most].sum(1).max())
    whole, mask = whole[:, :longest], mask[:, :longest]
    score, told = scored(problem, asked, whole, mask)
    sent = {"ids": asked.ids.to(device), "mask": asked.mask.to(device)}
    whole, mask = whole.to(device), mask.to(device)
    return Batch(obs=sent, action=whole, logp=None, reward=at_end(score, mask), mask=mask, key=asked.key.to(device), info=told)


def some_state(step: Tensor, generator: torch.Generator) -> Tensor:
    """A state of each answer, all of its states alike: how many tokens stand before one of its steps [N].

    step  1 where a step ends [N, T], as `collectors.steps` says it; the answer ends with the last one
    """
    done = step.cumsum(1)
    drawn = (torch.rand(len(step), generator=generator).to(done) * done[:, -1]).floor()
    return torch.where(drawn > 0, (done < drawn[:, None]).sum(1) + 1, 0)


def next_end(step: Tensor, length: Tensor) -> Tensor:
    """Where the step ends that begins behind the first `length` [N] tokens: [N, T], [N] -> [N]. It must exist."""
    place = torch.arange(step.shape[1], device=step.device)
    return torch.where((step > 0) & (place >= length[:, None]), place, step.shape[1]).amin(1)


def alone(batch: Batch, length: Tensor, end: Tensor) -> Batch:
    """One step of each answer as a decision of its own: the text before token `length` [N] is what is seen, the tokens from there
    to `end` [N], it included, are what is decided; the reward is the answer's score."""
    seen = extended(Prompts(batch.obs["ids"], batch.obs["mask"], batch.key), batch.action, length)
    size = end + 1 - length
    place = torch.arange(int(size.max()), device=end.device)
    mask = (place < size[:, None]).to(batch.mask)
    action = batch.action.gather(1, (length[:, None] + place).clamp(max=batch.action.shape[1] - 1))
    return batch.having(
        obs={"ids": seen.ids, "mask": seen.mask}, action=action, logp=None, mask=mask, reward=at_end(batch.score, mask), extra={}
    )
