"""The engine that most papers fill: collect, select, credit, update the loss, write the memories."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..core.batch import Absent, Batch
from ..core.state import State
from ..core.stream import Stream
from ..core.system import System, lacking
from ..losses import Loss, Reduce, Terms, token_mean
from ..optimize.epochs import Update, epochs
from ..optimize.natural import refuse_without_kl
from .compiled import Compiled, compiled

Init = Callable[[Any, Stream], State]
Collect = Callable[[State, Any, Stream], Batch]
Select = Callable[[State, Batch], Batch]
Credit = Callable[[State, Batch], Tensor | dict[str, Tensor]]
After = Callable[[State, Batch], None]
DIVERGENCES = frozenset({"kl_old_new", "kl_new_old"})  # of Terms: they need the distribution that acted
JUDGED = frozenset({"entropy", "value", "old_value", "target"})  # of Terms: what networks that know their own gradient give
WRITTEN = frozenset({"advantage", "value", "target"})  # by a credit; what else it writes is for the system's own loss


def keep(state: State, batch: Batch) -> Batch:
    """Select everything."""
    return batch


def nothing(state: State, batch: Batch) -> None:
    """Write no memory."""


@dataclass(frozen=True)
class PolicyObjective:
    """sum over decisions of weight * loss(Terms), with only the terms that the loss needs."""

    loss: Loss
    reduce: Reduce

    def weigh(self, batch: Batch) -> Batch:
        share = token_mean(batch.mask)  # what metrics are averaged with
        weight = share if self.reduce is token_mean else self.reduce(batch.mask)
        if weight.shape != batch.mask.shape:
            raise ValueError(
                f"the reduction {called(self.reduce)} gave weights {list(weight.shape)} for a mask {list(batch.mask.shape)}: "
                "it gives the weight of every decision [N, T], and the loss is their weighted sum"
            )
        return batch.having(weight=weight, info={"share": share, "full": bool(batch.mask.all())})

    def terms(self, state: State, batch: Batch) -> Terms:
        needs = self.loss.needs
        mask, extra = batch.mask, dict[str, Any]()
        if needs & DIVERGENCES:
            now = state.policy.distribution(batch.obs)
            new, extra["kl_old_new"], extra["kl_new_old"] = now.logp(batch.action), batch.acted.kl(now), now.kl(batch.acted)
            if "entropy" in needs:
                extra["entropy"] = now.entropy()
        elif "entropy" in needs:
            new, extra["entropy"] = state.policy.logp_entropy(batch.obs, batch.action, mask)
        else:
            new = state.policy.logp(batch.obs, batch.action, mask)
        if "ref" in needs and hasattr(state, "reference"):
            with torch.no_grad():
                extra["ref"] = state.reference.logp(batch.obs, batch.action, mask)
        if "value" in needs and hasattr(state, "critic"):
            extra["value"] = state.critic.value(batch.obs, batch.action, mask)
        if "penalty" in needs and hasattr(state, "penalty"):
            extra["penalty"] = state.penalty.value.detach().expand_as(mask)
        if "blind" in needs and isinstance(batch.obs, dict) and "blind" in batch.obs:
            extra["blind"] = state.policy.logp(batch.obs | {"ids": batch.obs["blind"]}, batch.action, mask)
        if "key" in needs:
            extra["key"] = batch.key[:, None].expand_as(mask)
        if "whole" in batch.info:
            extra["whole"] = batch.info["whole"]
        old = new.detach() if batch.logp is None else batch.logp
        extra |= {"old_value": batch.value, "target": batch.target, "extra": batch.extra}
        return Terms(new, old, batch.advantage, mask, **extra)

    def parts(self, state: State, batch: Batch, size: int) -> Iterator[Batch]:
        """A weighed minibatch in pieces of at most `size` rows. What a loss looks at of the whole is found first, without
        gradient, so that no loss depends on the cut."""
        pieces = list(batch.split(size))
        if "whole" in self.loss.needs:
            with torch.no_grad():
                whole = stacked([self.terms(state, part) for part in pieces])
            pieces = [part.having(info={**part.info, "whole": whole}) for part in pieces]
        yield from pieces

    def value(self, state: State, batch: Batch) -> Tensor:
        return self.total(self.loss(self.terms(state, batch)).loss, batch)

    def total(self, value: Tensor, batch: Batch) -> Tensor:
        if batch.weight is None:
            raise ValueError("the batch has no weights: call objective.weigh(batch) on the whole minibatch first")
        if value.shape != batch.mask.shape:
            raise ValueError(
                f"the loss {self.loss} gave values {list(value.shape)} for decisions {list(batch.mask.shape)}: it gives one "
                "value for every decision [N, T] and averages nothing; `reduce` does. One of a trajectory is expanded"
            )
        return weighted(value, batch.weight, batch)

    def __call__(self, state: State, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        return self.report(self.terms(state, batch), batch)

    def report(self, terms: Terms, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        value, metrics = self.loss(terms)
        total = self.total(value, batch)
        with torch.no_grad():
            metrics = {"kl": terms.ratio - 1 - terms.log_ratio, **metrics}
            sums = {name: weighted(x.detach().to(value.dtype), batch.info["share"], batch) for name, x in metrics.items()}
        return total, {"loss": total.detach(), **sums}

    def compiled(self, state: State, batch: Batch) -> Compiled | None:
        """A whole pass as one native call, where all decisions count the same and the kernels know what they meet."""
        return compiled(self.loss, state, batch) if self.reduce is token_mean and type(self) is PolicyObjective else None

    def pull(self, state: State, batch: Batch, report: bool) -> dict[str, Tensor]:
        """Add the gradient of the loss to the parameters'; -> metrics, if they are to `report`.

        Networks that know their own gradient (`judge`) are left out of the graph: autograd then sees the loss alone, and on
        small networks that takes a third of the time.
        """
        found = self.judge(state, batch)
        if found is None:
            total, metrics = self(state, batch) if report else (self.value(state, batch), {})
            total.backward()
            return metrics
        terms, push = found
        total, metrics = self.report(terms, batch) if report else (self.total(self.loss(terms).loss, batch), {})
        leaves = {name: x for name in ("new", "entropy", "value") if (x := getattr(terms, name)) is not None}
        slopes = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
        push(dict(zip(leaves, slopes, strict=True)))
        return metrics

    def judge(self, state: State, batch: Batch) -> tuple[Terms, Callable[[dict[str, Any]], None]] | None:
        """`terms` whose log-probability, entropy and value are leaves, and what takes the derivatives by them on to the
        parameters. None: the policy, the critic or the device has no such thing, or a reference or divergence is asked for."""
        needs, valued = self.loss.needs, "value" in self.loss.needs
        if valued and not hasattr(state, "critic"):
            return None  # `terms` says so
        sides = [state.policy, *([state.critic] if valued else [])]
        if not needs <= JUDGED or not all(hasattr(side, "judge") for side in sides):
            return None
        found = [side.judge(batch.obs, batch.action) for side in sides]
        if None in found:
            return None
        new, entropy, push_policy = found[0]
        value, push_critic = found[1] if len(found) > 1 else (None, None)
        old = new.clone() if batch.logp is None else batch.logp
        parts = new.requires_grad_(), entropy.requires_grad_() if "entropy" in needs else None, value
        if value is not None:
            value.requires_grad_()

        def push(slope: dict[str, Any]) -> None:
            by_new, by_entropy = slope["new"], slope.get("entropy")
            if by_new is not None or by_entropy is not None:  # a loss of the critic alone asks for neither
                push_policy(torch.zeros_like(new) if by_new is None else by_new, by_entropy)
            if push_critic is not None and slope["value"] is not None:
                push_critic(slope["value"])

        terms = Terms(
            parts[0], old, batch.advantage, batch.mask, entropy=parts[1], value=parts[2],  # type: ignore[arg-type]
            old_value=batch.value, target=batch.target,
        )  # fmt: skip
        return terms, push


def stacked(pieces: Sequence[Terms]) -> Terms:
    """The rows of several pieces, one below the other."""
    first = pieces[0]

    def column(name: str, x: Tensor) -> Tensor:
        return torch.cat([piece.extra[name] if name in first.extra else getattr(piece, name) for piece in pieces])

    return first.each(column)


def weighted(x: Tensor, weight: Tensor, batch: Batch) -> Tensor:
    """sum of weight * x, all [N, T], over the decisions that were made. What lies under the mask may be NaN."""
    if batch.info["full"]:
        return torch.dot(x.reshape(-1), weight.to(x.dtype).reshape(-1))
    return (torch.where(batch.mask > 0, x, 0.0) * weight).sum()


def policy_gradient(
    *,
    init: Init,
    collect: Collect,
    credit: Credit,
    loss: Loss,
    reduce: Reduce = token_mean,
    update: Update = epochs(),
    select: Select = keep,
    after: After = nothing,
) -> System:
    """collect -> select -> credit -> update(reduce(loss)) -> after.

    init     builds the State: `policy`, and `critic`, `reference` or memories as the slots need them
    collect  data: (state, problem, rng) -> Batch
    select   which data: (state, batch) -> Batch, once a step
    credit   (state, batch) -> advantage [N, T] or [N, 1]; a method with a critic returns
             dict(advantage=, value=, target=); other names are columns [N, T] or [N, 1] that the system's own loss reads. Once
             a step
    loss     at every decision, pure; may run many times a step
    reduce   how decisions are averaged
    update   how the loss becomes parameters
    after    writes memories, once a step

    A batch whose advantages are all zero is skipped (no optimizer step) unless a critic learns from it:
    Adam would turn the noise that remains into full-size steps.
    """
    objective = PolicyObjective(loss, reduce)

    def learn(state: State, batch: Batch, rng: Stream) -> dict[str, Any]:
        collected = {"score": float(batch.score.mean()), "length": float(batch.length.mean())}
        batch = selected(select, state, batch)
        collected |= {name: x for name, x in batch.info.items() if isinstance(x, float)}
        columns = credited(credit, state, batch)
        own = {name: x for name, x in columns.items() if name not in WRITTEN}
        batch = batch.having(**{name: columns[name] for name in WRITTEN & columns.keys()}, extra=batch.extra | own)
        if "correction" in batch.extra:  # importance weights of tokens that another engine drew, see `collectors.generate`
            batch = batch.having(advantage=batch.advantage * batch.extra["correction"])
        if "value" not in loss.needs and not bool(batch.advantage.any()):
            remember(after, state, batch)
            return {**collected, "skipped": 1.0}
        if batch.logp is None and not getattr(update, "single", False):
            with torch.no_grad():
                batch = batch.having(logp=state.policy.logp(batch.obs, batch.action, batch.mask))
        if loss.needs & DIVERGENCES:
            refuse_without_kl(state.policy)
            with torch.no_grad():
                batch = batch.having(acted=state.policy.distribution(batch.obs).detach())
        metrics = update(state, objective, batch, rng)
        remember(after, state, batch)
        return {**collected, **metrics}

    return System(init, collect, learn)


# ------------------------------------------------------------------------------------ slots that do not fit each other


def called(part: Any) -> str:
    """The name of a part, and of those that it was made of."""
    if isinstance(part, partial):
        inner = ", ".join(called(x) for x in part.keywords.values() if callable(x))
        return called(part.func) + (f"({inner})" if inner else "")
    return getattr(part, "__qualname__", type(part).__name__).replace(".<locals>", "")


@contextmanager
def asking(slot: str, part: Any) -> Iterator[None]:
    """Says which part it was that asked for a column or a module that is not there."""
    try:
        yield
    except Absent as error:
        raise ValueError(f"the {slot} {called(part)} does not fit what runs before it: {error.args[0]}") from error
    except AttributeError as error:
        if not isinstance(error.obj, State):
            raise
        raise TypeError(f"the {slot} {called(part)} does not fit this system: {lacking(error.obj, error.name)}") from error


def selected(select: Select, state: State, batch: Batch) -> Batch:
    """What `select` leaves, which may be nothing; else as sound as what was collected."""
    with asking("select", select):
        chosen = select(state, batch)
    if chosen is batch or not len(chosen):
        return chosen
    try:
        return chosen.check()
    except ValueError as error:
        raise ValueError(f"the select {called(select)} gave a batch that does not hold together: {error}") from error


def credited(credit: Credit, state: State, batch: Batch) -> dict[str, Tensor]:
    """Columns [N, T] by name. Raises ValueError where one has another shape than [N, T] or [N, 1], which could only broadcast to
    something else than was meant, or is not finite."""
    if not len(batch):
        return {"advantage": batch.mask}
    with asking("credit", credit):
        given = credit(state, batch)
    shape = batch.mask.shape
    columns = {}
    for name, x in ({"advantage": given} if isinstance(given, Tensor) else given).items():
        if x.shape not in (shape, (len(batch), 1)):
            raise ValueError(
                f"the credit {called(credit)} gave {name} of shape {list(x.shape)} for {shape[0]} trajectories x {shape[1]} "
                "decisions: give [N, T], or [N, 1] where it is one number a trajectory, e.g. x[:, None]"
            )
        columns[name] = torch.where(batch.mask > 0, x, 0.0)
        bad = ~torch.isfinite(columns[name])
        if bool(bad.any()):
            n, t = (int(i) for i in bad.nonzero()[0])
            raise ValueError(
                f"the credit {called(credit)} gave {name}[{n}, {t}] = {float(columns[name][n, t])}: {int(bad.sum())} decisions "
                "have no finite one. Usually something is divided by a spread or a count of 0"
            )
    return columns


def remember(after: After, state: State, batch: Batch) -> None:
    with asking("after", after):
        after(state, batch)
