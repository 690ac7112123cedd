"""Imitation before another system, one reward for each kind of question, and VLAA-Thinker."""

from functools import partial

import pytest
import torch

from steepest.core import Stream, begin, train
from steepest.core.check import check_system
from steepest.evidence.claim import Run
from steepest.evidence.reasoning.vlaa_thinker import claim
from steepest.problems.language import AddCliff, ModeLottery
from steepest.problems.pseudo import PseudoSum
from steepest.problems.rewards import Inside, Part, by_answer, letter, numeric, one_of, overlap
from steepest.problems.single_turn import Questions
from steepest.problems.symbolic import places
from steepest.systems.reasoning.grpo import grpo
from steepest.systems.reasoning.sft import sft
from steepest.systems.reasoning.vlaa_thinker import vlaa_thinker

SMALL = partial(AddCliff, width=2, least=1, warm=60, tests=8)
SIZES = {"prompts": 4, "group": 8, "lr": 1e-3}


def parameters(module):
    return torch.cat([p.detach().flatten() for p in module.parameters()])


def after(system, steps, state=None, problem=None):
    *_, last = train(system, problem or SMALL(), steps=steps, state=state)
    return last.state


# ------------------------------------------------------------------------- imitation, then another system


def test_until_it_ends_imitation_is_sft():
    found = after(vlaa_thinker(imitate=2, imitate_lr=3e-3, traces=8, **SIZES), 2)
    assert torch.equal(parameters(found.policy), parameters(after(sft(prompts=8, lr=3e-3), 2).policy))


def test_and_then_it_is_the_system_that_begins_with_what_was_imitated():
    system = vlaa_thinker(imitate=2, imitate_lr=3e-3, traces=8, **SIZES)
    plain = begin(grpo(**SIZES), SMALL())
    learned = after(system, 2).policy.state_dict()
    plain.policy.load_state_dict(learned)
    plain.reference.load_state_dict(learned)
    plain.step = 2
    found = after(system, 4)
    assert torch.equal(parameters(found.policy), parameters(after(grpo(**SIZES), 4, plain).policy))
    assert torch.equal(parameters(found.reference), torch.cat([learned[n].flatten() for n, _ in plain.policy.named_parameters()]))
    assert not torch.equal(parameters(found.policy), parameters(found.reference))  # or nothing was learned


def test_without_imitation_it_is_grpo():
    assert torch.equal(parameters(after(vlaa_thinker(**SIZES), 2).policy), parameters(after(grpo(**SIZES), 2).policy))
    assert set(begin(vlaa_thinker(**SIZES), SMALL()).optimizers) == {"policy"}


def test_both_optimizers_move_the_same_weights_and_share_no_moments():
    state = after(vlaa_thinker(imitate=1, imitate_lr=2e-3, traces=8, **SIZES), 1)
    ours, theirs = (state.optimizers[name].param_groups[0] for name in ("imitation", "policy"))
    assert all(a is b for a, b in zip(ours["params"], theirs["params"], strict=True))
    assert (ours["lr"], theirs["lr"]) == (2e-3, 1e-3)
    assert state.optimizers["imitation"].state
    assert not state.optimizers["policy"].state


def test_imitation_reports_no_score():
    records = list(train(vlaa_thinker(imitate=1, traces=8, **SIZES), SMALL(), steps=2))
    assert [("score" in record.metrics, "loss" in record.metrics) for record in records] == [(False, True), (True, True)]


# ------------------------------------------------------------------------- an expert's traces


def test_an_experts_trace_is_a_prompts_own():
    task = PseudoSum(width=6)
    prompts = task.prompts(8, Stream(0).torch())
    tokens, mask = task.demonstrate(prompts)
    one = type(prompts)(prompts.ids[3:4], prompts.mask[3:4], prompts.key[3:4])
    again, alone = task.demonstrate(one)
    assert tokens[3][mask[3] > 0].tolist() == again[0][alone[0] > 0].tolist()


def test_it_is_right_in_the_end_and_not_on_the_way():
    task = PseudoSum(width=6)
    prompts = task.prompts(2000, Stream(1).torch())
    tokens, mask = task.demonstrate(prompts)
    assert task.score(prompts, tokens, mask).tolist() == [1.0] * 2000
    step, good = task.steps(prompts, tokens, mask)
    assert 1 - float(good.sum() / step.sum()) == pytest.approx(task.errs, abs=0.01)
    assert float(step.sum(1).sub(prompts.key // 10**6).abs().max()) == 0  # every running sum is there
    _, plain, _ = task.teach(2000, Stream(2).torch())
    ours, usual = (float((said == task.symbol(".")).float().sum(1).mean()) for said in (tokens, plain))
    assert ours > 3 * usual


def test_an_error_is_not_carried_on():
    task = PseudoSum(width=2, least=2)
    prompts = task.prompts(500, Stream(3).torch())
    tokens, mask = task.demonstrate(prompts)
    _, good = task.steps(prompts, tokens, mask)
    first_wrong = (good.sum(1) == 1) & (tokens[:, 1] - 2 != places(prompts.key, 1)[:, 0])
    assert int(first_wrong.sum()) > 20  # the second sum is right behind a wrong first one


# ------------------------------------------------------------------------- one reward of several

MIXED = one_of(by_answer, number=numeric, letter=letter, box=overlap)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [("12", "number"), ("-3.5 cm", "number"), ("B", "letter"), ("(C)", "letter"), ("[1, 2, 3, 4]", "box"), ("a red cube", "open"),
     ("[3, 2, 1, 4]", "open"), ("AB", "open")],
)  # fmt: skip
def test_what_an_answer_is(answer, kind):
    assert by_answer("", answer) == kind


@pytest.mark.parametrize(
    ("said", "true", "share"),
    [("[0, 0, 2, 2]", "[0, 0, 2, 2]", 1.0), ("[1, 0, 3, 2]", "[0, 0, 2, 2]", 1 / 3), ("[5, 5, 6, 6]", "[0, 0, 2, 2]", 0.0),
     ("first (9, 9, 10, 10), no: (0,0,1,1)", "[0, 0, 2, 2]", 0.25), ("nothing", "[0, 0, 2, 2]", 0.0),
     ("[2, 0, 0, 2]", "[0, 0, 2, 2]", 0.0)],
)  # fmt: skip
def test_intersection_over_union_by_hand(said, true, share):
    assert overlap("", said, true) == pytest.approx(share)


@pytest.mark.parametrize(
    ("said", "score"), [("#### (B)", 1.0), (r"\boxed{B}", 1.0), ("#### A", 0.0), ("B", 0.0), ("#### B and C", 0.0)]
)
def test_the_letter_of_an_option(said, score):
    assert letter("", said, "B") == score


def test_every_answer_is_scored_by_exactly_one_rule():
    asked = []

    def spy(name):
        return lambda prompt, completion, answer: asked.append((name, prompt)) or 0.5

    reward = one_of(by_answer, number=spy("number"), letter=Part(spy("letter"), weight=2.0), open=spy("open"))
    score, told = reward.grade([("p0", "x", "7"), ("p1", "x", "A"), ("p2", "x", "words"), ("p3", "x", "8")], seconds=None)
    assert sorted(asked) == [("letter", "p1"), ("number", "p0"), ("number", "p3"), ("open", "p2")]
    assert score.tolist() == [0.5, 1.0, 0.5, 0.5]
    assert (told["share_number"], told["share_letter"], told["reward_letter"]) == (0.5, 0.25, 0.5)


def test_a_part_without_bounds_stays_between_0_and_1():
    reward = one_of(lambda prompt, answer: answer, wild=lambda *call: 40.0, low=lambda *call: -40.0)
    assert reward.grade([("", "", "wild"), ("", "", "low")], seconds=None)[0].tolist() == [1.0, 0.0]


def test_what_breaks_the_form_gets_nothing():
    reward = one_of(by_answer, number=Inside("answer", numeric))
    assert [reward("", text, "4") for text in ("<answer>#### 4</answer>", "#### 4")] == [1.0, 0.0]


def test_it_is_a_reward_of_questions():
    rows = [("How many?", "4"), ("Which one?", "B"), ("Where?", "[0, 0, 2, 2]")]
    task = Questions(rows, MIXED, max_new=24)
    texts = ["#### 4", "#### C", "[0, 0, 1, 2]"]
    tokens = task.tokenizer(texts, padding=True, padding_side="right", return_tensors="pt")
    score, told = task.grade(task.pick(torch.arange(3)), tokens["input_ids"], tokens["attention_mask"].float())
    assert score.tolist() == [1.0, 0.0, 0.5]
    assert told["share_box"] == pytest.approx(1 / 3)


def test_a_question_without_a_rule_is_refused():
    with pytest.raises(ValueError, match="call 1 is of kind 'open', for which there is no reward; there are rewards for number"):
        MIXED.grade([("", "", "4"), ("", "", "some words")], seconds=None)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (partial(one_of, by_answer), "no reward is given"),
        (partial(one_of, by_answer, number=Part(numeric, weight=0.0)), "weights must not be negative and have a positive sum"),
        (partial(one_of, by_answer, number=Part(numeric, weight=-1.0), open=Part(numeric, weight=2.0)), "must not be negative"),
        (partial(overlap, "", "[0, 0, 1, 1]", "[1, 1, 0, 0]"), "is no box"),
        (partial(vlaa_thinker, imitate=-1), "at least 0 steps at a positive rate"),
        (partial(vlaa_thinker, imitate=5, imitate_lr=0.0), "at least 0 steps at a positive rate"),
        (partial(vlaa_thinker, traces=0), "prompts must be at least 1"),
        (partial(vlaa_thinker, group=1), "at least 2 answers"),
    ],
)
def test_bad_input_is_refused_before_any_work(make, said):
    with pytest.raises(ValueError, match=said):
        make()


def test_the_claim_runs_at_a_smaller_size():
    problem = claim.problem(width=2, warm=5, tests=4)
    for arm in (claim.ours, claim.baseline):
        state = [*train(arm(prompts=4, group=4), problem, steps=1)][-1].state
        assert 0 <= claim.measure(Run(0, [], state, problem)) <= 1


def test_it_conforms():
    check_system(partial(vlaa_thinker, imitate=1, traces=4, **SIZES), partial(ModeLottery, warm=5, tests=8), half=1)
