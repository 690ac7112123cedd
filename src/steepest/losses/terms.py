"""What a policy-gradient loss may look at, and how losses combine."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import hardtanh

LOG_RATIO_MAX = 20.0  # exp(20) is already absurd; beyond it float32 overflows and 0 * inf is NaN


class Missing(ValueError):
    """A loss asked for a term that nobody computed."""


@dataclass(frozen=True)
class Terms:
    """N trajectories x T decisions, whatever a decision is: a token, an action, a denoising step.

    new         log-probability under the policy being trained, with gradient [N, T]
    old         log-probability under the policy that acted [N, T]
    advantage   how much better than expected [N, T]
    mask        1 where a decision was made [N, T]
    ref         log-probability under the frozen reference policy [N, T], if a loss needs it
    entropy     of the policy being trained, with gradient [N, T], if a loss needs it
    value       the critic's estimate, with gradient [N, T], if a loss needs it
    old_value   the critic's estimate when it acted [N, T]
    target      what the critic should have said [N, T]
    kl_old_new  KL(old || new) of the whole distributions, in closed form, with gradient [N, T], if a loss needs it
    kl_new_old  KL(new || old), likewise
    penalty     the present price of a divergence, which the State adapts or learns [N, T], if a loss needs it
    key         which prompt, start state or environment each decision belongs to [N, T] long, if a loss needs it
    blind       log-probability under the policy being trained where the prompt's context is hidden, with gradient [N, T], if a
                loss needs it
    extra       more columns [N, T] by name, which a system's `select` or `credit` wrote for its own loss
    whole       the terms of the whole minibatch [M, T], without gradient, for what is chosen over all of it (a clip range, a
                threshold); None: these are all there are
    """

    new: Tensor
    old: Tensor
    advantage: Tensor
    mask: Tensor
    # None where no loss needs it; a Loss raises Missing before its function could see None
    ref: Tensor = None  # type: ignore[assignment]
    entropy: Tensor = None  # type: ignore[assignment]
    value: Tensor = None  # type: ignore[assignment]
    old_value: Tensor = None  # type: ignore[assignment]
    target: Tensor = None  # type: ignore[assignment]
    kl_old_new: Tensor = None  # type: ignore[assignment]
    kl_new_old: Tensor = None  # type: ignore[assignment]
    penalty: Tensor = None  # type: ignore[assignment]
    key: Tensor = None  # type: ignore[assignment]
    blind: Tensor = None  # type: ignore[assignment]
    extra: Mapping[str, Tensor] = field(default_factory=dict)
    whole: Terms = None  # type: ignore[assignment]

    def each(self, change: Callable[[str, Tensor], Tensor]) -> Terms:
        """`change(name, tensor)` of every column."""
        own = {f.name: x for f in fields(self) if isinstance(x := getattr(self, f.name), Tensor)}
        made: dict[str, Any] = {name: change(name, x) for name, x in own.items()}
        return replace(self, **made, extra={name: change(name, x) for name, x in self.extra.items()})

    def detached(self) -> Terms:
        return self.each(lambda _, x: x.detach())

    @property
    def log_ratio(self) -> Tensor:
        # a clamp whose gradient is one operation
        return self.once("_log_ratio", lambda: hardtanh(self.new - self.old, -LOG_RATIO_MAX, LOG_RATIO_MAX))

    @property
    def ratio(self) -> Tensor:
        return self.once("_ratio", lambda: self.log_ratio.exp())

    def once(self, name: str, make: Callable[[], Tensor]) -> Tensor:
        """What `make` makes, made once for all losses that are added up; anew where a loss looks at it without gradient."""
        if name not in self.__dict__:
            made = make()
            if self.new.requires_grad and not made.requires_grad:
                return made
            self.__dict__[name] = made
        return self.__dict__[name]


class Value(NamedTuple):
    """A loss at every decision [N, T], and what it has to report: [N, T] tensors by name, averaged later."""

    loss: Tensor
    metrics: dict[str, Tensor]


class Loss:
    """A loss term: Terms -> (values [N, T], metrics). Terms add and scale, as in a paper's objective.

    Losses of other records, such as the `PairTerms` of preference pairs, give a value for each of its rows.

    >>> from steepest.losses import clip, k3
    >>> objective = clip(low=0.2, high=0.28) + 0.04 * k3()
    >>> sorted(objective.needs)
    ['ref']
    """

    def __init__(self, fn: Callable[[Any], Any], needs: frozenset[str] = frozenset(), name: str = "loss"):
        self.fn, self.needs, self.name = fn, needs, name

    def __call__(self, terms: Any) -> Value:
        absent = set[str]()
        for need in self.needs:
            if need == "whole" and terms.whole is None:
                terms = replace(terms, whole=terms.detached())
            elif getattr(terms, need, None) is None and need not in getattr(terms, "extra", ()):
                absent.add(need)
        if absent:  # say the same one in every process: of a critic's loss the critic, not the target that would follow from it
            need = next((name for name in WAY_OUT if name in absent), min(absent))
            raise Missing(f"the loss {self.name} needs Terms.{need}, which is None: {WAY_OUT.get(need, COLUMN)}")
        out = self.fn(terms)
        return Value(*out) if isinstance(out, tuple) else Value(out, {})

    def __add__(self, other: Loss) -> Loss:
        def fn(terms: Any) -> Value:
            a, b = self(terms), other(terms)
            return Value(a.loss + b.loss, {**a.metrics, **b.metrics})

        return Loss(fn, self.needs | other.needs, f"{self.name} + {other.name}")

    def __rmul__(self, weight: float) -> Loss:
        def fn(terms: Any) -> Value:
            value, metrics = self(terms)
            return Value(weight * value, metrics)

        return Loss(fn, self.needs, f"{weight:g} * {self.name}")

    def __neg__(self) -> Loss:
        return -1.0 * self

    def __sub__(self, other: Loss) -> Loss:
        return self + (-1.0) * other

    def __repr__(self) -> str:
        return self.name


COLUMN = "let `select` or `credit` write a column of that name (a credit returns it beside the advantage)"
WAY_OUT = MappingProxyType({
    "ref": "give the State a `reference` (a system with kl > 0 does)",
    "entropy": "use a policy whose `logp_entropy` gives it",
    "value": "give the State a `critic` and use a credit that returns value and target",
    "old_value": "use a credit that returns value and target (see steepest.credit.gae)",
    "target": "use a credit that returns value and target (see steepest.credit.gae)",
    "kl_old_new": "use a policy whose `distribution(obs)` has a `kl`",
    "kl_new_old": "use a policy whose `distribution(obs)` has a `kl`",
    "key": "use an engine that gives it",
    "blind": "collect with a hidden context beside the prompt (see steepest.collectors.hidden)",
    "penalty": "give the State a `penalty` (see steepest.optimize.dual.Multiplier)",
})


def loss(*needs: str) -> Callable[[Callable[..., Any]], Callable[..., Loss]]:
    """Turn ``fn(terms, **options) -> [N, T]`` or ``-> ([N, T], metrics)`` into a factory of Loss.

    >>> @loss()
    ... def advantage_weighted(t, *, cap=20.0):
    ...     return -t.new * t.advantage.clamp(max=cap)
    >>> advantage_weighted(cap=2.0)
    advantage_weighted(cap=2.0)
    """

    def decorate(fn: Callable[..., Any]) -> Callable[..., Loss]:
        options_of = inspect.signature(fn)
        own = [p for p in options_of.parameters.values() if p.kind is p.KEYWORD_ONLY]

        @functools.wraps(fn)
        def factory(**options: Any) -> Loss:
            factory.__signature__.bind(**options)  # type: ignore[attr-defined]  # a wrong option fails here, not at the first batch
            shown = ", ".join(f"{k}={v}" for k, v in options.items())
            return Loss(functools.partial(fn, **options), frozenset(needs), f"{fn.__name__}({shown})")

        del factory.__wrapped__  # help() must show the options, not the terms
        factory.__signature__ = options_of.replace(parameters=own, return_annotation=Loss)  # type: ignore[attr-defined]
        factory.__annotations__ = {"return": Loss}
        return factory

    return decorate


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Mean of x [N, T] over the decisions that were made; 0 if there is none."""
    return torch.where(mask > 0, x, 0.0).sum() / mask.sum().clamp(min=1)
