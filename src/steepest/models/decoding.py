"""Answers being written by a Transformers model, a token at a time: three ways, one interface.

All start without rows. `admit` reads the prompts of rows, each different prompt once, and puts the rows behind those that are
there; `step` appends a token to every row; `keep` lets rows go. ``logits`` [n, V] are those of the next token of the n rows there.
"""

from __future__ import annotations

import inspect
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import decoder, stack

Obs = dict[str, Tensor]


class Decoding(Protocol):
    logits: Tensor
    leave: float  # rows that have ended leave once at most this share goes on: where leaving copies a cache it must be worth it
    refills: bool  # whether rows may come while others are there

    def admit(self, rows: Tensor) -> None: ...

    def keep(self, stay: Tensor) -> None: ...

    def step(self, token: Tensor) -> None: ...


def begin(model: Any, obs: Obs, max_new: int, most: int, fast: bool) -> Decoding:
    """The way for `model`: N prompts, at most `most` of them at once."""
    if not fast:
        return Plain(model, obs)
    known = stack.known(model.model)
    longest = int(obs["mask"].sum(1).max()) + max_new
    return Cached(model, obs, max_new) if known is None or longest > stack.LONGEST else Native(model, known, obs, max_new, most)


class Prompts:
    """The different prompts of N rows, and which rows still wait for what was read of them."""

    def __init__(self, obs: Obs):
        real = obs["mask"] > 0
        self.ids, self.of = decoder.distinct(obs["ids"].masked_fill(~real, -1))
        self.lengths = (self.ids >= 0).sum(1)
        self.longest = int(self.lengths.max())
        self.left = torch.bincount(self.of, minlength=len(self.ids)).tolist()

    def packed(self, which: list[int]) -> decoder.Packed:
        """These prompts alone, in their order."""
        ids = self.ids[which]
        first = torch.zeros(len(which), 1, dtype=torch.long, device=ids.device)
        return decoder.Packed({"ids": ids.clamp(min=0), "mask": (ids >= 0).long()}, first, torch.ones_like(first), known=True)


class Native:
    """By native calls around torch's products. What was read of a prompt lies once for all its rows, a row's own keys and values
    stay where they are for as long as it is written: nothing is copied when rows come and go."""

    leave, refills = 1.0, True

    def __init__(self, model: Any, known: stack.Stack, obs: Obs, max_new: int, most: int):
        self.trunk, self.head, self.known, self.max_new = model.model, model.lm_head, known, max_new
        self.prompts = Prompts(obs)
        weight = model.lm_head.weight
        self.logits = weight.new_empty(0, len(weight), dtype=torch.float32)
        wide = [layer.k.out_features for layer in known.layers]
        self.own = [(weight.new_empty(most * max_new, w), weight.new_empty(most * max_new, w)) for w in wide]
        self.before = [(weight.new_empty(0, w), weight.new_empty(0, w)) for w in wide]
        self.held: list[int | None] = []  # which prompt lies in each place of `before`
        self.rows = self.slot = torch.empty(0, dtype=torch.long)
        self.free = list(range(most))
        self.spans = torch.empty(0, stack.SPAN, dtype=torch.long)
        self.angles = decoder.angles_at(self.trunk, weight, torch.arange(self.prompts.longest + max_new))
        self.waiting = list(self.prompts.left)
        self.found: dict[int, Tensor] = {}  # logits after prompts that rows wait for

    def admit(self, rows: Tensor) -> None:
        which, width = self.prompts.of[rows], self.prompts.longest
        asked = which.tolist()
        fresh = [prompt for prompt in dict.fromkeys(asked) if prompt not in self.held]
        if fresh:
            self.read(fresh)
        place = torch.tensor([self.held.index(prompt) for prompt in asked])
        slot = torch.tensor([self.free.pop() for _ in asked])
        lengths, none = self.prompts.lengths[which], torch.zeros_like(place)
        spans = torch.stack([place * width, lengths, slot * self.max_new, none, none, none + 1], 1)
        self.spans, self.slot, self.rows = (
            torch.cat(pair) for pair in ((self.spans, spans), (self.slot, slot), (self.rows, rows))
        )
        self.spans[:, 4] = torch.arange(len(self.spans))
        self.logits = torch.cat([self.logits, torch.stack([self.found[prompt] for prompt in asked])])
        for prompt in asked:
            self.waiting[prompt] -= 1
        self.found = {prompt: x for prompt, x in self.found.items() if self.waiting[prompt]}

    def read(self, which: list[int]) -> None:
        """Read prompts, in places that are free."""
        packed, width = self.prompts.packed(which), self.prompts.longest
        x = self.trunk.embed_tokens(packed.ids)
        angles = tuple(part.index_select(0, packed.position) for part in self.angles)
        x, _, pairs = stack.forward(self.known, packed.texts, x, (angles[0], angles[1]))
        self.found |= zip(which, decoder.head_scores(self.head, stack.norm(self.known.norm, x)[0]), strict=True)
        self.held += [None] * (len(which) - self.held.count(None))
        places = [place for place, prompt in enumerate(self.held) if prompt is None][: len(which)]
        for place, prompt in zip(places, which, strict=True):
            self.held[place] = prompt
        lengths = packed.lengths
        starts = torch.tensor(places) * width - (lengths.cumsum(0) - lengths)
        to = starts.repeat_interleave(lengths) + torch.arange(len(packed.ids))
        rows = len(self.held) * width
        self.before = [
            (roomy(old_k, rows).index_copy_(0, to, k), roomy(old_v, rows).index_copy_(0, to, v))
            for (old_k, old_v), (k, v) in zip(self.before, pairs, strict=True)
        ]

    def keep(self, stay: Tensor) -> None:
        gone = torch.ones(len(self.rows), dtype=torch.bool).index_fill_(0, stay, False)
        self.free += self.slot[gone].tolist()
        for prompt in self.prompts.of[self.rows[gone]].tolist():
            self.prompts.left[prompt] -= 1
            if not self.prompts.left[prompt]:
                self.held[self.held.index(prompt)] = None
        self.rows, self.slot, self.spans, self.logits = self.rows[stay], self.slot[stay], self.spans[stay], self.logits[stay]
        self.spans[:, 4] = torch.arange(len(stay))

    def step(self, token: Tensor) -> None:
        x = self.trunk.embed_tokens(token)
        written, lengths = self.spans[:, 3], self.spans[:, 1]
        position, to = lengths + written, self.spans[:, 2] + written
        angles = self.angles[0].index_select(0, position), self.angles[1].index_select(0, position)
        self.spans[:, 3] += 1
        texts = stack.Texts(self.spans, int(position.max()) + 1, to)
        for layer, before, (own_k, own_v) in zip(self.known.layers, self.before, self.own, strict=True):
            read = stack.look(layer, x, angles)
            own_k.index_copy_(0, to, read.k)
            own_v.index_copy_(0, to, read.v)
            heads, _ = stack.attend(layer, texts, read.q, before, (own_k, own_v))
            x = stack.think(layer, x, heads)
        self.logits = decoder.head_scores(self.head, stack.norm(self.known.norm, x)[0])


def roomy(x: Tensor, rows: int) -> Tensor:
    """x with room for at least so many rows."""
    return x if len(x) >= rows else torch.cat([x, x.new_empty(rows - len(x), x.shape[1])])


class Cached:
    """In torch, with a static cache [n, G, L + max_new, D] a layer: a prompt ends where its answer begins, at slot L."""

    leave, refills = 0.75, True

    def __init__(self, model: Any, obs: Obs, max_new: int):
        self.trunk, self.head, self.max_new = model.model, model.lm_head, max_new
        self.prompts = Prompts(obs)
        self.length = self.prompts.longest + max_new
        weight = model.lm_head.weight
        self.logits = weight.new_empty(0, len(weight), dtype=torch.float32)
        self.caches: list[tuple[Tensor, Tensor]] = []
        self.asked = self.at = torch.empty(0, dtype=torch.long, device=weight.device)  # tokens of the prompt; the next free slot
        self.angles = decoder.angles_at(self.trunk, weight, torch.arange(self.length, device=weight.device))
        self.read: dict[int, tuple[Tensor, list[tuple[Tensor, Tensor]]]] = {}

    def admit(self, rows: Tensor) -> None:
        which, start = self.prompts.of[rows], self.prompts.longest
        asked = which.tolist()
        fresh = [prompt for prompt in dict.fromkeys(asked) if prompt not in self.read]
        if fresh:
            packed = self.prompts.packed(fresh)
            x = self.trunk.embed_tokens(packed.ids)
            ends, pairs = decoder.layers(self.trunk, packed, x, decoder.angles_at(self.trunk, x, packed.position))
            logits = decoder.head_scores(self.head, ends)
            for u, prompt in enumerate(fresh):
                self.read[prompt] = logits[u], [(k[u], v[u]) for k, v in pairs]
        found = [self.read[prompt] for prompt in asked]
        for number in range(len(self.trunk.layers)):
            kept = self.caches[number] if number < len(self.caches) else (None, None)
            joined = tuple(self.joined(old, [pairs[number][side] for _, pairs in found]) for side, old in enumerate(kept))
            self.caches[number : number + 1] = [(joined[0], joined[1])]
        self.logits = torch.cat([self.logits, torch.stack([logits for logits, _ in found])])
        self.asked = torch.cat([self.asked, self.prompts.lengths[which]])
        self.at = torch.cat([self.at, torch.full_like(rows, start)])
        for prompt in asked:
            self.prompts.left[prompt] -= 1
        self.read = {prompt: x for prompt, x in self.read.items() if self.prompts.left[prompt]}
        self.look()

    def joined(self, old: Tensor | None, fresh: list[Tensor]) -> Tensor:
        """The rows that are there, and behind them rows whose prompts are `fresh`, each [G, L', D]."""
        count = 0 if old is None else len(old)
        heads, _, depth = fresh[0].shape
        cache = fresh[0].new_zeros(count + len(fresh), heads, self.length, depth)  # what is masked must be a number
        if old is not None:
            cache[:count] = old
        for row, x in enumerate(fresh, count):
            cache[row, :, self.prompts.longest - x.shape[1] : self.prompts.longest] = x
        return cache

    def look(self) -> None:
        """What the next step must know of all rows: whether they stand alike."""
        self.upto = int(self.at.max()) + 1 if len(self.at) else 0
        self.alike = bool((self.at == self.at[:1]).all())
        self.full = self.alike and bool((self.asked == self.prompts.longest).all())

    def keep(self, stay: Tensor) -> None:
        self.caches = [(k.index_select(0, stay), v.index_select(0, stay)) for k, v in self.caches] if len(stay) else []
        self.asked, self.at, self.logits = self.asked[stay], self.at[stay], self.logits[stay]
        self.look()

    def step(self, token: Tensor) -> None:
        x = self.trunk.embed_tokens(token)
        position = self.at - self.prompts.longest + self.asked
        angles = (self.angles[0][position, None], self.angles[1][position, None])
        upto, rows, real = self.upto, torch.arange(len(x), device=x.device), None
        if not self.full:
            slots = torch.arange(upto, device=x.device)
            real = (slots >= self.prompts.longest - self.asked[:, None]) & (slots <= self.at[:, None])
            real = real[:, None, None]  # [n, 1, 1, S]
        for layer, (keys, values) in zip(self.trunk.layers, self.caches, strict=True):
            q, k, v = decoder.project(layer, x, angles)
            if self.alike:
                keys[:, :, upto - 1], values[:, :, upto - 1] = k, v
            else:
                keys[rows, :, self.at], values[rows, :, self.at] = k, v
            # heads that share a key become queries of one head: nothing is repeated
            q = q.unflatten(1, (k.shape[1], -1))
            heads = F.scaled_dot_product_attention(q, keys[:, :, :upto], values[:, :, :upto], real)
            x = decoder.finish(layer, x, heads.flatten(1, 2))
        self.logits = decoder.head_scores(self.head, self.trunk.norm(x))
        # a row that has ended may stay, and has then no further slot
        self.at, self.upto = (self.at + 1).clamp_(max=self.length - 1), min(upto + 1, self.length)


class Plain:
    """By the model's own forward pass: padded, with its own cache where it has one. Rows come and go where the cache is the usual
    one of Transformers, of keys and values of all tokens; else rows are written a fresh lot at a time."""

    leave = 0.75

    def __init__(self, model: Any, obs: Obs):
        self.model, self.obs = model, obs
        self.name = next((name for name in ("cache", "past_key_values") if name in parameters(model)), None)
        self.ids, self.mask = obs["ids"][:0], obs["mask"][:0].long()
        self.cache: Any = None
        self.logits = model.get_output_embeddings().weight.new_empty(0, model.config.vocab_size)
        self.refills = self.name is not None  # until a cache is seen

    def admit(self, rows: Tensor) -> None:
        there = self.ids, self.mask, self.cache, self.logits
        self.ids, self.mask, self.cache = self.obs["ids"][rows], self.obs["mask"][rows].long(), None
        if self.refills:
            ids, which = decoder.distinct(torch.cat([self.ids, self.mask], 1))
            whole, (ids, self.mask) = self.mask, ids.chunk(2, 1)
            self.forward(ids)
            self.mask, self.refills = whole, usual(self.cache)
            if self.refills:
                self.cache.batch_select_indices(which)
                self.logits = self.logits[which]
        if not self.refills:  # what cannot be copied is read for every row
            self.cache = None
            self.forward(self.ids)
        if len(there[0]):
            self.join(*there)

    def join(self, ids: Tensor, mask: Tensor, cache: Any, logits: Tensor) -> None:
        """Put the rows that are there before those just read; all of them end at one column."""
        width = max(ids.shape[1], self.ids.shape[1])
        for old, new in zip(cache.layers, self.cache.layers, strict=True):
            for name in ("keys", "values"):
                pair = [getattr(old, name), getattr(new, name)]
                setattr(new, name, torch.cat([F.pad(x, (0, 0, width - x.shape[2], 0)) for x in pair]))
        self.ids, self.mask = (
            torch.cat([F.pad(x, (width - x.shape[1], 0)) for x in pair]) for pair in ((ids, self.ids), (mask, self.mask))
        )
        self.logits = torch.cat([logits, self.logits])
        self.trim()

    def trim(self) -> None:
        """Forget columns that no row reads."""
        spare = int(self.mask.any(0).long().argmax())
        if spare:
            self.ids, self.mask = self.ids[:, spare:], self.mask[:, spare:]
            for layer in self.cache.layers:
                layer.keys, layer.values = layer.keys[:, :, spare:], layer.values[:, :, spare:]

    def keep(self, stay: Tensor) -> None:
        self.ids, self.mask, self.logits = self.ids[stay], self.mask[stay], self.logits[stay]
        if not len(stay):
            self.cache = None
        elif self.cache is not None:
            self.cache.batch_select_indices(stay)

    def step(self, token: Tensor) -> None:
        self.ids = torch.cat([self.ids, token[:, None]], 1)
        self.mask = torch.cat([self.mask, torch.ones_like(self.mask[:, :1])], 1)
        self.forward(self.ids if self.cache is None else token[:, None])

    def forward(self, ids: Tensor) -> None:
        inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": self.mask}
        if "position_ids" in parameters(self.model):
            inputs["position_ids"] = positions(self.mask)[:, -ids.shape[1] :]
        if self.name is not None:
            inputs |= {"use_cache": True, self.name: self.cache}
        out = self.model(**inputs)
        self.cache = None if self.name is None else getattr(out, self.name)
        self.logits = out.logits[:, -1]


def usual(cache: Any) -> bool:
    """Whether it is a cache of keys and values [n, G, S, D] of all tokens."""
    kinds = {type(layer).__name__ for layer in getattr(cache, "layers", ())}
    return type(cache).__name__ == "DynamicCache" and kinds == {"DynamicLayer"}


def positions(mask: Tensor) -> Tensor:
    return (mask.cumsum(1) - 1).clamp_(min=0)


def parameters(model: nn.Module) -> Any:
    return inspect.signature(model.forward).parameters
