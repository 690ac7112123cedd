"""Which weights a language model begins with and how they are trained: all of them or adapters, in which precision, how much of a
forward pass is kept for the gradient."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Weights:
    """What a system on text takes as its `model`, where the path alone does not say it. Made by `hf`."""

    path: str | None = None
    lora: int = 0
    alpha: int | None = None
    targets: tuple[str, ...] = ()
    bf16: bool = False
    checkpointing: bool = False

    def __post_init__(self) -> None:
        if self.lora < 0 or (self.alpha is not None and not self.alpha > 0):
            raise ValueError(f"lora is a rank, 0 for none, and alpha positive, not {self.lora} and {self.alpha}")
        if not self.lora and (self.alpha is not None or self.targets):
            raise ValueError("alpha and targets are of adapters: give them a rank, lora=8")


def hf(
    *, path: str | None = None, lora: int = 0, alpha: int | None = None, targets: tuple[str, ...] = (), bf16: bool = False,
    checkpointing: bool = False,
) -> Weights:  # fmt: skip
    """A causal language model of Transformers.

    path           a folder or hub id of weights, or a configuration; None: the problem's own
    lora           rank of LoRA adapters, which alone are trained (Hu et al., arXiv:2106.09685); 0: all weights are
    alpha          of LoRA: an adapter counts alpha / rank; None: twice the rank
    targets        modules that get one, by the ends of their names; none: every linear layer but the head
    bf16           compute in bfloat16, see `precision`
    checkpointing  keep one state a layer for the gradient and compute the rest again: less memory, a third more time
    """
    return Weights(path, lora, alpha, targets, bf16, checkpointing)


