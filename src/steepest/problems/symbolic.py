"""What text tasks of a few symbols share: their tokenizer, their small model, exact verification, and a teacher.

The noisy teacher is a dial: the warmed-up policy holds the right answer as a possible but not certain output, so that
reinforcement learning has something to sharpen within seconds. Token ids: pad 0, end 1, digit d is 2 + d.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..core.problem import Language, Prompts, Warmup
from ..core.stream import Stream
from .tokens import symbols

PAD, END, ZERO = 0, 1, 2
Taught = tuple[Prompts, Tensor, Tensor]


class Symbolic(Language):
    """A task over an alphabet of a few symbols. Frozen dataclasses below it say what differs.

    tests   fresh prompts of an evaluation, of each difficulty
    warm    optimizer steps of the warm-up
    """

    alphabet: tuple[str, ...]
    tests: int
    warm: int

    @abstractmethod
    def teach(self, count: int, generator: torch.Generator) -> Taught:
        """`count` prompts with the noisy teacher's answers: tokens [count, T] and mask [count, T]."""

    @abstractmethod
    def right(self, key: Tensor) -> Tensor:
        """A right answer to each prompt, end token included, padded: [N, M]."""

    @property
    def tokenizer(self) -> Any:  # type: ignore[override]
        return symbols(self.alphabet)

    def config(self) -> Any:
        from transformers import LlamaConfig

        # a wide start and short wavelengths: texts are short, and at Llama's own 0.02 so small a model learns nothing for long
        return LlamaConfig(
            vocab_size=2 + len(self.alphabet), hidden_size=64, intermediate_size=176, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=4, max_position_embeddings=64, initializer_range=0.1,
            rope_parameters={"rope_type": "default", "rope_theta": 100.0}, pad_token_id=PAD, eos_token_id=END, bos_token_id=None,
        )  # fmt: skip

    @property
    def warmup(self) -> Warmup:
        return Warmup(self.teach, self.warm)

    def score(self, prompts: Prompts, tokens: Tensor, mask: Tensor) -> Tensor:
        return same(tokens, mask, self.right(prompts.key))

    def demonstrate(self, prompts: Prompts) -> tuple[Tensor, Tensor]:
        """Right answers: tokens [N, M] and mask [N, M]."""
        right = self.right(prompts.key)
        return right, upto_end(right)

    def answered(self, policy: Any, prompts: Prompts, rng: Stream, *, greedy: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens [N, T], mask [N, T] and score [N] of the policy's answers."""
        device = next(policy.parameters()).device
        obs = {"ids": prompts.ids.to(device), "mask": prompts.mask.to(device)}
        tokens, mask = (x.cpu() for x in policy.act(obs, rng.torch(device), greedy))
        return tokens, mask, self.score(prompts, tokens, mask)

    def examples(self, policy: Any, rng: Stream, count: int) -> list[dict[str, Any]]:
        """Sampled answers with their verdict."""
        prompts = self.prompts(count, (rng / "prompts").torch())
        tokens, mask, score = self.answered(policy, prompts, rng / "answers")
        right, read = self.right(prompts.key), self.tokenizer.decode
        return [
            {
                "prompt": read(prompts.ids[n]), "answer": read(tokens[n][mask[n] > 0], skip_special_tokens=True),
                "right": read(right[n], skip_special_tokens=True), "verdict": "right" if score[n] > 0 else "wrong",
            }
            for n in range(count)
        ]  # fmt: skip

    def symbol(self, name: str) -> int:
        """The id of a symbol."""
        return 2 + self.alphabet.index(name)


def same(tokens: Tensor, mask: Tensor, right: Tensor) -> Tensor:
    """1 where the decided tokens [N, T] are exactly those of `right` [N, M], which is padded; else 0. -> [N] float"""
    width = max(tokens.shape[1], right.shape[1])
    said, wanted = (pad(x, (0, width - x.shape[1]), value=PAD) for x in (tokens.masked_fill(mask == 0, PAD), right))
    return (said == wanted).all(1).float()


def made(prompts: Tensor) -> Tensor:
    """The mask of prompts that have no padding."""
    return torch.ones(prompts.shape)


def upto_end(tokens: Tensor) -> Tensor:
    """The mask of answers that all end: 1 up to and including the first end token."""
    return ((tokens == END).cumsum(1) - (tokens == END).long() == 0).float()


def random(high: int, shape: Sequence[int], generator: torch.Generator) -> Tensor:
    return torch.randint(high, tuple(shape), generator=generator)


def chance(p: float | Tensor, shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """True with probability p."""
    return torch.rand(tuple(shape), generator=generator) < p


def places(key: Tensor, count: int) -> Tensor:
    """The last `count` decimal digits of each key, the lowest first [N, count]."""
    return key[:, None] // 10 ** torch.arange(count) % 10


def packed(digits: Tensor) -> Tensor:
    """The inverse of `places`."""
    return (digits * 10 ** torch.arange(digits.shape[1])).sum(1)


def pass_at_k(tried: int, right: Tensor, k: int) -> Tensor:
    """The chance that at least one of k answers is right, without bias from `right` [N] of `tried`. arXiv:2107.03374 eq. 1

    >>> pass_at_k(4, torch.tensor([0, 1, 4]), 2)
    tensor([0.0000, 0.5000, 1.0000])

    Raises ValueError unless 1 <= k <= tried and 0 <= right <= tried.
    """
    if not 1 <= k <= tried:
        raise ValueError(f"k must lie between 1 and the {tried} answers tried, not at {k}: sample more answers")
    if bool(((right < 0) | (right > tried)).any()):
        raise ValueError(f"of {tried} answers between 0 and {tried} are right, not {int(right.min())} to {int(right.max())}")
    factors = 1 - k / torch.arange(tried - int(right.max()) + 1, tried + 1)
    missed = torch.cat([torch.ones(1), factors.flip(0).clamp(min=0)]).cumprod(0)
    return 1 - missed[right]
