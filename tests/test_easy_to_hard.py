"""Scores of steps as scores of answers and as rewards, and a verifier that sees labels of easy prompts alone."""

from dataclasses import dataclass
from functools import partial

import pytest
import torch

from steepest.core import Stream, begin, train
from steepest.core.check import check_system
from steepest.credit.steps import average, falls, last, worst
from steepest.problems.language import ChainSum
from steepest.problems.symbolic import pass_at_k
from steepest.selection.voting import best_of_n, majority, weighted_majority
from steepest.systems.reasoning.easy_to_hard import easy_prompts, easy_to_hard

CHAINS = partial(ChainSum, width=4, warm=60, tests=8)
SIZES = {"easy": 1, "fit": 2, "fit_lr": 1e-3, "lr": 1e-3, "prompts": 6, "group": 4, "epochs": 1, "minibatches": 2}


def some(n=40, t=7, seed=0):
    g = torch.Generator().manual_seed(seed)
    step = (torch.rand(n, t, generator=g) < 0.5).float()
    step[:, 3] = 1
    return torch.rand(n, t, generator=g), step


def test_scores_of_answers_are_those_of_a_plain_loop():
    score, step = some()
    for n in range(len(score)):
        steps = [float(x) for x, s in zip(score[n], step[n], strict=True) if s]
        assert float(worst(score, step)[n]) == min(steps)
        assert float(last(score, step)[n]) == steps[-1]
        assert float(average(score, step)[n]) == pytest.approx(sum(steps) / len(steps))


def test_the_falls_of_the_least_score_are_those_of_a_plain_loop_and_add_up():
    score, step = some()
    found = falls(score, step, bound=0.5)
    for n in range(len(score)):
        least = 0.5
        for t in range(score.shape[1]):
            want = 0.0
            if step[n, t] and score[n, t] < least:
                want, least = float(score[n, t]) - least, float(score[n, t])
            assert float(found[n, t]) == pytest.approx(want, abs=1e-7)
    torch.testing.assert_close(found.sum(1), worst(score, step).clamp(max=0.5) - 0.5)


def test_no_further_step_raises_the_least_score():
    score, step = some()
    fewer = step.clone()
    fewer[:, 4:] = 0
    assert (worst(score, step) <= worst(score, fewer)).all()


def test_an_answer_without_steps_is_refused():
    score, step = some()
    step[3] = 0
    for rule in (worst, last, average):
        with pytest.raises(ValueError, match="answer 3 has no step"):
            rule(score, step)


def test_a_perfect_verifier_gives_pass_at_n_and_one_that_says_nothing_the_majority():
    g = torch.Generator().manual_seed(2)
    key = torch.arange(50).repeat_interleave(8)
    kind = torch.randint(4, (400,), generator=g)
    right = (kind == 0).float()
    perfect = right[best_of_n(right, key)]
    hits = right.view(50, 8).sum(1).long()
    assert torch.equal(perfect, pass_at_k(8, hits, 8))
    same = torch.full_like(right, 0.5)
    assert torch.equal(weighted_majority(kind, key, same), majority(kind, key))


def test_the_verifier_meets_easy_prompts_alone():
    problem = CHAINS()
    asked = easy_prompts(problem, 20, 1, Stream(0))
    assert len(asked.key) == len(asked.ids) == 20
    assert (problem.category(asked.key) == 0).all()

    seen = []

    @dataclass(frozen=True)
    class Watched(ChainSum):
        def steps(self, prompts, tokens, mask):
            seen.append(int(self.category(prompts.key).max()))
            return super().steps(prompts, tokens, mask)

    system = easy_to_hard(**{**SIZES, "fit": 3})
    for _ in train(system, Watched(width=4, warm=60), steps=3, seed=0):
        pass
    assert seen == [0, 0, 0]


@dataclass(frozen=True)
class Lying(ChainSum):
    """Its verdicts on hard prompts are turned round."""

    def score(self, prompts, tokens, mask):
        true = super().score(prompts, tokens, mask)
        return torch.where(self.category(prompts.key) < 1, true, 1 - true)


def test_no_label_of_a_hard_prompt_reaches_what_is_learned():
    options = {**SIZES, "prompts": 16}
    ends = []
    for problem in (CHAINS(), Lying(width=4, warm=60, tests=8)):
        state = begin(easy_to_hard(**options), CHAINS(), seed=0)
        for record in train(easy_to_hard(**options), problem, steps=4, state=state):
            told = record.metrics
        ends.append((state, told["hard"]))
    (one, honest), (other, turned) = ends
    assert honest == pytest.approx(1 - turned)  # the verdicts were asked for, and reported
    for name in ("policy", "verifier", "critic"):
        for a, b in zip(getattr(one, name).parameters(), getattr(other, name).parameters(), strict=True):
            assert torch.equal(a, b)


def test_first_the_verifier_learns_and_then_the_policy():
    problem = CHAINS()
    system = easy_to_hard(**SIZES)
    state = begin(system, problem, seed=0)
    before = {name: x.clone() for name, x in state.named_parameters()}
    moved = []
    for _ in train(system, problem, steps=4, state=state):
        now = {name: x.clone() for name, x in state.named_parameters()}
        moved.append({name.split(".")[0] for name in now if not torch.equal(now[name], before[name])})
        before = now
    assert moved == [{"verifier"}, {"verifier"}, {"policy", "critic"}, {"policy", "critic"}]


def test_rewards_are_the_falls_the_bonus_and_the_end():
    problem, system = CHAINS(), easy_to_hard(**{**SIZES, "fit": 1, "prompts": 24})
    state = begin(system, problem, seed=0)
    state.step = 1
    batch = system.collect(state, problem, Stream(5))  # a fresh verifier says one half of everything: nothing falls
    easy = problem.category(batch.key) < 1
    assert set(batch.score[~easy].mul(100).round().tolist()) == {50.0}  # bonus .25, and .25 for the unknown
    assert set(batch.score[easy].mul(100).round().tolist()) == {25.0, 125.0}


@pytest.mark.parametrize(
    ("options", "match"),
    [({"easy": 0}, "easy and fit"), ({"fit": 0}, "easy and fit"), ({"bound": 0.0}, "bound in"), ({"fit_lr": 0.0}, "fit_lr")],
)
def test_bad_options_are_refused(options, match):
    with pytest.raises(ValueError, match=match):
        easy_to_hard(**options)


def test_a_problem_without_easy_prompts_is_refused():
    with pytest.raises(ValueError, match="category below easy=-1"):
        easy_prompts(CHAINS(), 2, -1, Stream(0))


def test_it_conforms():
    assert "resume is bitwise in a fresh process" in check_system(partial(easy_to_hard, **SIZES), partial(CHAINS, warm=5))
