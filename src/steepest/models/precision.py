"""Mixed precision and recomputation of a language model.

The layers compute in bfloat16 (autocast); the weights that are trained stay in float32, for a step of Adam at the learning rates
of fine-tuning is smaller than the distance of two bfloat16 numbers and would be lost; frozen weights are kept in bfloat16. The head
computes in float32, and so do log-probabilities, entropies and losses: the rounding of logits is what makes sampler and trainer
differ most (MiniMax-M1, arXiv:2506.13585, section 3.2).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def mixed(method: Callable[..., Any]) -> Callable[..., Any]:
    """A method of a module that computes in bfloat16 where the module is `lowered`."""

    @functools.wraps(method)
    def inside(self: Any, *args: Any, **options: Any) -> Any:
        if not getattr(self, "lowered", False):
            return method(self, *args, **options)
        with torch.autocast(next(self.parameters()).device.type, torch.bfloat16):
            return method(self, *args, **options)

    return inside


class Head(nn.Linear):
    """A linear layer that computes in float32 whatever surrounds it."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return F.linear(x.float(), self.weight, self.bias)


def lower(policy: Any) -> None:
    """Let a `LanguageModel` compute in bfloat16: trained weights, the head and the embedding in float32, the rest in bfloat16.

    Raises TypeError where the head is no linear layer.
    """
    head, embedding = policy.model.get_output_embeddings(), policy.model.get_input_embeddings()
    if not isinstance(head, nn.Linear):
        raise TypeError(f"the head of {type(policy.model).__name__} is no linear layer: bf16 is not for this model")
    made = Head(head.in_features, head.out_features, head.bias is not None, device="meta")
    made.weight, made.bias = head.weight, head.bias
    policy.model.set_output_embeddings(made)
    kept = {id(p) for module in (made, embedding) for p in module.parameters()}
    for p in policy.model.parameters():
        if not p.requires_grad and p.is_floating_point() and id(p) not in kept:
            p.data = p.data.bfloat16()
    policy.lowered = True


def recompute(policy: Any) -> None:
    """Gradient checkpointing of every layer; raises TypeError where the model has none. Dropout stays off."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    model = policy.model
    if not getattr(model, "supports_gradient_checkpointing", False):
        raise TypeError(f"{type(model).__name__} has no gradient checkpointing: leave checkpointing out, or lower micro")
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable  # its older name
    enable({"use_reentrant": False, "preserve_rng_state": False})
    for module in model.modules():
        if isinstance(module, GradientCheckpointingLayer):
            module.training = True  # what Transformers asks for; the parts below it, dropout too, stay as they are


def recomputed(layer: Any) -> bool:
    """Whether a layer is to be computed again for the gradient."""
    return getattr(layer, "gradient_checkpointing", False) and layer.training
