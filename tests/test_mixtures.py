"""Parts of different papers mix: random valid combinations take a checked step, impossible ones say what does not fit.

What a part needs and what it leaves is said once, in the tables below; a mixture is drawn slot by slot from the parts whose needs
are met. Facts: columns by name; what the State holds; `own` (the policy gave the answers just now); `groups` (each prompt has
several answers), `whole` (all of its answers, in their order); and what scores are: `verdicts` (0 or 1), `unit` (in [0, 1]),
`positive` (not negative).
"""

import copy
import functools
import importlib
import inspect
import math
import pkgutil
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import torch

from steepest.collectors.asking import epochs as by_epochs
from steepest.collectors.generate import beside_reference, generate, of_reference, recognised
from steepest.collectors.hints import helped
from steepest.collectors.refilled import refilled
from steepest.collectors.stale import delayed, stale
from steepest.core import Stream, begin, train
from steepest.core.check import clone, same
from steepest.core.system import holding
from steepest.credit import (
    beta_normalized,
    centred,
    cosine,
    group_relative,
    l1_exact,
    l1_max,
    leave_one_out,
    mixed_certainty,
    overlong,
)
from steepest.engines import by_score, kl_penalty
from steepest.engines.imitation import as_rewarded
from steepest.engines.policy_gradient import keep, nothing
from steepest.losses import (
    Missing,
    bapo,
    cispo,
    clip,
    clip_drift,
    constant_norm,
    cpgd,
    discovered_drift,
    entropy,
    from_reference,
    gspo,
    hapo,
    kl_old_new,
    loss,
    m2po,
    mirror_drift,
    nft,
    penalized,
    rapid,
    regress,
    regress_pairs,
    reinforce,
    sequence_mean,
    sequence_sum,
    squared,
    surrogate,
    token_mean,
    topr,
)
from steepest.memory import Table
from steepest.memory.quantiles import Quantiles
from steepest.memory.tracker import Bandit
from steepest.problems.fixed import Fixed
from steepest.problems.language import AddCliff
from steepest.systems import reasoning
from steepest.systems.on_policy.spo import quadratic
from steepest.systems.reasoning import (
    aapo,
    copo,
    d3s,
    dapo,
    gfpo,
    ghpo,
    grape,
    grpo,
    hapo_history,
    hapo_token,
    kimi_k15,
    polychromic_ppo,
    rft,
    riskpo,
    scaf_grpo,
    sec,
    tbrm,
)
from steepest.systems.reasoning import nft as of_nft
from steepest.systems.reasoning import reinforce as of_reinforce
from steepest.systems.reasoning import topr as of_topr

COUNT, SEED = 200, 1
SIZES = {"prompts": 4, "group": 4, "lr": 1e-3}
SLOTS = ("collect", "select", "credit", "loss", "reduce", "after")


# ------------------------------------------------------------------------------------ the task and its rewards


def verdict(length, right):
    return right


def soft(length, right):
    return right + overlong(length, most=4.0, buffer=2.0)


@dataclass(frozen=True)
class Sums(AddCliff):
    """Prompts of sums, with places for hints. Right is half of all answers: those whose tokens are even or odd with the prompt's
    key. An answer is paid for by a rule of length and verdict."""

    width: int = 2
    least: int = 1
    hints: bool = True
    warm: int = 60
    tests: int = 8
    rule: Callable[..., Any] = verdict

    @property
    def lesson(self):
        return repr(AddCliff(width=2, least=1, hints=True, warm=self.warm))  # what is paid changes nothing that is taught

    def config(self):
        from transformers import LlamaConfig

        kept = {**super().config().to_dict(), "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "head_dim": 8}
        return LlamaConfig(**kept)

    def score(self, prompts, tokens, mask):
        right = ((tokens * mask.long()).sum(1) + prompts.key) % 2
        return self.rule(mask.sum(1), right.float())

    def budget(self, key):
        return 2 + key % 3


# ------------------------------------------------------------------------------------ parts


@dataclass(frozen=True)
class Part:
    """What fills a slot. needs: facts without which it cannot work; gives and takes: facts that hold, and no longer hold, then."""

    paper: str
    fills: Any
    needs: frozenset = frozenset()
    gives: frozenset = frozenset()
    takes: frozenset = frozenset()

    def fits(self, facts):
        return self.needs <= facts

    def after(self, facts):
        return (facts - self.takes) | self.gives


def part(paper, fills, needs="", gives="", takes=""):
    return Part(paper, fills, *(frozenset(words.split()) for words in (needs, gives, takes)))


def in_turn(*selects):
    """Several selects, one after the other: no more than functions."""

    def select(state, batch):
        return functools.reduce(lambda now, one: one(state, now), selects, batch)

    return select


def wanted(rule, length, right, **options):
    return rule(length, right, torch.full_like(length, 3.0), **options)


KNOWN = "verdicts unit positive"  # of a score that is a verdict
REWARDS = (
    part("a verdict", verdict, gives=KNOWN),
    part("DAPO's length", soft),
    part("L1-Exact", partial(wanted, l1_exact, rate=0.1)),
    part("L1-Max", partial(wanted, l1_max, rate=0.2), gives="unit positive"),
    part("a cosine", partial(cosine, most=6.0, wrong_short=-1.0, exceeded=-1.0)),
)
LEVELS = {"levels": (0.5,), "right": 1.0}
COLLECT = (
    part("GRPO", generate),
    part("epochs", partial(generate, ask=by_epochs()), needs="pool"),
    part("DAPO", refilled(2)),
    part("Polychromic", recognised(), gives="kind"),
    part("Polychromic of DAPO", recognised(refilled(2)), gives="kind"),
    part("AAPO", beside_reference(), needs="reference", gives="reference_score"),
    part("AAPO of DAPO", beside_reference(refilled(2)), needs="reference", gives="reference_score"),
    part("CoPG", of_reference(), needs="reference", takes="own"),
    part("GHPO", helped(partial(ghpo.climb, **LEVELS))),
    part("Scaf-GRPO", helped(partial(scaf_grpo.scaffold, **LEVELS))),
    part("GHPO of Polychromic", recognised(helped(partial(ghpo.climb, **LEVELS))), gives="kind"),
    part("M2PO", stale(1), needs="queue", takes="own"),
    part("M2PO of DAPO", stale(1, refilled(2)), needs="queue", takes="own"),
    part("Polychromic of M2PO", recognised(stale(1)), needs="queue", gives="kind", takes="own"),
)
SOFT = dapo.soft_end(0.5)
DOWN = partial(d3s.chosen, answers=(0.5, 1.0), across=(1.0, 1.0), tokens=(0.5, 1.0), over=10)
SHAPED = partial(hapo_history.shaped, weight=0.5, worst=-0.7, right=1.0)
SELECT = (
    part("GRPO", keep),
    part("DAPO", SOFT, takes=KNOWN),
    part("TOPR", of_topr.counted(0.0)),
    part("REINFORCE", kl_penalty(0.05), needs="reference", takes=KNOWN),
    part("HAPO", hapo_token.judged, gives="nature"),
    part("HAPO and DAPO", in_turn(hapo_token.judged, SOFT), gives="nature", takes=KNOWN),
    part("D3S", DOWN, needs="groups", gives="given chosen", takes="whole"),
    part("D3S and HAPO", in_turn(DOWN, hapo_token.judged), needs="groups", gives="given chosen nature", takes="whole"),
    part("HAPO of histories", SHAPED, needs="history", gives="right", takes=KNOWN),
    part("TBRM", tbrm.ended, takes="groups whole"),
    part("RFT", partial(rft.accepted, right=1.0, cap=None), takes="groups whole"),
)
CREDIT = (
    part("GRPO", by_score(group_relative), needs="groups"),
    part("Dr. GRPO", by_score(centred), needs="groups"),
    part("RLOO", by_score(leave_one_out), needs="groups"),
    part("REINFORCE", by_score(of_reinforce.against_batch)),
    part("SFT", by_score(as_rewarded)),
    part("MAPO", by_score(mixed_certainty), needs="groups positive"),
    part("BNPO", by_score(beta_normalized), needs="groups unit"),
    part("HAPO", hapo_token.credit, needs="groups"),
    part("GFPO", partial(gfpo.filtered, keep=2, merit=gfpo.brevity), needs="groups"),
    part("GFPO a token", partial(gfpo.filtered, keep=2, merit=gfpo.efficiency), needs="groups"),
    part("Polychromic", partial(polychromic_ppo.in_sets, size=2), needs="groups whole kind unit"),
    part("COPO", partial(copo.blended, sharpness=1.0, turn=0.5), needs="groups kind", gives="local"),
    part("AAPO", partial(aapo.beyond_reference, low=0.2, high=0.28), needs="groups reference_score"),
    part("NFT", of_nft.verdicts(of_nft.hard_first), needs="groups verdicts", gives="success"),
    part("NFT, plain", of_nft.verdicts(of_nft.plain), needs="groups verdicts", gives="success"),
    part("TOPR", of_topr.signed(0.1), needs="unit"),
    part("Kimi", partial(kimi_k15.rewarded, short=1.0, after=0), needs="groups"),
    part("GRAPE", partial(grape.by_rubric, rubric=grape.verdict, weights=None), needs="groups unit"),
    part("D3S", d3s.given, needs="given"),
)
LOSS = (
    part("GRPO", None),
    part("DAPO", clip(low=0.2, high=0.28, dual=10.0)),
    part("REINFORCE", reinforce()),
    part("TRPO", surrogate()),
    part("GSPO", gspo(low=0.1, high=0.1)),
    part("CISPO", cispo()),
    part("CPGD", cpgd()),
    part("BAPO", bapo()),
    part("M2PO", m2po()),
    part("TOPR", topr()),
    part("RAPID", rapid()),
    part("Kimi", regress(scale=10.0)),
    part("REBEL", regress_pairs()),
    part("DPO, discovered", mirror_drift(drift=discovered_drift)),
    part("PPO as a drift", mirror_drift(drift=clip_drift)),
    part("SPO", quadratic()),
    part("GFPO", clip() - 0.001 * entropy()),
    part("NFT", nft(), needs="success"),
    part("HAPO", hapo(), needs="nature"),
    part("COPO", copo.clip_twice(), needs="local"),
    part("D3S", d3s.on_chosen(width=0.2), needs="chosen"),
    part("A*-PO", from_reference(regress(scale=10.0)), needs="reference"),
    part("CoPG", from_reference(regress_pairs(scale=10.0)), needs="reference"),
)
REDUCE = (
    part("GRPO", sequence_mean), part("DAPO", token_mean), part("RLOO", sequence_sum), part("Dr. GRPO", constant_norm(4.0)),
)  # fmt: skip
AFTER = (
    part("GRPO", nothing),
    part("Kimi", kimi_k15.forget_moments),
    part("SEC", sec.learned, needs="bandit"),
    part("HAPO", hapo_token.remember, needs="nature scale"),
    part("HAPO of histories", hapo_history.record, needs="right history"),
)
PARTS = dict(zip(SLOTS, (COLLECT, SELECT, CREDIT, LOSS, REDUCE, AFTER), strict=True))


# ------------------------------------------------------------------------------------ systems whose slots they fill


@dataclass(frozen=True)
class Base:
    """A system with free slots. own: what its own parts need, give and take, by the slot that they fill or stand behind; gives:
    what its State holds; pool: it wants a known set of prompts."""

    name: str
    make: Callable[..., Any]
    own: dict[str, Part]
    gives: frozenset
    pool: bool
    free: tuple[str, ...]


def queued(*, collect=generate, select=keep, credit=CREDIT[0].fills, loss=None, reduce=sequence_mean, after=nothing, **options):
    slots = {"collect": collect, "select": select, "credit": credit, "loss": loss, "reduce": reduce, "after": after}
    return delayed(grpo.grpo(**slots, **options), 1, rows=16, room=16)


def equipped(**options):
    """GRPO whose State holds the memories of several papers."""
    return holding(
        queued(**options),
        bandit=lambda state, problem, rng: Bandit(problem.category_of, rate=0.5),
        history=lambda state, problem, rng: Table(problem.size, shortest=math.inf),
        scale=lambda state, problem, rng: Table(1, middle=0.0, top=0.0, bottom=0.0),
    )


equipped.__signature__ = inspect.signature(queued)


def base(name, gives="", pool=False, make=None, own=None, **options):
    made = partial(make or getattr(importlib.import_module(f"steepest.systems.reasoning.{name}"), name), **options)
    shown = inspect.signature(made).parameters
    own = {slot: part(name, None, *words) for slot, words in (own or {}).items()}
    free = tuple(slot for slot in SLOTS if slot in shown and slot not in options)
    return Base(name, made, own, frozenset(gives.split()), pool, free)


GROUPS, OWN = {"credit": ("groups",)}, {"collect": ("own", "", "kind reference_score")}
BASES = (
    *4 * (base("grpo"),), base("grpo behind a queue", make=queued, gives="queue"),
    *3 * (base("grpo with memories", make=equipped, gives="queue bandit history scale", pool=True),),
    base("dapo", own={"select": ("", "", KNOWN)}), base("dr_grpo", own=GROUPS, longest=4.0), base("gspo"), base("cispo"),
    base("cpgd"), base("bapo"), base("bapo", lag=1, room=16), base("m2po", lag=1, room=16),
    base("mapo", own={"credit": ("groups positive",)}), base("bnpo", own={"credit": ("groups unit",)}),
    base("grape", own={"credit": ("groups unit",)}), base("copo", own=GROUPS), base("gfpo", own=GROUPS, keep=2),
    base("polychromic_ppo", own={"credit": ("groups whole unit",)}, size=2), base("aapo", gives="reference", own=GROUPS),
    base("nft", own={"credit": ("groups verdicts",)}), base("topr", own={"credit": ("unit",)}), base("rapid", own=GROUPS),
    base("kimi_k15", own=GROUPS), base("rebel", own=GROUPS), base("copg", gives="reference", own=GROUPS),
    base("capo", own={"select": ("groups",)}), base("riskpo", own={"credit": ("whole",)}, bundle=2),
    base("elastic_reset", every=1), base("hapo_history", gives="history", pool=True, own={"select": ("", "right", KNOWN)}),
    base("lcpo", own={"select": ("", "", KNOWN)}, alpha=0.1), base("ghpo", own=OWN), base("scaf_grpo", own=OWN, start=0),
    base("d3s", over=10, own={"select": ("groups", "", "whole")}), base("sec", gives="bandit", pool=True),
    base("rlep", pool=True, harvest=5), base("hapo_token"),
)  # fmt: skip


@dataclass(frozen=True)
class Mixture:
    base: Base
    reward: Part
    slots: dict[str, Part]
    options: dict[str, Any]

    def __str__(self):
        filled = ", ".join(f"{slot} of {p.paper}" for slot, p in self.slots.items())
        said = ", ".join(f"{name}={x}" for name, x in self.options.items() if name not in SIZES)
        return f"{self.base.name}({filled}) paid by {self.reward.paper}, {said}"

    def system(self):
        return self.base.make(**self.options, **{slot: p.fills for slot, p in self.slots.items()})

    def problem(self):
        sums = Sums(rule=self.reward.fills)
        return Fixed(sums, 24) if self.base.pool or "pool" in self.slots.get("collect", self.reward).needs else sums


def drawn(rng, used, base):
    """One mixture whose parts fit, or None where they do not; of parts that fit, one of those tried least (`used`)."""

    def least(parts):
        fewest = min(used[id(p)] for p in parts)
        chosen = rng.choice([p for p in parts if used[id(p)] == fewest])
        used[id(chosen)] += 1
        return chosen

    reward, slots = rng.choice((REWARDS[0], *REWARDS)), {}
    shown = inspect.signature(base.make).parameters
    options = SIZES | {"epochs": rng.choice((1, 2)), "minibatches": rng.choice((1, 2))}
    if "kl" in shown:
        options["kl"] = rng.choice((0.0, 0.04))
    facts = frozenset({"own", "groups", "whole", "pool"}) | base.gives | reward.gives
    facts |= {"reference"} if options.get("kl") else set()
    for slot in SLOTS:
        if slot in base.free:
            slots[slot] = least([p for p in PARTS[slot] if p.fits(facts)])
            facts = slots[slot].after(facts)
        if slot in base.own:
            if not base.own[slot].fits(facts):
                return None
            facts = base.own[slot].after(facts)
    if "groups" not in facts:
        options["minibatches"] = 1  # a select may leave a single answer
    return Mixture(base, reward, slots, options)


@functools.cache
def mixtures():
    """COUNT different ones, each of at least two papers."""
    rng, found, used = random.Random(SEED), {}, Counter()
    while len(found) < COUNT:
        base = BASES[len(found) % len(BASES)]
        one = drawn(rng, used, base)
        if one is not None and len({p.paper for p in one.slots.values()} | {one.base.name}) > 1 and str(one) not in found:
            found[str(one)] = one
    return tuple(found.values())


# ------------------------------------------------------------------------------------ a checked step


def checked(make, problem, seed=0):
    """One step from the State that a system begins with, twice; -> its metrics. Raises AssertionError where the metrics are not
    finite, the parameters stay and nothing says why, what is frozen moves, the State that was begun with is harmed, or the second
    time differs from the first."""
    system = make()
    state = begin(system, problem, seed=seed)
    start = clone(state.state_dict())
    ends = []
    for _ in range(2):
        (record,) = train(system, problem, steps=1, seed=seed, state=copy.deepcopy(state))
        ends.append((record.metrics, clone(record.state.state_dict())))
    (metrics, end), again = ends
    told = {name: x for name, x in metrics.items() if not name.endswith("_seconds")}
    assert all(math.isfinite(x) for x in told.values()), f"a metric is not finite: {told}"
    assert same(start, state.state_dict()), "the State that was begun with was harmed"
    assert same(end, again[1]), "the same step led elsewhere the second time"
    assert same(told, {name: x for name, x in again[0].items() if name in told}), "the same step said something else"
    moved = any(not same(start[name], end[name]) for name in start if name.startswith("policy."))
    assert moved or "skipped" in told or told["grad_norm"] == 0, f"the parameters stayed, and nothing says why: {told}"
    assert not (moved and "skipped" in told), f"the parameters moved though the step was skipped: {told}"
    assert all(same(start[name], end[name]) for name in start if name.startswith("reference.")), "the reference moved"
    return told


@pytest.mark.parametrize("slice", range(4))
def test_parts_of_different_papers_take_a_sound_step(slice):
    told = []
    for one in mixtures()[slice::4]:
        try:
            told.append(checked(one.system, one.problem()))
        except Exception as error:
            raise AssertionError(f"{one}: {type(error).__name__}: {error}") from error
    assert sum("skipped" not in metrics for metrics in told) > 0.7 * len(told)  # a step that is skipped checks little


def test_every_part_and_every_system_is_in_some_mixture():
    drawn = mixtures()
    assert len(set(map(str, drawn))) == COUNT >= 200
    for slot, parts in PARTS.items():
        assert {p.paper for p in parts} == {one.slots[slot].paper for one in drawn if slot in one.slots}, slot
    assert {b.name for b in BASES} == {one.base.name for one in drawn}
    assert {p.paper for p in REWARDS} == {one.reward.paper for one in drawn}
    assert {(one.options["epochs"], one.options["minibatches"], one.options.get("kl", 0) > 0) for one in drawn} == {
        (e, m, kl) for e in (1, 2) for m in (1, 2) for kl in (False, True)
    }


# ------------------------------------------------------------------------------------ what does not fit


def step(make, problem=None):
    system, problem = make(), problem or Sums()
    return [record.metrics for record in train(system, problem, steps=1)]


def mixed(**slots):
    return partial(grpo.grpo, **{**SIZES, "kl": 0.0, **slots})


def first_of_each(state, batch):
    return batch.rows(slice(None, None, 4))


def riskpo_of_halves(**sizes):
    papers = partial(riskpo.at_risk, bundle=2, group=4, levels=(0.2, 0.9), tail=1.5)
    quantiles = partial(Quantiles, (0.2, 0.9), rate=0.1)
    return holding(grpo.grpo(select=DOWN, credit=papers, kl=0.0, **sizes), quantiles=lambda state, problem, rng: quantiles())


IMPOSSIBLE = (
    ("NFT's loss without its credit", mixed(loss=nft()), Missing,
     r"the loss nft\(\) needs Terms.success.*let `select` or `credit`"),
    ("HAPO's loss without its select", mixed(loss=hapo()), Missing, r"needs Terms.nature"),
    ("COPO's loss without its credit", mixed(loss=copo.clip_twice()), Missing, r"needs Terms.local"),
    ("a loss from the reference without one", mixed(loss=from_reference(regress())), Missing, r"give the State a `reference`"),
    ("a critic's loss without a critic", mixed(loss=squared()), Missing, r"give the State a `critic`"),
    ("a priced divergence without a price", mixed(loss=penalized(entropy())), Missing, r"give the State a `penalty`"),
    ("sets of kinds that nobody recognised", mixed(credit=CREDIT[10].fills), ValueError,
     r"the credit in_sets does not fit what runs before it: the batch has no column 'kind' \(it has 'truncated'\). A collector"),
    ("kinds that refilling loses", mixed(credit=CREDIT[10].fills, collect=refilled(2, recognised())), ValueError,
     r"no column 'kind' \(it has 'kept', 'rounds', 'truncated'\).*has to keep it"),
    ("a gain over a reference that did not answer", mixed(credit=CREDIT[12].fills), ValueError, r"no column 'reference_score'"),
    ("D3S's advantage without its select", mixed(credit=d3s.given), ValueError, r"the credit given .* no column 'given'"),
    ("a divergence in the reward without a reference", mixed(select=kl_penalty(0.1)), TypeError,
     r"the select penalised does not fit this system: `state.reference` is asked for, and this system's State holds policy: take"),
    ("answers of a reference that is not there", mixed(collect=of_reference()), TypeError, r"`state.reference` is asked for"),
    ("a queue that is not there", mixed(collect=stale(1)), TypeError, r"`state.queue` is asked for.*core.system.holding"),
    ("a bandit that is not there", mixed(after=sec.learned), TypeError, r"the after learned .* `state.bandit`"),
    ("quantiles that are not there",
     mixed(credit=partial(riskpo.at_risk, bundle=2, group=4, levels=(0.2, 0.9), tail=1.5)), TypeError, r"`state.quantiles`"),
    ("papers of groups of which half was left out", partial(riskpo_of_halves, **SIZES), ValueError,
     r"8 answers do not fill bundles of 2 prompts with 4 answers, one prompt's beside each other: keep all"),
    ("a success rate of shaped rewards", mixed(credit=by_score(beta_normalized), select=SOFT), ValueError, r"outside \[0, 1\]"),
    ("verdicts of shaped rewards", mixed(credit=of_nft.verdicts(of_nft.plain), select=SOFT), ValueError, r"NFT reads verdicts"),
    ("groups of one that a select leaves", mixed(select=first_of_each), ValueError,
     r"has a group of one answer: .* keep more of it in `select`"),
    ("a column that would be lost while a batch waits", partial(queued, collect=stale(1, COLLECT[8].fills), **SIZES), ValueError,
     r"the queue keeps no columns of a collector's own \(hint\)"),
    ("hints beside answers of another policy", partial(ghpo.ghpo, collect=of_reference(), **SIZES, kl=0.1, right=2.0), ValueError,
     r"some of the batches know their log-probabilities and some do not"),
    ("a divergence in closed form of texts", mixed(loss=kl_old_new()), TypeError, r"divergence|distribution"),
    ("more minibatches than what a select leaves", mixed(select=DOWN, minibatches=9), ValueError, r"8 rows cannot be cut into 9"),
)  # fmt: skip



@pytest.mark.parametrize(("make", "error", "said"), [row[1:] for row in IMPOSSIBLE], ids=[row[0] for row in IMPOSSIBLE])
def test_what_does_not_fit_says_so(make, error, said):
    with pytest.raises(error, match=said):
        step(make)


def test_what_a_problem_cannot_give_is_named():
    with pytest.raises(ValueError, match="no places for a hint"):
        step(partial(ghpo.ghpo, **SIZES, right=2.0), Sums(hints=False))
    with pytest.raises(TypeError, match="a known set"):
        step(partial(sec.sec, **SIZES))


def test_nothing_left_to_learn_from_is_a_skipped_step():
    """Bug that it catches: an empty batch reached the credit, which raised an error of torch."""
    (metrics,) = step(mixed(select=partial(rft.accepted, right=2.0, cap=None)))
    assert metrics["skipped"] == 1.0
    assert metrics["accepted"] == 0.0


def test_every_slot_that_a_system_shows_can_be_filled():
    """Bug that it found: GHPO, Scaf-GRPO, RLOO and RFT showed slots of their parents that they fill themselves."""
    for module in pkgutil.iter_modules(reasoning.__path__):
        make = getattr(importlib.import_module(f"steepest.systems.reasoning.{module.name}"), module.name)
        for slot, shown in inspect.signature(make).parameters.items():
            if slot in SLOTS:
                make(**{slot: shown.default})


# ------------------------------------------------------------------------------------ bugs that are planted


def of_rows(state, batch):
    """[N]: where there are as many decisions as trajectories it would broadcast, each advantage to another trajectory's tokens."""
    return torch.arange(len(batch)).float() - 1.5


def of_decisions(state, batch):
    """[1, T]: it would broadcast to every trajectory."""
    return torch.ones(1, batch.mask.shape[1])


def one_for_all(state, batch):
    return torch.tensor(1.0)


def divided(state, batch):
    return ((batch.score - batch.score.mean()) / 0.0)[:, None]


@pytest.mark.parametrize("credit", [of_rows, of_decisions, one_for_all], ids=lambda f: f.__name__)
def test_a_credit_of_another_shape_does_not_broadcast(credit):
    with pytest.raises(ValueError, match=rf"the credit {credit.__name__} gave advantage of shape .* give \[N, T\], or \[N, 1\]"):
        step(mixed(credit=credit, prompts=2, group=2))


def test_a_credit_that_is_not_finite_is_refused():
    with pytest.raises(ValueError, match=r"the credit divided gave advantage\[0, 0\] = (nan|-?inf).*a count of 0"):
        step(mixed(credit=divided))


@loss()
def of_answers(t):
    return -(t.ratio * t.advantage).mean(1, keepdim=True)  # [N, 1]


@loss()
def already_averaged(t):
    return -(t.ratio * t.advantage).mean()


def of_each(mask):
    return torch.ones(len(mask)) / len(mask)


def shorter(state, batch):
    return batch.having(reward=batch.reward[:, :1])


def narrow(state, batch):
    return batch.having(extra={"mine": batch.score})


PLANTED = (
    ({"loss": of_answers()}, r"the loss of_answers\(\) gave values \[16, 1\] for decisions \[16, "),
    ({"loss": already_averaged()}, r"gave values \[\] for"),
    ({"reduce": of_each}, r"the reduction of_each gave weights \[16\] for a mask \[16, "),
    ({"select": shorter}, r"the select shorter gave a batch that does not hold together: batch.reward has shape \[16, 1\]"),
    ({"select": narrow}, r"column 'mine' of the batch has shape \[16\]"),
)


@pytest.mark.parametrize(("slots", "said"), PLANTED, ids=lambda x: "" if isinstance(x, str) else next(iter(x)))
def test_parts_of_another_shape_are_refused(slots, said):
    with pytest.raises(ValueError, match=said):
        step(mixed(**slots))


def remembers():
    seen = []

    def credit(state, batch):
        seen.append(1)
        return group_relative(batch.score, batch.key)[:, None] * len(seen)

    return mixed(credit=credit, loss=reinforce(), max_grad_norm=1e9)()


def harms():
    first = []

    def select(state, batch):
        first.append(state)
        with torch.no_grad():
            next(first[0].reference.parameters()).add_(1.0)
        return batch

    return mixed(select=select, kl=0.1)()


def stays():
    def after(state, batch):
        state.optimizers["policy"].param_groups[0]["lr"] = 0.0

    def select(state, batch):
        after(state, batch)
        return batch

    return mixed(select=select)()


@pytest.mark.parametrize(
    ("make", "said"), [(remembers, "second time|something else"), (harms, "the reference moved|second time"), (stays, "stayed")],
    ids=lambda x: getattr(x, "__name__", ""),
)  # fmt: skip
def test_the_check_sees_planted_bugs(make, said):
    with pytest.raises(AssertionError, match=said):
        checked(make, Sums())


def test_answers_of_another_policy_keep_its_log_probabilities_while_they_wait():
    """Bug that it catches: the policy's own took their place, and every ratio was wrong."""
    system = partial(queued, collect=stale(1, of_reference()), kl=0.1, **SIZES)()
    state = begin(system, Sums())
    with torch.no_grad():
        for p in state.policy.parameters():
            p.mul_(1.1)
    batch = system.collect(state, Sums(), Stream(0, "collect"))
    logp = state.reference.logp(batch.obs, batch.action, batch.mask)
    assert not torch.allclose(logp, state.policy.logp(batch.obs, batch.action, batch.mask), atol=1e-3)
    torch.testing.assert_close(batch.logp, logp, atol=1e-5, rtol=0)
