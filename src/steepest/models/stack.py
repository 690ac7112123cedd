"""The layers of a small decoder as native calls around torch's matrix products, with their gradient written by hand.

On small models most of the time goes into what surrounds the products: a norm is six operations of torch and their gradients, a
rotation five, attention of short texts is mostly padding and masks. Here each is one call that reads what it needs once; what a
gradient can compute again (normed states, gated ones) is not kept. The twin is the layers in torch, see `decoder.read`, which also
does what this does not: other devices and precisions, adapters, hooks, long texts, gradients of gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers.activations import SiLUActivation

from ..core import native
from .precision import recomputed

SPAN = 6  # numbers of a text's span
LONGEST = 256  # tokens of a text: beyond, torch's attention is the faster one
WIDEST = 1024  # of the states: beyond, products are all that counts, and the calls here are of one thread


class Layer(NamedTuple):
    """The modules of one layer; those of the queries' and keys' norms are None where there are none."""

    first: Any
    q: Any
    k: Any
    v: Any
    q_norm: Any
    k_norm: Any
    o: Any
    second: Any
    gate: Any
    up: Any
    down: Any
    depth: int  # of a head
    scale: float

    def modules(self) -> list[Any]:
        return [part for part in self[:-2] if part is not None]


class Stack(NamedTuple):
    """The layers, the last norm, and the parameters of both, each once."""

    layers: list[Layer]
    norm: Any
    parameters: list[Tensor]


class Texts(NamedTuple):
    """Where packed tokens stand: spans [S, 6] as the kernel reads them (csrc/text_calls.h), the most keys that one of them sees,
    and which tokens [E] go through the whole of the last layer."""

    spans: Tensor
    longest: int
    ends: Tensor


class Kept(NamedTuple):
    """What a layer's gradient reads again: states [M, hidden] and what they became."""

    x: Tensor
    inv: Tensor  # of the first norm [M]
    q: Tensor  # [M, H D] as attention saw them
    k: Tensor
    v: Tensor
    raw_q: Tensor  # before their norm; q and k themselves where there is none
    raw_k: Tensor
    inv_q: Tensor
    inv_k: Tensor
    heads: Tensor  # [M, H D]
    total: Tensor  # logarithm of the sum of the weights [M, H]
    y: Tensor  # after attention [E or M, hidden]
    inv_y: Tensor
    gate: Tensor
    up: Tensor


def known(trunk: Any) -> Stack | None:
    """The layers as the kernels want them: of single precision, on a CPU, of plain modules; else None.

    Asked before every use, as adapters and hooks come later than a model.
    """
    if native.library is None or trunk.config.hidden_size > WIDEST or torch.is_autocast_enabled("cpu"):
        return None
    if torch.is_grad_enabled() and recomputed(trunk.layers[0]):
        return None
    layers = []
    for layer in trunk.layers:
        part, mlp = layer.self_attn, layer.mlp
        if not isinstance(mlp.act_fn, nn.SiLU | SiLUActivation) or watched(part) or watched(mlp):
            return None
        norms = getattr(part, "q_norm", None), getattr(part, "k_norm", None)
        read = layer.input_layernorm, part.q_proj, part.k_proj, part.v_proj, *norms, part.o_proj
        rest = layer.post_attention_layernorm, mlp.gate_proj, mlp.up_proj, mlp.down_proj
        layers.append(Layer(*read, *rest, part.head_dim, part.scaling))
    parameters: list[Tensor] = []
    for module in [part for layer in layers for part in layer.modules()] + [trunk.norm]:
        if (type(module) is not nn.Linear and not hasattr(module, "variance_epsilon")) or watched(module):
            return None
        parameters += [p for p in module._parameters.values() if p is not None]
    if not native.fits(*parameters) or len(set(parameters)) < len(parameters):
        return None
    if torch.is_grad_enabled() and not all(p.requires_grad for p in parameters):
        return None
    return Stack(layers, trunk.norm, parameters)


def watched(module: Any) -> bool:
    """Whether somebody hooked on to it."""
    return bool(module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks)


def read(stack: Stack, texts: Texts, x: Tensor, angles: tuple[Tensor, Tensor], plain: Callable[[Tensor], Tensor]) -> Tensor:
    """States [E, hidden] behind the last norm, from embedded tokens x [M, hidden] and the angles of their positions [M, D].

    plain  the same in torch, where a gradient is to be differentiated itself
    """
    if torch.is_grad_enabled():
        return Layers.apply(x, stack, texts, angles, plain, *stack.parameters)
    return norm(stack.norm, forward(stack, texts, x, angles)[0])[0]


class Looked(NamedTuple):
    """What a layer makes of its tokens before they attend: queries, keys and values as attention sees them, and before the heads'
    own norm, with what rows were multiplied with."""

    inv: Tensor
    q: Tensor
    k: Tensor
    v: Tensor
    raw_q: Tensor
    raw_k: Tensor
    inv_q: Tensor
    inv_k: Tensor


def look(layer: Layer, x: Tensor, angles: tuple[Tensor, Tensor]) -> Looked:
    normed, inv = norm(layer.first, x)
    raw_q, raw_k, v = (linear(part, normed) for part in (layer.q, layer.k, layer.v))
    q, inv_q = head_norm(layer.q_norm, raw_q, layer.depth)
    k, inv_k = head_norm(layer.k_norm, raw_k, layer.depth)
    turn(q, angles, layer.depth, 1.0)
    turn(k, angles, layer.depth, 1.0)
    return Looked(inv, q, k, v, raw_q, raw_k, inv_q, inv_k)


def think(layer: Layer, x: Tensor, heads: Tensor) -> Tensor:
    """What follows attention in a layer, where no gradient is asked for."""
    y = linear(layer.o, heads, x)
    normed, _ = norm(layer.second, y)
    gate = linear(layer.gate, normed)
    return linear(layer.down, gated(gate, linear(layer.up, normed), gate), y)


def forward(
    stack: Stack, texts: Texts, x: Tensor, angles: tuple[Tensor, Tensor], keep: bool = False
) -> tuple[Tensor, list[Kept], list[tuple[Tensor, Tensor]]]:
    """States [E, hidden] before the last norm, what the gradient reads again if that is to `keep`, and all keys and values."""
    kept, pairs = [], []
    for number, layer in enumerate(stack.layers):
        seen = look(layer, x, angles)
        pairs.append((seen.k, seen.v))
        heads, total = attend(layer, texts, seen.q, pairs[-1], pairs[-1])
        start, some = x, heads
        if number == len(stack.layers) - 1:  # nothing reads the others any more
            start, some = x.index_select(0, texts.ends), heads.index_select(0, texts.ends)
        if not keep:
            x = think(layer, start, some)
            continue
        y = linear(layer.o, some, start)
        normed, inv_y = norm(layer.second, y)
        gate, up = linear(layer.gate, normed), linear(layer.up, normed)
        kept.append(Kept(x, *seen, heads, total, y, inv_y, gate, up))
        x = linear(layer.down, gated(gate, up, torch.empty_like(gate)), y)
    return x, kept, pairs


class Layers(torch.autograd.Function):
    """`forward` and its gradient. A gradient that is itself to be differentiated goes through `plain`."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, stack: Stack, texts: Texts, angles: tuple[Tensor, Tensor], plain: Callable[[Tensor], Tensor],
        *parameters: Tensor,
    ) -> Tensor:  # fmt: skip
        last, kept, _ = forward(stack, texts, x, angles, keep=True)
        out, inv = norm(stack.norm, last)
        ctx.save_for_backward(x, last, inv, *angles, *parameters, *(part for layer in kept for part in layer))
        ctx.stack, ctx.texts, ctx.plain = stack, texts, plain
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, last, inv, cos, sin, *saved = ctx.saved_tensors
        stack: Stack = ctx.stack
        count = len(stack.parameters)
        if torch.is_grad_enabled():
            needed = ctx.needs_input_grad[:1] + ctx.needs_input_grad[5:]
            wanted = [t for t, need in zip((x, *saved[:count]), needed, strict=True) if need]
            again = iter(torch.autograd.grad(ctx.plain(x), wanted, grad, create_graph=True, materialize_grads=True))
            return tuple(next(again) if need else None for need in ctx.needs_input_grad)
        kept = [Kept(*saved[at : at + len(Kept._fields)]) for at in range(count, len(saved), len(Kept._fields))]
        found: dict[Tensor, Tensor] = {}
        by = torch.zeros_like(last)
        norm_back(stack.norm, last, inv, grad.contiguous(), by, found)
        for number, (layer, mine) in reversed(list(enumerate(zip(stack.layers, kept, strict=True)))):
            ends = ctx.texts.ends if number == len(kept) - 1 else None
            by = layer_back(layer, mine, ctx.texts, ends, (cos, sin), by, found)
        return (by, None, None, None, None, *(found[p] for p in stack.parameters))


def layer_back(
    layer: Layer, kept: Kept, texts: Texts, ends: Tensor | None, angles: tuple[Tensor, Tensor], by: Tensor,
    found: dict[Tensor, Tensor],
) -> Tensor:  # fmt: skip
    """The gradient by a layer's input, given that by its output, in whose place it may stand; parameters' go to `found`."""
    hidden = gated(kept.gate, kept.up, torch.empty_like(kept.gate))
    by_gate = by @ layer.down.weight
    linear_back(layer.down, hidden, by, found)
    by_up = hidden  # whose room is free now
    native.library.gate_back(
        by_up.numel(), kept.gate.data_ptr(), kept.up.data_ptr(), by_gate.data_ptr(), by_gate.data_ptr(), by_up.data_ptr()
    )
    normed, _ = norm(layer.second, kept.y)
    linear_back(layer.gate, normed, by_gate, found)
    linear_back(layer.up, normed, by_up, found)
    by_normed = torch.mm(by_gate, layer.gate.weight).addmm_(by_up, layer.up.weight)
    norm_back(layer.second, kept.y, kept.inv_y, by_normed, by, found)
    by_heads = by @ layer.o.weight
    linear_back(layer.o, kept.heads if ends is None else kept.heads.index_select(0, ends), by, found)
    if ends is not None:
        by_heads, by = (x.new_zeros(len(kept.x), x.shape[1]).index_copy_(0, ends, x) for x in (by_heads, by))
    by_q, by_k, by_v = torch.empty_like(kept.q), torch.zeros_like(kept.k), torch.zeros_like(kept.v)
    native.library.attend_back(
        *shape(layer), layer.scale, len(texts.spans), texts.spans.data_ptr(),
        *(x.data_ptr() for x in (kept.q, kept.k, kept.v, kept.heads, kept.total, by_heads, by_q, by_k, by_v)),
    )  # fmt: skip
    turn(by_q, angles, layer.depth, -1.0)
    turn(by_k, angles, layer.depth, -1.0)
    by_q = head_norm_back(layer.q_norm, kept.raw_q, kept.inv_q, by_q, layer.depth, found)
    by_k = head_norm_back(layer.k_norm, kept.raw_k, kept.inv_k, by_k, layer.depth, found)
    normed, _ = norm(layer.first, kept.x)
    for part, grad in ((layer.q, by_q), (layer.k, by_k), (layer.v, by_v)):
        linear_back(part, normed, grad, found)
    by_normed = torch.mm(by_q, layer.q.weight).addmm_(by_k, layer.k.weight).addmm_(by_v, layer.v.weight)
    norm_back(layer.first, kept.x, kept.inv, by_normed, by, found)
    return by


def linear(module: Any, x: Tensor, plus: Tensor | None = None) -> Tensor:
    """x [M, I] -> [M, O], and `plus` [M, O] where it is given."""
    weight, bias = module._parameters["weight"].t(), module._parameters["bias"]
    if plus is None:
        return torch.mm(x, weight) if bias is None else torch.addmm(bias, x, weight)
    return torch.addmm(plus, x, weight) if bias is None else torch.addmm(plus, x, weight).add_(bias)


def linear_back(module: Any, x: Tensor, by: Tensor, found: dict[Tensor, Tensor]) -> None:
    parameters = module._parameters
    found[parameters["weight"]] = by.t() @ x
    if parameters["bias"] is not None:
        found[parameters["bias"]] = by.sum(0)


def norm(module: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """x [..., width] over its root mean square, times the weight; and what each row was multiplied with."""
    out, inv = torch.empty_like(x), x.new_empty(x.shape[:-1])
    weight = module._parameters["weight"]
    native.library.rms(inv.numel(), x.shape[-1], module.variance_epsilon, *(part.data_ptr() for part in (x, weight, out, inv)))
    return out, inv


def norm_back(module: Any, x: Tensor, inv: Tensor, by: Tensor, to: Tensor, found: dict[Tensor, Tensor]) -> None:
    """Add to `to` the gradient by x, given that by the norm of x."""
    weight = module._parameters["weight"]
    found[weight] = torch.zeros_like(weight)
    native.library.rms_back(
        inv.numel(), x.shape[-1], *(part.data_ptr() for part in (x, weight, inv, by, to, found[weight])),
    )  # fmt: skip


def head_norm(module: Any, x: Tensor, depth: int) -> tuple[Tensor, Tensor]:
    """The norm of every head in x [M, H D]; x itself where there is none."""
    if module is None:
        return x, x
    out, inv = norm(module, x.unflatten(1, (-1, depth)))
    return out.flatten(1), inv


def head_norm_back(module: Any, x: Tensor, inv: Tensor, by: Tensor, depth: int, found: dict[Tensor, Tensor]) -> Tensor:
    if module is None:
        return by
    to = torch.zeros_like(x)
    norm_back(module, x.unflatten(1, (-1, depth)), inv, by, to, found)
    return to


def turn(x: Tensor, angles: tuple[Tensor, Tensor], depth: int, way: float) -> None:
    """Turn the heads of x [M, H D] by the angles [M, D], in place."""
    native.library.turn(len(x), x.shape[1] // depth, depth, way, angles[0].data_ptr(), angles[1].data_ptr(), x.data_ptr())


def gated(gate: Tensor, up: Tensor, out: Tensor) -> Tensor:
    native.library.gate(out.numel(), gate.data_ptr(), up.data_ptr(), out.data_ptr())
    return out


def shape(layer: Layer) -> tuple[int, int, int]:
    """Heads of queries, heads of keys, numbers of each."""
    return layer.q.out_features // layer.depth, layer.k.out_features // layer.depth, layer.depth


def attend(layer: Layer, texts: Texts, q: Tensor, before: Sequence[Tensor], own: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """What queries [M, H D] see of keys and values before their text and of its own, as ``texts.spans`` say."""
    heads, keys, depth = shape(layer)
    out, total = torch.empty_like(q), q.new_empty(len(q), heads)
    native.library.attend(
        heads, keys, depth, texts.longest, layer.scale, len(texts.spans), texts.spans.data_ptr(),
        *(x.data_ptr() for x in (q, *before, *own, out, total)),
    )  # fmt: skip
    return out, total
