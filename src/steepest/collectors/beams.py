"""Search for answers step by step, where a judge says which beginnings go on."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..core.batch import Batch, at_end
from ..core.problem import Language, Prompts
from ..core.state import State
from ..core.stream import Stream
from .experience import positive
from .generate import repeat, scored
from .prefixes import continued, next_end
from .steps import split

Judge = Callable[[State, Batch], Tensor]  # beginnings with a column `step` -> how good each is [N]; it must not look at rewards


@torch.no_grad()
def searched(
    state: State, problem: Language, asked: Prompts, rng: Stream, *, judge: Judge, trees: int = 1, keep: int = 1, branch: int = 1
) -> Batch:
    """`trees` x `keep` x `branch` answers to each prompt, adjacent rows, as `collectors.steps.split` marks them.

    In each tree `keep` beginnings are extended `branch` times by a step, and the `keep` best of these go on, until all have ended.
    One tree is beam search; many with keep = 1 are diverse verifier tree search (DVTS); branch = 1 is plain sampling, which nobody
    judges. An answer that has ended stays as it is, and competes. ``info["written"]`` is how many tokens were written to a prompt,
    those of beginnings that did not go on included. arXiv:2408.03314, arXiv:2502.06703
    """
    positive(trees=trees, keep=keep, branch=branch)
    size, most = keep * branch, problem.max_new
    rows = repeat(asked, trees * size)
    n = len(rows.key)
    tokens, length = torch.zeros(n, most, dtype=torch.long), torch.zeros(n, dtype=torch.long)
    going = torch.ones(n, dtype=torch.bool)
    written = 0
    for step in range(most):
        index = going.nonzero().squeeze(1)
        some = Prompts(rows.ids[index], rows.mask[index], rows.key[index])
        grown = continued(state, problem, some, tokens[index], length[index], rng / step)
        size_of = grown.length.long().cpu()
        end = next_end(split(problem, grown).extra["step"].cpu(), length[index]) + 1 if branch > 1 else size_of
        written += int((end - length[index]).sum())
        tokens[index] = pad(grown.action.cpu(), (0, most - grown.action.shape[1]))
        length[index], going[index] = end, end < size_of
        if not bool(going.any()):
            break
        value = judge(state, marked(state, problem, rows, tokens, length)).cpu().view(-1, size)
        best = value.argsort(dim=1, descending=True, stable=True)[:, :keep] + size * torch.arange(len(value))[:, None]
        chosen = best.flatten().repeat_interleave(branch)
        tokens, length, going = tokens[chosen], length[chosen], going[chosen]
        if not bool(going.any()):
            break
    found = marked(state, problem, rows, tokens, length)
    score, told = scored(problem, rows, found.action.cpu(), found.mask.cpu())
    whole = found.having(reward=at_end(score.to(found.mask), found.mask), info={**told, "written": written / len(asked.key)})
    return split(problem, whole)


def marked(state: State, problem: Language, rows: Prompts, tokens: Tensor, length: Tensor) -> Batch:
    """Beginnings of `length` [N] tokens with the columns of `split`; without rewards."""
    width, device = int(length.max()), state.device
    mask = (torch.arange(width) < length[:, None]).float().to(device)
    obs = {"ids": rows.ids.to(device), "mask": rows.mask.to(device)}
    action = tokens[:, :width].to(device)
    plain = Batch(obs, action, None, torch.zeros_like(mask), mask, rows.key.to(device))
    return split(problem, plain)
