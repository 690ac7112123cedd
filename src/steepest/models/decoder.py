"""The fast path of decoders built as Llama is: on a Transformers model's own parameters, without padding.

Three things make it fast, none of them changes a number beyond rounding: a prompt that several answers
share is computed once, in sampling and under the gradient; linear layers see real tokens only; answers that
have ended leave the batch while the others go on. What the vocabulary makes large is computed in chunks.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from . import stack
from .precision import Head, recomputed
from .stack import Texts

FAMILIES = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")
ROTATIONS = ("default", "linear", "llama3", "yarn")  # whose angles do not depend on the batch
CHUNK = 1 << 24  # logits held at once: 64 MB in float32
SMALL = 512  # queries x keys of one text up to which plain products beat torch's fused attention


def fits(model: nn.Module) -> bool:
    """Whether `model` is one of the families, with attention to everything before."""
    config = getattr(model, "config", None)
    if type(model).__name__ not in FAMILIES:
        return False
    windows = set(getattr(config, "layer_types", None) or ()) - {"full_attention"}
    window = getattr(config, "sliding_window", None) if type(model).__name__ == "MistralForCausalLM" else None
    rotation = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
    return not windows and window is None and rotation in ROTATIONS


class Packed:
    """Where the real tokens of N prompts and answers lie: each distinct prompt once, then what was answered.

    ids [M] the tokens; position [M] where each stands in its own text; prompt [N] which of the U distinct
    prompts an answer belongs to; ends [E] the tokens from which something is predicted: the last of each prompt,
    then all of the answers; decision [D] which of those predicts decision d, in the order of ``mask.nonzero()``.
    Where all prompts are `known` to differ they keep their order.
    """

    def __init__(self, obs: dict[str, Tensor], action: Tensor, mask: Tensor, *, known: bool = False):
        real = obs["mask"] > 0
        ids = obs["ids"].masked_fill(~real, -1)
        unique, self.prompt = (ids, torch.arange(len(ids), device=ids.device)) if known else distinct(ids)
        lengths = (unique >= 0).sum(1)
        width = int(lengths.max())
        unique = unique[:, unique.shape[1] - width :]
        asked = unique >= 0
        # an answer token is read if some later token is decided; the mask may have holes
        said = (mask > 0).flip(1).cumsum(1).flip(1)[:, 1:] > 0
        tokens = action[:, :-1]
        self.asked, self.said = Slots(asked), Slots(said)
        self.ids = torch.cat([unique[asked], tokens[said]])
        ends = lengths[self.prompt, None] + torch.arange(said.shape[1], device=said.device)
        self.position = torch.cat([(asked.cumsum(1) - 1)[asked], ends[said]])
        self.lengths = lengths
        answers = torch.arange(self.asked.count, len(self.ids), device=action.device)
        self.ends = torch.cat([lengths.cumsum(0) - 1, answers])
        u, (n, t) = len(unique), said.shape
        source = torch.empty_like(action)
        source[:, 0] = self.prompt
        source[:, 1:][said] = answers - self.asked.count + u
        self.decision = source[mask > 0]
        self.block = asked, u, n, t

    @cached_property
    def masks(self) -> tuple[Tensor, Tensor]:
        """Which keys a prompt's tokens see [..., L, L], and those of an answer [..., T, L + T]."""
        asked, _, n, t = self.block
        width = asked.shape[1]
        causal = torch.ones(width, width, dtype=torch.bool, device=asked.device).tril()
        later = torch.ones(t, t, dtype=torch.bool, device=asked.device).tril()
        if self.asked.index is None:
            return causal, torch.cat([later.new_ones(t, width), later], 1)
        # a padded query attends to itself, so that its softmax exists
        alone = torch.eye(width, dtype=torch.bool, device=asked.device)
        before = asked[self.prompt][:, None].expand(n, t, width)
        return ((causal & asked[:, None]) | alone)[:, None], torch.cat([before, later.expand(n, t, t)], 2)[:, None]

    @cached_property
    def texts(self) -> Texts:
        """The same for the kernels: prompts, then answers that have tokens."""
        lengths, many = self.lengths, self.said.lengths
        starts, none = lengths.cumsum(0) - lengths, torch.zeros_like(lengths)
        begin = many.cumsum(0) - many + self.asked.count
        asked = torch.stack([none, none, starts, lengths, starts, lengths], 1)
        said = torch.stack([starts[self.prompt], lengths[self.prompt], begin, many, begin, many], 1)
        longest = int((lengths[self.prompt] + many).max())
        return Texts(torch.cat([asked, said]), longest, self.ends)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Attention of all packed tokens: q [M, H, D], k and v [M, G, D] -> [M, H, D], and the prompts' k and v [U, G, L, D]."""
        m = self.asked.count
        asked_k, asked_v = self.asked.spread(k[:m]), self.asked.spread(v[:m])
        out = self.asked.gather(attention(self.asked.spread(q[:m]), asked_k, asked_v, self.masks[0]))
        if m < len(q):
            keys = torch.cat([asked_k.index_select(0, self.prompt), self.said.spread(k[m:])], 2)
            values = torch.cat([asked_v.index_select(0, self.prompt), self.said.spread(v[m:])], 2)
            out = torch.cat([out, self.said.gather(attention(self.said.spread(q[m:]), keys, values, self.masks[1]))])
        return out, asked_k, asked_v


class Slots:
    """Real tokens [M, H, D] to and from a padded block [rows, H, length, D]; padding holds zeros."""

    def __init__(self, real: Tensor):
        self.rows, self.length = real.shape
        self.lengths = real.sum(1)
        index = real.flatten().nonzero().squeeze(1)
        self.count = len(index)
        self.index = None if self.count == real.numel() else index

    def spread(self, x: Tensor) -> Tensor:
        if self.index is not None:
            x = x.new_zeros(self.rows * self.length, *x.shape[1:]).index_copy(0, self.index, x)
        return x.view(self.rows, self.length, *x.shape[1:]).transpose(1, 2)

    def gather(self, x: Tensor) -> Tensor:
        x = x.transpose(1, 2).flatten(0, 1)
        return x if self.index is None else x.index_select(0, self.index)


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """q [B, H, T, D], k and v [B, G, S, D] where G divides H, mask [..., T, S] bool -> [B, H, T, D]."""
    if mask.shape[-2] * mask.shape[-1] > SMALL:
        return F.scaled_dot_product_attention(q, k, v, mask, enable_gqa=q.shape[1] != k.shape[1])
    if q.shape[1] != k.shape[1]:
        k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], 1) for x in (k, v))
    score = (q @ k.transpose(2, 3)) * q.shape[-1] ** -0.5
    return score.masked_fill(~mask, -torch.inf).softmax(-1) @ v


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x [M, H, D] turned by the angles of its position; cos and sin [M, 1, D]."""
    left, right = x.chunk(2, -1)
    return x * cos + torch.cat([-right, left], -1) * sin


def project(layer: Any, x: Tensor, angles: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Queries [M, H, D], keys and values [M, G, D] of tokens x [M, hidden]."""
    part = layer.self_attn
    x = layer.input_layernorm(x)
    q, k, v = (proj(x).unflatten(-1, (-1, part.head_dim)) for proj in (part.q_proj, part.k_proj, part.v_proj))
    if hasattr(part, "q_norm"):
        q, k = part.q_norm(q), part.k_norm(k)
    return rotate(q, *angles), rotate(k, *angles), v


def finish(layer: Any, x: Tensor, heads: Tensor) -> Tensor:
    """What follows attention in a layer."""
    x = x + layer.self_attn.o_proj(heads.flatten(-2))
    return x + layer.mlp(layer.post_attention_layernorm(x))


def angles_at(trunk: Any, x: Tensor, position: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the angles of positions [M], each [M, D]."""
    cos, sin = trunk.rotary_emb(x, position[None])
    return cos[0], sin[0]


def layers(trunk: Any, packed: Packed, x: Tensor, angles: tuple[Tensor, Tensor]) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
    """States [E, hidden] of ``packed.ends``, and each layer's keys and values of the prompts [U, G, L, D]."""
    angles = (angles[0][:, None], angles[1][:, None])
    prompts = []
    for layer in trunk.layers:
        last = layer is trunk.layers[-1]
        if recomputed(layer) and torch.is_grad_enabled():
            x, k, v = checkpoint(through, layer, packed, x, angles, last, use_reentrant=False, preserve_rng_state=False)
        else:
            x, k, v = through(layer, packed, x, angles, last)
        prompts.append((k, v))
    return trunk.norm(x), prompts


def through(
    layer: Any, packed: Packed, x: Tensor, angles: tuple[Tensor, Tensor], last: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens x [M, hidden] behind a layer, of the `last` those of ``packed.ends`` alone; the prompts' k and v [U, G, L, D]."""
    heads, k, v = packed.attend(*project(layer, x, angles))
    if last:  # nothing reads the others any more
        x, heads = x.index_select(0, packed.ends), heads.index_select(0, packed.ends)
    return finish(layer, x, heads), k, v


def read(trunk: Any, packed: Packed, kernels: bool = True) -> Tensor:
    """States [E, hidden] of ``packed.ends``: by the kernels, if wanted, where they know the layers and the texts are short."""
    x = trunk.embed_tokens(packed.ids)
    angles = angles_at(trunk, x, packed.position)
    known = stack.known(trunk) if kernels else None
    if known is None or packed.texts.longest > stack.LONGEST:
        return layers(trunk, packed, x, angles)[0]
    return stack.read(known, packed.texts, x, angles, lambda x: layers(trunk, packed, x, angles)[0])


def hidden(trunk: Any, obs: dict[str, Tensor], action: Tensor, mask: Tensor, *, kernels: bool = True) -> Tensor:
    """The state from which each decision is predicted [D, hidden], in the order of ``mask.nonzero()``."""
    packed = Packed(obs, action, mask)
    return read(trunk, packed, kernels).index_select(0, packed.decision)


def distinct(rows: Tensor) -> tuple[Tensor, Tensor]:
    """The different rows of [N, L], and for each row which of those it is [N].

    Rows are told apart by a number made of them, which is sorted in a fraction of the time; should two share one, by themselves.
    """
    factors = torch.full((rows.shape[1],), 0x5851F42D4C957F2D, device=rows.device).cumprod(0)  # modulo 2^64
    _, which = torch.unique((rows + 2).mul(factors).sum(1), return_inverse=True)
    found = rows.new_empty(int(which.max()) + 1, rows.shape[1])
    found[which] = rows
    return (found, which) if torch.equal(found.index_select(0, which), rows) else torch.unique(rows, dim=0, return_inverse=True)


def token_logp(head: Any, x: Tensor, token: Tensor, temperature: float, *, entropy: bool = False) -> tuple[Tensor, Tensor | None]:
    """Log-probability of token [D] given its state x [D, hidden], and the entropy there, in float32.

    At most CHUNK logits exist at once, however many decisions and words there are; the gradient computes them again. Where the
    head is more than a matrix (an adapter, a hook), torch's checkpoints do that, at three times the memory.
    """
    size = max(1, CHUNK // head.weight.shape[0])
    if type(head) in (nn.Linear, Head) and not stack.watched(head):
        with torch.autocast(x.device.type, enabled=False):
            logp, spread = TokenLogp.apply(x.to(head.weight.dtype), head.weight, head.bias, token, temperature, size, entropy)
        return logp, spread if entropy else None

    def piece(x: Tensor, token: Tensor) -> Tensor:
        return torch.stack(plain_logp(head(x), token, temperature))

    pieces = zip(x.split(size), token.split(size), strict=True)
    out = torch.cat([checkpoint(piece, *p, use_reentrant=False, preserve_rng_state=False) for p in pieces], 1)
    return out[0], out[1] if entropy else None


def plain_logp(logits: Tensor, token: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Log-probability of token [D] and the entropy [D] of what logits [D, V] say."""
    logp = (logits.float() / temperature).log_softmax(-1)
    spread = -(logp.exp() * logp.masked_fill(logp == -torch.inf, 0.0)).sum(-1)
    return logp.gather(1, token[:, None]).squeeze(1), spread


def scores(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Logits of states x [n, hidden] in float32. Of lower precision nothing is rounded between the products and the sum."""
    if x.dtype == torch.float32:
        return torch.mm(x, weight.t()) if bias is None else torch.addmm(bias, x, weight.t())
    if x.is_cuda and x.dtype in (torch.bfloat16, torch.float16):
        out = torch.mm(x, weight.t(), out_dtype=torch.float32)
    else:
        x, step = x.float(), max(1, CHUNK // 4 // weight.shape[1])  # words whose row is made longer at once
        out = torch.cat([x @ part.float().t() for part in weight.split(step)], 1)
    return out if bias is None else out.add_(bias)


def head_scores(head: Any, x: Tensor) -> Tensor:
    """Logits [n, V] of states x [n, hidden], as `token_logp` has them."""
    return scores(x, head.weight, head.bias) if type(head) is nn.Linear and not stack.watched(head) else head(x).float()


class TokenLogp(torch.autograd.Function):
    """Log-probabilities [D] and entropies [D] of states x [D, hidden] behind a matrix, `size` states at a time.

    With p the probabilities and H the entropy, the gradients by the logits are 1[token] - p and -p (log p + H). A gradient that is
    itself to be differentiated goes through `plain_logp`.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, token: Tensor, temperature: float, size: int, entropy: bool
    ) -> tuple[Tensor, Tensor]:
        logp, total, spread = (torch.empty(len(x), dtype=torch.float32, device=x.device) for _ in range(3))
        for at in range(0, len(x), size):
            here = slice(at, at + size)
            z = scores(x[here], weight, bias).div_(temperature)
            logp[here] = z.gather(1, token[here, None]).squeeze(1)
            total[here] = z.logsumexp(1)
            if entropy:
                p = z.sub_(total[here, None]).exp_()
                spread[here] = torch.special.entr(p).sum(1)
        ctx.save_for_backward(x, weight, token, total, spread, *([] if bias is None else [bias]))
        ctx.temperature, ctx.size, ctx.entropy = temperature, size, entropy
        return logp.sub_(total), spread

    @staticmethod
    def backward(ctx: Any, by_logp: Tensor, by_spread: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, token, total, spread, *rest = ctx.saved_tensors
        bias = rest[0] if rest else None
        if torch.is_grad_enabled():
            wanted = [t for t, need in zip((x, weight, bias), ctx.needs_input_grad, strict=False) if need]
            both = plain_logp(F.linear(x, weight, bias), token, ctx.temperature)
            slopes = [by_logp, by_spread] if ctx.entropy else [by_logp]
            again = iter(torch.autograd.grad(both[: len(slopes)], wanted, slopes, create_graph=True))
            return tuple(next(again) if need else None for need in ctx.needs_input_grad)
        by_x = torch.empty_like(x) if ctx.needs_input_grad[0] else None
        by_weight = torch.zeros_like(weight, dtype=torch.float32) if ctx.needs_input_grad[1] else None
        by_bias = torch.zeros_like(bias, dtype=torch.float32) if bias is not None and ctx.needs_input_grad[2] else None
        for at in range(0, len(x), ctx.size):
            here = slice(at, at + ctx.size)
            p = scores(x[here], weight, bias).div_(ctx.temperature).sub_(total[here, None]).exp_()
            g = by_logp[here, None] / ctx.temperature
            if ctx.entropy:
                h = by_spread[here, None] / ctx.temperature
                by = torch.special.entr(p).mul_(h)
                by -= p.mul_(g + h * spread[here, None])
            else:
                by = p.mul_(-g)
            by.scatter_add_(1, token[here, None], g)
            by = by.to(x.dtype)
            if by_x is not None:
                torch.mm(by, weight, out=by_x[here])
            if by_weight is not None:
                by_weight.addmm_(by.t(), x[here]) if x.dtype == torch.float32 else by_weight.add_(by.t() @ x[here])
            if by_bias is not None:
                by_bias += by.sum(0)
        found = (part if part is None else part.to(weight.dtype) for part in (by_weight, by_bias))
        return (by_x, *found, None, None, None, None)
