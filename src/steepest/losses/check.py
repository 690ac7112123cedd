"""Conformance of policy-gradient losses: the laws that every one obeys unless its paper breaks them by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType

import torch
from torch import Tensor

from .reduce import token_mean
from .terms import Loss, Terms

Columns = Mapping[str, Callable[[Terms], Tensor]]
NONE: Columns = MappingProxyType({})


def check_loss(loss: Loss, *, exempt: tuple[str, ...] = (), columns: Columns = NONE) -> list[str]:
    """Raise AssertionError at the first law that the loss breaks; else name the laws that hold.

    on_policy       at ratio 1 the gradient is REINFORCE's
    zero_advantage  no advantage, no gradient with respect to the policy (with reference = policy)
    order           permuting trajectories permutes the values
    padding         what lies under the mask changes nothing, however wild
    finite          value and gradient are finite at log-ratios of +-50
    pure            equal terms give equal values, inputs are left alone, no random number is drawn
    cut             the values of a part of the batch are those of the whole

    exempt   laws that the loss breaks because its paper does; each must really be broken
    columns  what makes the loss's own columns [N, T] of the other terms, by name
    """
    unknown = set(exempt) - CHECKS.keys()
    if unknown:
        raise ValueError(f"there is no law {sorted(unknown)}; the laws are {', '.join(CHECKS)}")
    held = []
    for law, check in CHECKS.items():
        fault = check(loss, columns)
        if law in exempt:
            assert fault, f"{loss} is exempt from `{law}` but obeys it: drop the exemption"
        else:
            assert not fault, f"{loss} breaks `{law}`: {fault}"
            held.append(law)
    return held


def example(columns: Columns = NONE, n: int = 6, t: int = 5, spread: float = 0.5) -> Terms:
    """Random terms in float64, every third decision masked, three trajectories of a group; `old` and `ref` within `spread` of
    `new`."""
    g = torch.Generator().manual_seed(0)

    def normal() -> Tensor:
        return torch.randn(n, t, generator=g, dtype=torch.float64)

    new = (normal() - 2).requires_grad_()
    mask = (torch.rand(n, t, generator=g) > 0.3).double()
    mask[:, 0] = 1
    old = new.detach() + spread * normal()
    ref = new.detach() + spread * normal() if spread else new.detach()
    value = normal().requires_grad_()
    near = 0.5 * (new - old).detach() ** 2  # a divergence: 0 where the two are one
    price = torch.full_like(near, 0.7)
    key = (torch.arange(n) // 3)[:, None].expand(n, t)
    terms = Terms(new, old, normal(), mask, ref, normal(), value, value.detach() + normal(), normal(), near, near, price, key)
    terms = replace(terms, blind=new.detach() + spread * normal() if spread else new.detach())
    return replace(terms, extra={name: make(terms) for name, make in columns.items()})


def values(loss: Loss, terms: Terms) -> Tensor:
    out = loss(terms).loss
    if out.shape != terms.mask.shape:
        raise AssertionError(f"{loss} gives shape {list(out.shape)}, not a value for each of {list(terms.mask.shape)} decisions")
    return out


def gradient(loss: Loss, terms: Terms) -> Tensor:
    value = (torch.where(terms.mask > 0, values(loss, terms), 0.0) * token_mean(terms.mask)).sum()
    (g,) = torch.autograd.grad(value, terms.new, allow_unused=True)
    return torch.zeros_like(terms.new) if g is None else g


def on_policy(loss: Loss, columns: Columns) -> str:
    terms = example(columns, spread=0.0)
    expected = -terms.advantage * token_mean(terms.mask)
    got = gradient(loss, terms)
    gap = float((got - expected).abs().max())
    return "" if gap < 1e-10 else f"at ratio 1 its gradient is off REINFORCE's by {gap:.2g}"


def zero_advantage(loss: Loss, columns: Columns) -> str:
    terms = example(columns, spread=0.0)
    terms = terms.each(lambda name, x: torch.zeros_like(x) if name == "advantage" else x)
    size = float(gradient(loss, terms).abs().max())
    return "" if size < 1e-12 else f"with no advantage the gradient is still {size:.2g}"


def order(loss: Loss, columns: Columns) -> str:
    terms = example(columns)
    index = torch.tensor([3, 0, 5, 1, 4, 2])
    made = terms.mask[index] > 0
    permuted = values(loss, terms.each(lambda _, x: x[index]))
    return "" if torch.allclose(permuted[made], values(loss, terms)[index][made]) else "the order of trajectories matters"


def padding(loss: Loss, columns: Columns) -> str:
    terms = example(columns)
    base = gradient(loss, terms)

    def pad(name: str, x: Tensor) -> Tensor:
        wild = {"mask": 0.0, "new": 9.0, "old": -9.0}.get(name, 700.0)
        return torch.cat([x, torch.full((len(x), 2), wild, dtype=x.dtype)], 1)

    padded = terms.each(pad)
    value = (torch.where(padded.mask > 0, values(loss, padded), 0.0) * token_mean(padded.mask)).sum()
    (g,) = torch.autograd.grad(value, terms.new, allow_unused=True)
    if g is None:
        g = torch.zeros_like(base)
    return "" if torch.allclose(g, base, atol=1e-12) else "what lies under the mask changes the gradient"


def finite(loss: Loss, columns: Columns) -> str:
    terms = example(columns)
    signs = torch.where(torch.arange(terms.mask.numel()).reshape(terms.mask.shape) % 2 == 0, 50.0, -50.0).double()
    far = terms.each(lambda name, x: terms.new.detach() + signs if name in ("old", "ref") else x)
    made = far.mask > 0
    if not bool(torch.isfinite(values(loss, far)[made]).all()):
        return "its value is not finite at log-ratios of +-50"
    return "" if bool(torch.isfinite(gradient(loss, far)).all()) else "its gradient is not finite at log-ratios of +-50"


def pure(loss: Loss, columns: Columns) -> str:
    terms = example(columns)
    copies = terms.each(lambda _, x: x.detach().clone())
    before = torch.get_rng_state()
    first, second = values(loss, terms), values(loss, terms)
    if not torch.equal(first, second):
        return "equal terms give different values: it remembers something or draws random numbers"
    if not torch.equal(before, torch.get_rng_state()):
        return "it draws from the global generator"
    edited = list[str]()

    def compare(name: str, x: Tensor) -> Tensor:
        copy = copies.extra[name] if name in copies.extra else getattr(copies, name)
        edited.extend([] if torch.equal(x, copy) else [name])
        return x

    terms.each(compare)
    return f"it edits its inputs in place: {', '.join(edited)}" if edited else ""


def cut(loss: Loss, columns: Columns) -> str:
    terms = example(columns)
    whole = terms.detached()
    parts = [values(loss, replace(terms.each(lambda _, x, s=s: x[s : s + 2]), whole=whole)) for s in range(0, 6, 2)]  # type: ignore[misc]
    made = terms.mask > 0
    same = torch.allclose(torch.cat(parts)[made], values(loss, terms)[made])
    return "" if same else "a part of the batch has other values than the whole"


CHECKS = MappingProxyType({f.__name__: f for f in (on_policy, zero_advantage, order, padding, finite, pure, cut)})
