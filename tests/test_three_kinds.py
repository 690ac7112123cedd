"""One loss, three kinds of decision: tokens of a language model, actions of a robot, denoising steps of a diffusion policy.

Every policy-gradient loss of the library, and those composed of several terms, goes through one engine on all three without
a word of it being changed, and moves the parameters as REINFORCE would as long as no ratio has left 1.
"""

import copy
import inspect
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import pytest
import torch

from steepest.collectors.chains import chains
from steepest.collectors.generate import generate
from steepest.collectors.rollout import rollout
from steepest.core import Batch, State, Stream, train
from steepest.engines import policy_gradient
from steepest.losses import (
    Loss,
    clip_drift,
    discovered_drift,
    entropy,
    k3,
    loss,
    mirror_drift,
    policy,
    reinforce,
    sequence_mean,
    squared,
    squared_clip,
    token_mean,
)
from steepest.losses.check import check_loss
from steepest.models.build import actor_state
from steepest.models.diffusion import DiffusionPolicy
from steepest.optimize import epochs
from steepest.problems.gym import Gym
from steepest.problems.language import AddCliff
from steepest.problems.reach import MultiReach2D
from steepest.systems.generative.chunk_ppo import ChunkValue
from steepest.systems.on_policy.spo import quadratic


def is_factory(x):
    """`@loss()` turns a function of terms into one that returns a Loss."""
    return inspect.isfunction(x) and x.__module__ == policy.__name__ and inspect.signature(x).return_annotation is Loss


PLAIN = {name: make() for name, make in sorted(vars(policy).items()) if is_factory(make)}
PLAIN |= {"drift of DPO": mirror_drift(drift=discovered_drift), "drift of PPO": mirror_drift(drift=clip_drift), "SPO": quadratic()}
FULL = 0.04 * k3() + 0.5 * squared() - 0.01 * entropy()
COMPOSED = {f"{name} + k3 + value - entropy": one + FULL for name, one in PLAIN.items()}
COMPOSED["surrogate + clipped value"] = policy.surrogate() + 0.5 * squared_clip()
LOSSES = MappingProxyType(PLAIN | COMPOSED)


# ---------------------------------------------------------------------------------- the three kinds


@dataclass(frozen=True)
class Kind:
    """A problem, a State that fits it, and how experience is made."""

    problem: Any
    state: State
    collect: Any
    batch: Batch
    pollute: Any  # other decisions, of the same type


def text():
    problem = AddCliff(width=2, least=1, warm=60, tests=16)
    state = actor_state(problem, Stream(0, "text"), lr=1e-3, critic=True, reference=True)
    return problem, state, generate(prompts=4, group=4), lambda batch: torch.full_like(batch.action, 3)


def robot():
    problem = Gym("Hopper-v5")
    state = actor_state(problem, Stream(0, "robot"), lr=1e-3, critic=True, reference=True, envs=2, width=16)
    return problem, state, rollout(envs=2, horizon=16), lambda batch: batch.action + 3.0


def diffusion():
    problem = MultiReach2D()
    with Stream(0, "diffusion").fork():
        policy = DiffusionPolicy(3, 16, steps=6, tuned=4, hidden=16, floor=0.1)
        critic = ChunkValue(3, 16)
    state = State(policy=policy, critic=critic, reference=copy.deepcopy(policy).requires_grad_(False))
    return problem, state, chains(envs=4, horizon=2), lambda batch: batch.action + 3.0


@pytest.fixture(scope="module", params=[text, robot, diffusion], ids=lambda make: make.__name__)
def kind(request, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STEEPEST_CACHE", str(tmp_path_factory.mktemp("warmups")))
        problem, state, collect, pollute = request.param()
    trained = [p for name in ("policy", "critic") for p in getattr(state, name).parameters() if p.requires_grad]
    state.optimizers = {"policy": torch.optim.SGD(trained, 0.1)}
    return Kind(problem, state, collect, collect(copy.deepcopy(state), problem, Stream(1)).check(), pollute)


def credit(state, batch):
    """Advantages as good as any: normal numbers, and a critic's targets that fit them."""
    with torch.no_grad():
        value = state.critic.value(batch.obs, batch.action, batch.mask)
    advantage = torch.randn(batch.mask.shape, generator=torch.Generator().manual_seed(2))
    return {"advantage": advantage, "value": value, "target": value + advantage}


def system(kind, objective, **slots):
    slots = {"update": epochs(max_norm=float("inf")), "credit": credit} | slots
    return policy_gradient(
        init=lambda problem, rng: copy.deepcopy(kind.state), collect=kind.collect, loss=objective, **slots
    )  # fmt: skip


def parameters(state):
    return torch.cat([p.detach().flatten().double() for p in state.optimizers["policy"].param_groups[0]["params"]])


def step(kind, objective, batch=None, **slots):
    """How far one gradient step on one batch moves the parameters, and the step's metrics."""
    state = copy.deepcopy(kind.state)
    before = parameters(state)
    metrics = system(kind, objective, **slots).learn(state, kind.batch if batch is None else batch, Stream(3))
    return parameters(state) - before, metrics


def assert_same_way(move, reference):
    assert float(reference.norm()) > 1e-6
    assert float((move - reference).norm()) < 1e-4 * float(reference.norm())


# ----------------------------------------------------------------------------------------- the laws


def test_the_library_has_losses_to_try():
    assert {"reinforce", "surrogate", "clip"} <= PLAIN.keys()
    assert len(LOSSES) == 2 * len(PLAIN) + 1


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_obeys_the_laws(name):
    assert {"on_policy", "padding", "pure", "cut"} <= set(check_loss(LOSSES[name]))


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("reduce", [token_mean, sequence_mean], ids=lambda f: f.__name__)
def test_at_ratio_one_it_moves_as_reinforce_does(kind, name, reduce):
    others = FULL if "k3" in name else 0.5 * squared() if "value" in name else None
    plain = reinforce() if others is None else reinforce() + others
    move, metrics = step(kind, LOSSES[name], reduce=reduce)
    assert torch.isfinite(move).all()
    assert all(torch.isfinite(torch.tensor(x)) for x in metrics.values())
    assert metrics["kl"] == pytest.approx(0, abs=1e-6)
    assert_same_way(move, step(kind, plain, reduce=reduce)[0])


@pytest.mark.parametrize("name", LOSSES)
def test_what_the_mask_hides_moves_nothing(kind, name):
    """Every third decision is masked away; what was decided there is then replaced, and the step stays bitwise the same."""
    hidden = (torch.arange(kind.batch.mask.numel()).view_as(kind.batch.mask) % 3 == 1) & (kind.batch.mask.sum(1) > 2)[:, None]
    batch = kind.batch.having(mask=kind.batch.mask * ~hidden, info={})
    where = (batch.mask == 0).view(*batch.mask.shape, *[1] * (batch.action.dim() - 2))
    other = torch.where(where & hidden.view(where.shape), kind.pollute(batch), batch.action)
    logp = None if batch.logp is None else torch.where(batch.mask > 0, batch.logp, float("nan"))
    assert bool(hidden.any())
    if kind.batch.logp is None:  # a token is also what later tokens see, so only what follows the last one may differ
        batch = kind.batch
        other = torch.where(batch.mask > 0, batch.action, kind.pollute(batch))
    clean, _ = step(kind, LOSSES[name], batch)
    dirty, metrics = step(kind, LOSSES[name], batch.having(action=other, logp=logp))
    assert torch.isfinite(dirty).all()
    assert all(torch.isfinite(torch.tensor(x)) for x in metrics.values())
    torch.testing.assert_close(dirty, clean, atol=1e-7 * float(clean.abs().max()) + 1e-12, rtol=0)


@pytest.mark.parametrize("name", LOSSES)
def test_it_trains_over_several_minibatches(kind, name):
    for record in train(system(kind, LOSSES[name], update=epochs(2, minibatches=2)), kind.problem, steps=2, seed=4):
        assert all(torch.isfinite(torch.tensor(x)) for x in record.metrics.values())
    moved = (parameters(record.state) - parameters(kind.state)).abs()
    assert bool(torch.isfinite(moved).all())
    assert float(moved.max()) > 1e-5
    for a, b in zip(record.state.reference.parameters(), kind.state.reference.parameters(), strict=True):
        assert torch.equal(a, b)


def test_no_advantage_moves_no_policy(kind):
    def nothing(state, batch):
        return torch.zeros_like(batch.mask)

    for name, objective in PLAIN.items():
        move, metrics = step(kind, objective, credit=nothing)
        assert not move.any(), name
        assert metrics["skipped"] == 1.0


# ------------------------------------------------------------- the checks are seen to catch what they are for


@loss()
def uphill(t):
    return t.ratio * t.advantage


@loss()
def positives_only(t):
    return -t.ratio * t.advantage.clamp(min=0)


@pytest.mark.parametrize("wrong", [uphill, positives_only], ids=lambda f: f.__name__)
def test_a_loss_that_goes_another_way_is_caught(kind, wrong):
    with pytest.raises(AssertionError):
        assert_same_way(step(kind, wrong())[0], step(kind, reinforce())[0])
