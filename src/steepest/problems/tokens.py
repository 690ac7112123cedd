"""Tokenizers that ship with the library: Transformers tokenizers made from nothing, so that no file is needed."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

PAD, END = "<pad>", "<eos>"


def symbols(alphabet: Sequence[str]) -> Any:
    """One token a symbol of `alphabet`, after the pad token (0) and the end token (1). Text is cut into the longest symbols."""
    return made(tuple(alphabet))


@functools.cache  # as below
def byte_level() -> Any:
    """One token a byte of UTF-8, after the pad token (0) and the end token (1): byte b is token 2 + b.

    Any text is read back as it was; "<eos>" in a text is five bytes, not the end token. Bytes that are no UTF-8 are
    read as U+FFFD.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    known = {word: number for number, word in enumerate((PAD, END, *map(letter, range(256))))}
    words = Tokenizer(models.BPE(known, []))
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    words.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token=PAD, eos_token=END, padding_side="left",
        split_special_tokens=True, clean_up_tokenization_spaces=False,
    )  # fmt: skip


def letter(byte: int) -> str:
    """The character by which byte-level vocabularies write a byte: itself where it is printable Latin-1, else the next free
    one from U+0100 on, in order (as in GPT-2's vocabulary)."""
    hidden = (*range(33), *range(127, 161), 173)
    return chr(256 + hidden.index(byte)) if byte in hidden else chr(byte)


@functools.cache  # a pure function: equal alphabets may share a tokenizer, which nobody writes to
def made(alphabet: tuple[str, ...]) -> Any:
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    if len(set(alphabet)) < len(alphabet) or {PAD, END} & set(alphabet):
        raise ValueError(f"the symbols of an alphabet must differ from one another and from {PAD} and {END}: {alphabet}")
    known = {word: number for number, word in enumerate((PAD, END, *alphabet))}
    words = Tokenizer(models.WordLevel(known, unk_token=PAD))
    longest = sorted(map(escaped, alphabet), key=len, reverse=True)
    words.pre_tokenizer = pre_tokenizers.Split(Regex("|".join(longest)), "isolated")
    words.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token=PAD, eos_token=END, padding_side="left")


def escaped(symbol: str) -> str:
    return "".join("\\" + c if not c.isalnum() else c for c in symbol)
