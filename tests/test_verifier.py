"""Verifiers of steps: what they see, what they are taught, and which tokens are steps."""

import math
from dataclasses import dataclass
from functools import partial

import pytest
import torch
from torch.nn.functional import binary_cross_entropy

from steepest.collectors.generate import generate
from steepest.collectors.steps import split, stepped
from steepest.core import Stream, begin
from steepest.engines.verifying import StepObjective
from steepest.losses import Terms, cross_entropy, squared
from steepest.models.verifier import StepVerifier, as_it_is
from steepest.optimize.epochs import Epochs
from steepest.problems.language import BlindSpot, ChainSum
from steepest.systems.reasoning.grpo import grpo

CHAINS = partial(ChainSum, width=3, warm=120, tests=16)


def state_and_batch(**verifier):
    state = begin(grpo(kl=0.0), CHAINS(), seed=3)
    state.verifier = StepVerifier(state.policy, Stream(0), **verifier)
    batch = stepped(generate)(prompts=8, group=4)(state, CHAINS(), Stream(1))
    return state, batch.having(target=batch.extra["right"])


def scattered(state):
    """A head that says something."""
    with torch.no_grad():
        state.verifier.inner.head.weight.normal_(generator=torch.Generator().manual_seed(0))


def test_the_first_score_is_one_half_and_only_of_what_is_asked():
    state, batch = state_and_batch()
    score = state.verifier.score(batch.obs, batch.action, batch.mask)
    assert score.shape == batch.mask.shape
    assert (score == 0.5 * batch.mask).all()
    scattered(state)
    all_of_them = state.verifier.score(batch.obs, batch.action, batch.mask)
    assert ((all_of_them > 0) == (batch.mask > 0)).all()
    assert (all_of_them <= 1).all()
    steps = state.verifier.score(batch.obs, batch.action, batch.extra["step"])
    torch.testing.assert_close(steps, all_of_them * batch.extra["step"], atol=1e-5, rtol=1e-5)


def test_a_score_has_read_its_own_token_and_none_behind_it():
    state, batch = state_and_batch()
    scattered(state)
    score = state.verifier.value(batch.obs, batch.action, batch.mask)
    changed = batch.action.clone()
    changed[:, 2] = (changed[:, 2] + 1) % 10 + 2
    other = state.verifier.value(batch.obs, changed, batch.mask)
    torch.testing.assert_close(other[:, :2], score[:, :2], atol=1e-4, rtol=1e-4)
    there = batch.mask[:, 2] > 0
    assert ((other[:, 2] - score[:, 2]).abs()[there] > 1e-2).all()


def test_the_plain_path_scores_the_same_and_ends_where_the_text_does():
    state, batch = state_and_batch()
    scattered(state)
    fast = state.verifier.score(batch.obs, batch.action, batch.mask)
    assert state.verifier.inner.fast
    state.verifier.inner.fast = False
    torch.testing.assert_close(state.verifier.score(batch.obs, batch.action, batch.mask), fast, atol=1e-5, rtol=1e-5)


def test_the_loss_is_the_cross_entropy_of_the_score_on_the_steps_alone():
    state, batch = state_and_batch()
    scattered(state)
    objective = StepObjective()
    weighed = objective.weigh(batch)
    total, told = objective(state, weighed)
    total = total.detach()
    step = batch.extra["step"] > 0
    score = state.verifier.score(batch.obs, batch.action, batch.mask)[step]
    torch.testing.assert_close(total, binary_cross_entropy(score, batch.target[step]), atol=1e-5, rtol=1e-5)
    assert float(told["verifier_right"]) == pytest.approx(float(((score > 0.5) == (batch.target[step] > 0.5)).float().mean()))
    halves = [float(objective(state, part)[0].detach()) for part in objective.parts(state, weighed, 16)]
    assert sum(halves) == pytest.approx(float(total), abs=1e-5)
    elsewhere = batch.target.where(step, 1 - batch.target)
    assert float(objective(state, weighed.having(target=elsewhere))[0].detach()) == float(total)


def test_the_loss_of_a_chance_is_least_at_the_chance():
    value = torch.linspace(-4, 4, 801, dtype=torch.float64)[:, None]
    nothing = torch.zeros_like(value)
    target = torch.full_like(value, 0.3)
    found = cross_entropy()(Terms(nothing, nothing, nothing, torch.ones_like(value), value=value, target=target)).loss
    best = value[found.argmin()]
    assert float(best.sigmoid()) == pytest.approx(0.3, abs=0.01)
    assert float(found.min()) == pytest.approx(-0.3 * math.log(0.3) - 0.7 * math.log(0.7), abs=1e-4)


def test_a_verifier_learns_its_labels_and_leaves_the_policy_alone():
    for options in ({}, {"link": as_it_is}):
        state, batch = state_and_batch(**options)
        state.optimizers["verifier"] = torch.optim.Adam(state.verifier.parameters(), 3e-3)
        before = [p.clone() for p in state.policy.parameters()]
        objective = StepObjective(squared(), 0.5) if options else StepObjective()
        first = float(objective(state, objective.weigh(batch))[0].detach())
        told = Epochs(40, optimizer="verifier")(state, objective, batch, Stream(0))
        assert told["verifier_loss"] < 0.2 * first
        assert told["verifier_right"] > 0.95
        assert all(map(torch.equal, before, state.policy.parameters()))


def test_what_follows_the_last_step_is_a_step_that_is_right_if_the_answer_is():
    _, batch = state_and_batch()
    problem, end = CHAINS(), batch.mask.sum(1).long() - 1
    rows = torch.arange(len(batch))
    assert (batch.extra["step"][rows, end] == 1).all()
    assert torch.equal(batch.extra["right"][rows, end], batch.score)
    direct = batch.action[:, 0] == problem.symbol("now")
    assert direct.any()
    assert not direct.all()
    assert (batch.extra["step"][direct].sum(1) == 1).all()
    assert (batch.extra["step"][~direct].sum(1) > 1).any()
    assert (batch.extra["right"] <= batch.extra["step"]).all()


def test_a_step_where_nothing_was_said_is_refused():
    @dataclass(frozen=True)
    class Astray(ChainSum):
        def steps(self, prompts, tokens, mask):
            return torch.ones_like(mask), torch.zeros_like(mask)

    _, batch = state_and_batch()
    with pytest.raises(ValueError, match="steps and tokens are not aligned"):
        split(Astray(width=3), batch)


def test_a_problem_without_steps_is_refused_by_name():
    state = begin(grpo(kl=0.0), BlindSpot(warm=1), seed=0)
    with pytest.raises(AttributeError, match="steps"):
        stepped(generate)(prompts=2, group=2)(state, BlindSpot(warm=1), Stream(0))
