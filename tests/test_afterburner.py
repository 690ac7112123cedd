"""Afterburner: straight-line programs, what they cost, and the reward for making them cheaper."""

import itertools
import math
from dataclasses import dataclass
from functools import partial

import pytest
import torch

from steepest.core import Stream, begin, train
from steepest.core.check import check_system
from steepest.credit.efficiency import efficiency, gain, steady
from steepest.evidence.claim import Run
from steepest.evidence.reasoning.afterburner import claim
from steepest.problems.language import AddCliff
from steepest.problems.straight import OPERATIONS, StraightLine
from steepest.systems.reasoning.afterburner import afterburner
from steepest.systems.reasoning.grpo import grpo
from steepest.systems.reasoning.sft import sft

SMALL = partial(StraightLine, most=6, room=6, waste=2, tests=16, warm=60)
SIZES = {"prompts": 4, "group": 8, "lr": 1e-3}


def value(program):
    """k of k x, by running the program on the polynomial x; None where a step leaves 1 x to 2 most x."""
    at, seen = 1, []
    for op in program:
        at = {"+": at + 1, "-": at - 1, "d": 2 * at}[op]
        seen.append(at)
    return at if all(1 <= x <= 12 for x in seen) else None


def as_answer(problem, *texts):
    rows = [[problem.symbol(letter) for letter in text] + [1] for text in texts]
    width = max(map(len, rows))
    tokens = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    return tokens, torch.tensor([[1.0] * len(row) + [0.0] * (width - len(row)) for row in rows])


def shown(problem, k, text):
    program = torch.zeros(1, problem.room, dtype=torch.long)
    program[0, : len(text)] = torch.tensor([1 + OPERATIONS.index(letter) for letter in text])
    return problem.written(torch.tensor([k]), program)


# ------------------------------------------------------------------------- programs


def test_programs_are_counted_as_they_are_when_all_are_run():
    problem = SMALL()
    for n in range(5):
        found = torch.zeros(13, dtype=torch.float64)
        for program in itertools.product(OPERATIONS, repeat=n):
            if (k := value(program)) is not None:
                found[k] += 1
        assert torch.equal(problem.count[n], found)


def test_every_program_is_drawn_as_often_as_any_other():
    problem, count = SMALL(), 6000
    draw = torch.rand(count, problem.room, generator=Stream(0).torch(), dtype=torch.float64)
    drawn = problem.programs(torch.full((count,), 5), torch.full((count,), 5), draw)
    rows, often = drawn.unique(dim=0, return_counts=True)
    true = [p for p in itertools.product(OPERATIONS, repeat=5) if value(p) == 5]
    assert sorted("".join(OPERATIONS[i - 1] for i in row if i) for row in rows.tolist()) == sorted("".join(p) for p in true)
    assert float(((often - count / len(true)) ** 2 / (count / len(true))).sum()) < 2 * len(true)  # chi squared


def test_the_least_cost_is_the_shortest_of_all_programs():
    problem = SMALL()
    for k in range(3, 7):
        shortest = next(n for n in range(7) if any(value(p) == k for p in itertools.product(OPERATIONS, repeat=n)))
        assert int(problem.least[k]) == shortest


def test_a_prompt_shows_a_right_program_that_can_be_made_cheaper():
    problem = StraightLine()
    prompts = problem.prompts(400, Stream(1).torch())
    k, program = problem.read(prompts.key)
    tokens = problem.spelt(program)
    _, right, cost, before = problem.measured(prompts, tokens, (tokens > 0).float())
    assert right.tolist() == [1.0] * 400
    assert torch.equal(cost[:, 0], before)
    assert bool((before > problem.least[k]).all() and (before <= problem.least[k] + problem.waste).all())
    text = problem.tokenizer.decode(shown(problem, 5, "++++").ids[0])
    assert text == "50++++_____40="


@pytest.mark.parametrize(
    ("said", "form", "right", "cost"),
    [("d+++", 1, 1, 4), ("dd+", 1, 1, 3), ("dd", 1, 0, 2), ("d-d", 1, 0, 3), ("", 0, 0, 0), ("d3d", 0, 0, 2), ("ddd---", 1, 1, 6)],
)
def test_an_answer_is_run_and_counted(said, form, right, cost):
    problem = SMALL()
    prompts = shown(problem, 5, "++++")
    found = problem.measured(prompts, *as_answer(problem, said))
    assert [float(x.flatten()[0]) for x in found] == [form, right, cost, 4.0]


def test_a_program_without_an_end_is_none():
    problem = SMALL()
    tokens, mask = as_answer(problem, "dd+")
    assert problem.measured(shown(problem, 5, "++++"), tokens[:, :3], mask[:, :3])[0].tolist() == [0.0]


def test_an_expert_saves_as_little_as_can_be():
    problem = StraightLine()
    prompts = problem.prompts(200, Stream(2).torch())
    tokens, mask = problem.demonstrate(prompts)
    _, right, cost, before = problem.measured(prompts, tokens, mask)
    assert right.tolist() == [1.0] * 200
    k = problem.read(prompts.key)[0]
    for n in range(200):
        between = problem.count[int(cost[n]) + 1 : int(before[n]), int(k[n])]
        assert cost[n] < before[n]
        assert not between.any()
    again = problem.demonstrate(problem.written(*problem.read(prompts.key[7:8])))[0]
    assert torch.equal(again[0], tokens[7])


# ------------------------------------------------------------------------- rounds


@dataclass
class Saying:
    """Answers every prompt with the next of some texts."""

    problem: StraightLine
    texts: list

    def parameters(self):
        yield torch.zeros(1)

    def act(self, obs, generator, greedy=False):
        return as_answer(self.problem, *[self.texts.pop(0)] * len(obs["ids"]))


def test_only_what_is_right_and_cheaper_becomes_the_best():
    problem = SMALL()
    policy = Saying(problem, ["ddd---", "d", "d+++", "dd+", "++++"])
    costs = problem.refined(policy, shown(problem, 5, "+++++-"), Stream(0), 5)
    assert costs[:, 0].tolist() == [6, 6, 6, 4, 3, 3]  # as dear, wrong, cheaper, cheaper, dearer


def test_the_best_cost_never_grows_and_ends_in_the_figure():
    problem = SMALL()
    state = begin(afterburner(**SIZES), problem)
    prompts = problem.prompts(64, Stream(3).torch())
    costs = problem.refined(state.policy, prompts, Stream(4), 4)
    assert bool((costs.diff(dim=0) <= 0).all())
    assert int(costs[-1].sum()) < int(costs[0].sum())
    found = problem.evaluate(state.policy, Stream(5))
    assert found["saved"] == found["after 4 rounds"] >= found["after 1 round"] > 0


# ------------------------------------------------------------------------- what is paid


def test_the_reward_by_hand():
    form, right = torch.tensor([0.0, 1.0, 1.0, 1.0]), torch.tensor([0.0, 0.0, 1.0, 1.0])
    cost, before = torch.tensor([[9.0], [1.0], [2.0], [6.0]]), torch.full((4,), 4.0)
    wanted = [0.0, 0.2, 0.5 + 0.5 * math.tanh(0.5), 0.5 - 0.5 * math.tanh(0.5)]
    torch.testing.assert_close(efficiency(form, right, cost, before), torch.tensor(wanted))


@pytest.mark.parametrize("unit", [1e-3, 60.0])
def test_the_unit_of_the_cost_does_not_matter(unit):
    cost, before = torch.tensor([3.0, 5.0, 8.0]), torch.tensor([4.0, 4.0, 10.0])
    torch.testing.assert_close(gain(unit * cost, unit * before), gain(cost, before))


def test_of_repeated_measurements_the_median_counts():
    assert steady(torch.tensor([[1.0, 1.1, 1.05], [2.0, 2.0, 2.3]])).tolist() == pytest.approx([1.05, 2.0])


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: steady(torch.tensor([[1.0, 1.0], [1.0, 1.5]])), "cost of program 1 was measured between 1 and 1.5"),
        (lambda: gain(torch.ones(2), torch.tensor([1.0, 0.0])), "what program 1 replaces costs 0"),
        (lambda: afterburner(saved=-0.1), "must not be negative"), (lambda: afterburner(form=0, right=0, saved=0), "not all be 0"),
        (lambda: afterburner(imitate=-1), "at least 0 steps"), (lambda: afterburner(group=1), "at least 2 answers"),
        (lambda: StraightLine(most=2), "needs 3 <= most"), (lambda: StraightLine(room=3), "can be made cheaper: raise room"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_before_any_work(make, said):
    with pytest.raises(ValueError, match=said):
        make()


def test_a_cost_that_is_unsteady_only_where_the_answer_is_wrong_is_no_fault():
    assert efficiency(torch.ones(1), torch.zeros(1), torch.tensor([[1.0, 9.0]]), torch.ones(1)).tolist() == pytest.approx([0.2])


def test_a_batch_earns_what_its_programs_save():
    problem, system = SMALL(), afterburner(**SIZES)
    batch = system.collect(begin(system, problem), problem, Stream(6))
    k, program = problem.read(batch.key)
    for n in range(len(batch)):
        said = problem.tokenizer.decode(batch.action[n][batch.mask[n] > 0], skip_special_tokens=True)
        ended = int(batch.action[n][batch.mask[n] > 0][-1]) == problem.tokenizer.eos_token_id
        before, good, at = int((program[n] > 0).sum()), ended and said != "" and set(said) <= set(OPERATIONS), 1
        for letter in said if good else "":
            at = {"+": at + 1, "-": at - 1, "d": 2 * at}[letter]
        wanted = 0.2 * good + (0.3 + 0.5 * math.tanh((before - len(said)) / before)) * (good and at == int(k[n]))
        assert float(batch.score[n]) == pytest.approx(wanted, abs=1e-6)


def test_paid_for_right_programs_alone_it_is_grpo():
    problem = SMALL()
    ours, plain = afterburner(form=0.0, right=1.0, saved=0.0, **SIZES), grpo(kl=0.0, **SIZES)
    found = [[*train(system, problem, steps=2)][-1].state.policy for system in (ours, plain)]
    for a, b in zip(*(policy.parameters() for policy in found), strict=True):
        assert torch.equal(a, b)


def test_a_cold_start_is_sft():
    problem = SMALL()
    systems = afterburner(imitate=2, imitate_lr=2e-3, traces=8, **SIZES), sft(prompts=8, lr=2e-3)
    found = [[*train(system, problem, steps=2)][-1].state.policy for system in systems]
    for a, b in zip(*(policy.parameters() for policy in found), strict=True):
        assert torch.equal(a, b)


def test_a_problem_without_costs_is_refused():
    problem, system = AddCliff(width=2, least=1, warm=60), afterburner(**SIZES)
    with pytest.raises(TypeError, match="needs `measured`"):
        [*train(system, problem, steps=1)]


def test_the_claim_runs_at_a_smaller_size():
    problem = claim.problem(most=6, room=6, waste=2, warm=60, tests=16)
    for arm in (claim.ours, claim.baseline):
        state = [*train(arm(prompts=4, group=4), problem, steps=1)][-1].state
        assert 0 <= claim.measure(Run(0, [], state, problem)) <= 1


def test_it_conforms():
    check_system(partial(afterburner, imitate=1, traces=4, **SIZES), SMALL, half=1)
