"""Answers that were right, a few of each prompt."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Successes(nn.Module):
    """Up to `cap` different answers to each of `rows` prompts, of at most `length` tokens, in buffers."""

    tokens: Tensor
    size: Tensor

    def __init__(self, rows: int, cap: int, length: int):
        super().__init__()
        if min(rows, cap, length) < 1:
            raise ValueError(f"a pool holds at least one answer of one token, not {cap} of {length} to each of {rows} prompts")
        self.register_buffer("tokens", torch.zeros(rows, cap, length, dtype=torch.long))
        self.register_buffer("size", torch.zeros(rows, cap, dtype=torch.long))  # tokens of an answer; 0: no answer

    def held(self) -> Tensor:
        """Answers to each prompt [rows]."""
        return (self.size > 0).sum(1)

    @torch.no_grad()
    def write(self, key: Tensor, tokens: Tensor, mask: Tensor) -> None:
        """Answers [N, T] to the prompts `key` [N]. One that is held already, or finds its prompt full, is left out."""
        for row, said, count in zip(key.tolist(), tokens, mask.sum(1).long().tolist(), strict=True):
            free = (self.size[row] == 0).nonzero()
            known = self.size[row] == count
            known &= (self.tokens[row, :, :count] == said[:count]).all(1)
            if len(free) and not bool(known.any()):
                slot = int(free[0])
                self.tokens[row, slot, :count] = said[:count]
                self.size[row, slot] = count

    def read(self, key: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Up to `count` answers to each prompt of `key` [P], drawn without replacement: whose they are [M], tokens [M, L], mask."""
        order = torch.rand(len(key), self.size.shape[1], generator=generator).to(key.device)
        order = order.masked_fill(self.size[key] == 0, -1.0)
        drawn = order.topk(min(count, order.shape[1]), dim=1)
        whose, place = (drawn.values >= 0).nonzero(as_tuple=True)
        slot = drawn.indices[whose, place]
        tokens, size = self.tokens[key[whose], slot], self.size[key[whose], slot]
        longest = max(1, int(size.max())) if len(size) else 1
        mask = (torch.arange(longest, device=key.device) < size[:, None]).float()
        return whose, tokens[:, :longest], mask
