"""Answers to prompts, scored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..core.batch import Batch, at_end
from ..core.generator import Answers, Generator
from ..core.problem import Language, Prompts, finite
from ..core.state import State
from ..core.stream import Stream
from .experience import Collect, positive

Ask = Callable[[State, Any, int, Stream], Prompts]
Warm = Callable[[State], Callable[[Tensor], Tensor]]
Gather = Callable[..., Collect]  # (prompts=, group=) -> a collector of answers, such as `generate`


def drawn(state: State, problem: Language, count: int, rng: Stream) -> Prompts:
    """`count` prompts as the problem draws them."""
    return problem.prompts(count, rng.torch())


def generate(
    *, prompts: int = 16, group: int = 8, ask: Ask = drawn, warm: Warm | None = None, generator: Generator | None = None,
    cap: float | None = 2.0,
) -> Collect:  # fmt: skip
    """Draw `prompts` prompts, sample `group` answers to each, score them. Answers to one prompt are adjacent rows.

    ask        (state, problem, count, rng) -> which prompts
    warm       state -> the policy's `warm`: how the temperature changes from decision to decision; None: it does not
    generator  who writes the answers; None: the policy itself, all at once
    cap        the weights that correct for a generator whose log-probabilities are not the policy's are at most this (Yao et al.,
               Your efficient RL framework secretly brings you off-policy RL training, 2025: 2); None: no correction

    `logp` stays None where the policy that answered is the one being trained. Another generator's answers get the policy's
    log-probabilities, and a column `correction`, with which the engine multiplies advantages. The reward stands on the last
    token. ``info["truncated"]`` is the share of answers that were cut off before their end token; with it stands what
    ``problem.grade`` reports.
    """
    positive(prompts=prompts, group=group)
    if cap is not None and not cap > 0:
        raise ValueError(f"cap must be positive, not {cap}; None leaves the answers of another engine uncorrected")
    if generator is not None and warm is not None:
        raise ValueError("a generator writes at one temperature: leave out `generator`, or `warm`")

    def collect(state: State, problem: Language, rng: Stream) -> Batch:
        asked = repeat(ask(state, problem, prompts, rng / "prompts"), group)
        sampling = {} if warm is None else {"warm": warm(state)}
        return answers(state, problem, asked, rng, generator=generator, cap=cap, **sampling)

    return collect


@torch.no_grad()
def answers(
    state: State, problem: Language, asked: Prompts, rng: Stream, *, generator: Generator | None = None, cap: float | None = 2.0,
    **sampling: Any,
) -> Batch:  # fmt: skip
    """One scored answer of the policy, or of a `generator`, to each of the prompts; `sampling` are options of its `sample`."""
    device = state.device
    obs = {"ids": asked.ids.to(device), "mask": asked.mask.to(device)}
    write = partial(state.policy.sample, **sampling) if generator is None else partial(generator, state.policy)
    made = Answers(*write(obs, (rng / "tokens").torch(device)))
    tokens, mask, logp = made.tokens, made.mask, None
    told: dict[str, float] = {}
    extra: dict[str, Tensor] = {}
    if generator is not None and not generator.exact:
        logp = state.policy.logp(obs, tokens, mask)
        told = mismatch(logp, made, cap)
        extra = {} if cap is None else {"correction": weights(logp, made, cap)}
    score, said = scored(problem, asked, tokens.cpu(), mask.cpu())
    last = mask.sum(1, keepdim=True).long() - 1
    reward = at_end(score, mask)
    ended = tokens.gather(1, last) == problem.tokenizer.eos_token_id
    info = {"truncated": 1.0 - float(ended.float().mean()), **told, **said}
    key = asked.key.to(device)
    return Batch(obs=obs, action=tokens, logp=logp, reward=reward, mask=mask, key=key, extra=extra, info=info)


def recognised(gather: Gather = generate) -> Gather:
    """The same answers, and ``info["kind"]`` [N]: which of those to one prompt are the same answer, as the problem reads them."""

    def kept(*, prompts: int, group: int) -> Collect:
        collect = gather(prompts=prompts, group=group)

        def recognise(state: State, problem: Language, rng: Stream) -> Batch:
            batch = collect(state, problem, rng)
            kind = problem.kinds(asked_of(batch), batch.action.cpu(), batch.mask.cpu())
            return batch.having(info={**batch.info, "kind": kind.to(batch.mask.device)})

        return recognise

    return kept


def beside_reference(gather: Gather = generate) -> Gather:
    """The same answers, and ``info["reference_score"]`` [N]: the score of one answer of the State's frozen `reference` to the same
    prompt, for each."""

    def kept(*, prompts: int, group: int) -> Collect:
        collect = gather(prompts=prompts, group=group)

        def both(state: State, problem: Language, rng: Stream) -> Batch:
            batch = collect(state, problem, rng)
            other = answers(State(policy=state.reference), problem, asked_of(batch), rng / "reference")
            return batch.having(info={**batch.info, "reference_score": other.score})

        return both

    return kept


def of_reference(gather: Gather = generate) -> Gather:
    """Answers of the State's frozen `reference` instead of the policy, with the log-probabilities that they had there."""

    def kept(*, prompts: int, group: int) -> Collect:
        collect = gather(prompts=prompts, group=group)

        def elsewhere(state: State, problem: Language, rng: Stream) -> Batch:
            actor = State(policy=state.reference)
            return remembered(actor, collect(actor, problem, rng))

        return elsewhere

    return kept


def asked_of(batch: Batch) -> Prompts:
    """The prompts that a batch of answers answers, row by row."""
    return Prompts(batch.obs["ids"].cpu(), batch.obs["mask"].cpu(), batch.key.cpu())


def joined(*batches: Batch) -> Batch:
    """The rows of several batches of answers, one below the other: prompts are padded on the left, answers on the right.

    Log-probabilities must be known of all or of none; of what else there is, only what every batch has is kept, numbers of
    ``info`` weighed by rows.
    """
    known = [batch.logp is not None for batch in batches]
    if any(known) != all(known):
        raise ValueError("some of the batches know their log-probabilities and some do not: write them first (`remembered`)")
    width = max(batch.obs["ids"].shape[1] for batch in batches)
    length = max(batch.mask.shape[1] for batch in batches)

    def left(name: str) -> Tensor:
        return torch.cat([pad(batch.obs[name], (width - batch.obs[name].shape[1], 0)) for batch in batches])

    def right(parts: Sequence[Tensor]) -> Tensor:
        return torch.cat([pad(x, (0, length - x.shape[1])) for x in parts])

    rows = sum(map(len, batches))
    told = set.intersection(*({name for name, x in batch.info.items() if isinstance(x, float)} for batch in batches))
    return Batch(
        obs={"ids": left("ids"), "mask": left("mask")}, action=right([batch.action for batch in batches]),
        logp=right([cast(Tensor, batch.logp) for batch in batches]) if all(known) else None,
        reward=right([batch.reward for batch in batches]), mask=right([batch.mask for batch in batches]),
        key=torch.cat([batch.key for batch in batches]),
        extra={
            name: right([batch.extra[name] for batch in batches])
            for name in batches[0].extra if all(name in batch.extra for batch in batches)
        },
        info={name: sum(len(batch) * batch.info[name] for batch in batches) / rows for name in sorted(told)},
    )  # fmt: skip


@torch.no_grad()
def remembered(state: State, batch: Batch) -> Batch:
    """The batch with the log-probabilities of the policy that the State holds now, as the one that acted; or as it is where another
    one acted, and they are known."""
    if batch.logp is not None:
        return batch
    return batch.having(logp=state.policy.logp(batch.obs, batch.action, batch.mask))


def mismatch(logp: Tensor, answers: Answers, cap: float | None) -> dict[str, float]:
    """How far the policy's log-probabilities are from those of the engine that drew the tokens.

    generator_ratio, generator_ratio_max  p / p_engine of the drawn tokens, on average (1 where only rounding differs) and at most
    generator_gap                         mean |log p - log p_engine|
    generator_truncated                   the share of tokens whose weight was cut
    """
    real = answers.mask > 0
    gap = (logp - answers.logp)[real].clamp(-20.0, 20.0)
    ratio = gap.exp()
    told = {
        "generator_ratio": float(ratio.mean()),
        "generator_ratio_max": float(ratio.max()),
        "generator_gap": float(gap.abs().mean()),
    }
    if cap is not None:
        told["generator_truncated"] = float((ratio > cap).float().mean())
    return told


def weights(logp: Tensor, answers: Answers, cap: float) -> Tensor:
    """Truncated importance weights [N, T] of tokens that another engine drew: min(p / p_engine, cap), and 1 where nothing was."""
    ratio = (logp - answers.logp).clamp(-20.0, 20.0).exp()
    return ratio.clamp(max=cap).where(answers.mask > 0, 1.0)


def repeat(prompts: Prompts, group: int) -> Prompts:
    """Every prompt `group` times, copies adjacent."""
    return Prompts(*(x.repeat_interleave(group, 0) for x in (prompts.ids, prompts.mask, prompts.key)))


def scored(problem: Language, prompts: Prompts, tokens: Tensor, mask: Tensor) -> tuple[Tensor, dict[str, float]]:
    """What ``problem.grade`` says: the score [N], refused with its name and the offending index if it is not N finite numbers."""
    score, told = problem.grade(prompts, tokens, mask)
    return finite(score, len(mask), f"{type(problem).__name__}.score"), told
