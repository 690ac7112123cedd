"""Rewriting by two judges."""

from dataclasses import replace
from functools import partial

import pytest
import torch

from steepest.core import Stream, begin, train
from steepest.core.check import check_problem, check_system
from steepest.evidence.analysis import Job, run_one
from steepest.evidence.reasoning import rl_rewriting as study
from steepest.problems.language import AddCliff
from steepest.problems.rude import Rude
from steepest.systems.reasoning.ppo_max import ppo_max
from steepest.systems.reasoning.rl_rewriting import alike, rl_rewriting, weighed

SMALL = partial(Rude, width=4, tests=16, warm=40)
SIZES = {"prompts": 8, "group": 2, "lr": 1e-3, "critic_lr": 1e-3, "epochs": 1, "minibatches": 1}


def words(problem, *texts):
    """Tokens and mask of texts, end tokens included."""
    rows = [[*(problem.symbol(x) for x in text), 1] for text in texts]
    width = max(map(len, rows))
    tokens = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    return tokens, torch.tensor([[1.0] * len(row) + [0.0] * (width - len(row)) for row in rows])


def test_it_conforms():
    check_system(partial(rl_rewriting, **SIZES), SMALL, half=1)


def test_the_problem_obeys_its_laws():
    check_problem(SMALL())


def test_likeness_is_one_for_a_copy_and_falls_by_edits_over_the_longer_text():
    problem = SMALL()
    source, there = words(problem, "12!4", "12!4", "12!4", "12!4", "12!4")
    source, there = source[:, :-1], there[:, :-1]
    tokens, mask = words(problem, "12!4", "124", "", "12!45", "9999")
    said = mask * (tokens != 1)
    assert alike(tokens, said, source, there).tolist() == pytest.approx([1, 0.75, 0, 0.8, 0])


def test_an_answer_is_appropriate_as_far_as_it_has_no_exclamation_marks():
    problem = SMALL()
    asked = problem.prompts(5, Stream(0).torch())
    assert problem.score(asked, *words(problem, "12!4", "124", "", "!!!", "!1")).tolist() == [0.75, 1, 1, 0, 0.5]


def test_what_is_right_leaves_out_what_is_rude_and_nothing_else():
    problem = SMALL()
    asked = problem.prompts(64, Stream(0).torch())
    text, there = problem.source(asked)
    tokens, mask = problem.demonstrate(asked)
    for said, made, row in zip(tokens, mask, text, strict=True):
        assert said[made > 0].tolist() == [x for x in row.tolist() if x != problem.symbol("!")] + [1]
    assert problem.score(asked, tokens, mask).tolist() == [1.0] * 64
    share = (text == problem.symbol("!")).float().mean(1)
    torch.testing.assert_close(alike(tokens, mask * (tokens != 1), text, there), 1 - share)


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_the_reward_is_the_weighted_mean_of_both_judges(weight):
    problem, system = SMALL(), rl_rewriting(weight=weight, **SIZES)
    state = begin(system, problem)
    batch = system.collect(state, problem, Stream(1)).check()
    plain = ppo_max(reward_clip=None, value_clip=None, critic_steps=0, **SIZES).collect(state, problem, Stream(1))
    assert torch.equal(batch.action, plain.action)
    text = batch.obs["ids"][:, :-1]
    same = alike(batch.action, batch.mask * (batch.action != 1), text, torch.ones(text.shape))
    torch.testing.assert_close(batch.score, weight * plain.score + (1 - weight) * same)
    assert batch.info["alike"] == pytest.approx(float(same.mean()))


def test_with_weight_one_content_is_lost_and_with_zero_it_is_kept():
    ends = {}
    for weight in (0.0, 1.0):
        system = rl_rewriting(weight=weight, kl=0.0, **{**SIZES, "prompts": 32})
        ends[weight] = [r.metrics for r in train(system, Rude(width=4, warm=150), steps=40)][-5:]
    mean = {w: {k: sum(m[k] for m in rows) / 5 for k in ("appropriate", "alike")} for w, rows in ends.items()}
    assert mean[1.0]["appropriate"] > mean[0.0]["appropriate"] + 0.1
    assert mean[0.0]["alike"] > mean[1.0]["alike"] + 0.1


def test_wrong_options_and_problems_are_refused():
    with pytest.raises(ValueError, match=r"weight must lie in \[0, 1\], not 1.5"):
        rl_rewriting(weight=1.5)
    with pytest.raises(ValueError, match="needs 1 <= width <= 12"):
        Rude(width=0)
    problem = AddCliff(width=2, least=1, warm=1)
    with pytest.raises(TypeError, match="needs `source`, which AddCliff"):
        next(train(rl_rewriting(**SIZES), problem, steps=1))


def test_scores_that_are_no_share_are_refused():
    class Loud(Rude):
        def score(self, prompts, tokens, mask):
            return 3 * super().score(prompts, tokens, mask)

    problem = Loud(width=4, tests=4, warm=1)
    state = begin(rl_rewriting(**SIZES), problem)
    with pytest.raises(ValueError, match=r"needs judges in \[0, 1\]"):
        weighed(0.5)(prompts=2, group=1)(state, problem, Stream(0))


def test_the_study_runs_small():
    one = study.analysis.treatments[1]
    small = replace(study.analysis, problem=SMALL, treatments=(replace(one, steps=2),))
    numbers, _ = run_one(Job(small, 0, 100), lambda progress: None)
    assert numbers.keys() == {"appropriate", "alike"}
