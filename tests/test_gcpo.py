"""GCPO: what a construction is worth by hand, forced and forbidden answers, no contrast is GRPO, and it conforms."""

import math
from functools import partial

import pytest
import torch

from steepest.collectors.contrast import beside_contrast, opened
from steepest.collectors.generate import generate, repeat
from steepest.core import Batch, Stream, begin, train
from steepest.core.check import check_system
from steepest.problems.detour import Detour
from steepest.problems.language import AddCliff
from steepest.problems.symbolic import END
from steepest.systems.reasoning.gcpo import gcpo, shaped, worth
from steepest.systems.reasoning.grpo import grpo

SMALL = partial(Detour, width=3, warm=60, tests=16)
SIZES = {"prompts": 4, "group": 4, "lr": 1e-3}


def parameters(system, steps=2):
    *_, last = train(system, SMALL(), steps=steps)
    return torch.cat([p.detach().flatten() for p in last.state.policy.parameters()])


def test_what_a_construction_is_worth():
    gain = torch.tensor([0.5, 0.1, 0.05, 0.0, -0.1, -0.11, -1.0])
    assert worth(gain, 0.1).tolist() == [1, 0, 0, 0, 0, -1, -1]
    assert torch.equal(worth(-gain, 0.1), -worth(gain, 0.1))  # the two groups swapped
    assert not worth(gain, math.inf).any()


def test_the_reward_by_hand():
    mask = torch.tensor([[1.0, 1, 1], [1, 0, 0], [1, 1, 0]])
    info = {"gain": torch.tensor([0.5, 0.5, -0.5]), "used": torch.tensor([1.0, 0.0, 1.0])}
    batch = Batch(None, None, None, torch.tensor([[0.0, 0, 1], [1, 0, 0], [0, 0, 0]]), mask, torch.tensor([0, 0, 1]), info=info)
    found = shaped(None, batch, bonus=0.5, epsilon=0.1, length=0.1, cap=2)
    torch.testing.assert_close(found.score, torch.tensor([1 + 0.5 + 0.1, 1 + 0.05, -0.5 + 0.1]))
    assert found.info["helps"] == pytest.approx(2 / 3)
    assert found.info["harms"] == pytest.approx(1 / 3)
    swapped = batch.having(info=info | {"gain": -info["gain"]})
    other = shaped(None, swapped, bonus=0.5, epsilon=0.1, length=0.1, cap=2)
    assert other.score[1] == found.score[1]  # an answer without it is not concerned


def test_a_chain_counts_where_it_came_to_its_end():
    problem = Detour()
    said = [problem.tokenizer(text)["input_ids"] for text in ("chain37so7", "now7", "chain37", "now7so", "chain37so")]
    tokens = torch.tensor([row + [END] + [0] * (6 - len(row)) for row in said])
    mask = (tokens > 0).float()
    assert problem.constructed(tokens, mask).tolist() == [1, 0, 0, 0, 1]
    mask[4, 3] = 0
    assert problem.constructed(tokens, mask)[4] == 0


class Noted(Detour):
    """What is said is right if it begins with the opening that the problem was given; the answers are kept."""

    def score(self, prompts, tokens, mask):
        assert tokens.shape == mask.shape
        assert tokens.shape[1] <= self.max_new
        return (tokens[:, 0] == self.symbol("chain")).float()


def test_answers_begin_as_they_are_told():
    state, problem = begin(grpo(kl=0.0, **SIZES), SMALL()), Noted(width=3, warm=60, tests=16)
    asked = repeat(problem.prompts(3, Stream(0).torch()), 5)
    with_it, without = problem.openings
    assert opened(state, problem, asked, with_it, Stream(1)).tolist() == [1.0] * 15
    assert opened(state, problem, asked, without, Stream(1)).tolist() == [0.0] * 15
    batch = beside_contrast(2)(prompts=4, group=3)(state, problem, Stream(2))
    assert batch.info["gain"].tolist() == [1.0] * 12
    assert torch.equal(batch.info["used"], problem.constructed(batch.action, batch.mask))


def test_the_answers_that_are_learned_from_are_those_of_the_plain_collector():
    state, problem = begin(grpo(kl=0.0, **SIZES), SMALL()), SMALL()
    ours, plain = (gather(prompts=4, group=3)(state, problem, Stream(2)) for gather in (beside_contrast(2), generate))
    assert torch.equal(ours.action, plain.action)
    assert torch.equal(ours.reward, plain.reward)
    for key in ours.key.unique():
        assert len(ours.info["gain"][ours.key == key].unique()) == 1


def test_where_nothing_is_ever_worth_anything_it_is_grpo():
    plain = parameters(grpo(kl=0.0, **SIZES))
    assert torch.equal(parameters(gcpo(epsilon=math.inf, length=0.0, contrast=2, kl=0.0, **SIZES)), plain)
    assert not torch.equal(parameters(gcpo(epsilon=0.0, length=0.0, contrast=2, kl=0.0, **SIZES)), plain)


def test_it_conforms():
    check_system(partial(gcpo, contrast=2, **SIZES), SMALL, half=1)


@pytest.mark.parametrize("wrong", [{"bonus": -1.0}, {"epsilon": -0.1}, {"length": -0.1}, {"cap": 0}], ids=str)
def test_bad_numbers_are_refused(wrong):
    with pytest.raises(ValueError, match="needs bonus, epsilon and length >= 0 and cap >= 1"):
        gcpo(**wrong)


def test_a_contrast_needs_two_answers_a_side():
    with pytest.raises(ValueError, match="at least 2 answers to a prompt, not 1"):
        gcpo(contrast=1)


def test_a_problem_that_knows_no_construction_is_refused():
    with pytest.raises(TypeError, match="it needs `constructed`, which AddCliff"):
        next(train(gcpo(**SIZES), AddCliff(width=1, least=1, warm=5), steps=1))
