"""The four text tasks: their answers agree with plain arithmetic, their teachers err as often as they say."""

import itertools
import math
import pickle
import re

import pytest
import torch
from torch import nn

from steepest.core import Stream
from steepest.core.check import check_problem
from steepest.problems.fixed import Fixed
from steepest.problems.language import AddCliff, BlindSpot, ChainSum, ModeLottery
from steepest.problems.symbolic import END, PAD, pass_at_k, same, upto_end
from steepest.problems.tokens import symbols

TASKS = (AddCliff(), AddCliff(width=8, least=7, hints=True), ModeLottery(), ModeLottery(accept="any"), ChainSum(), BlindSpot())


def add(text):
    width = next(w for w in (6, 8) if text[2 * w] in "_=" and len(text.split("=")[0]) in (2 * w, 3 * w + 1))
    one, two = (text[at : at + width].strip("_") for at in (0, width))
    return str(int(one[::-1]) + int(two[::-1])).zfill(len(one) + 1)[::-1]


def chain(text):
    digits = [int(d) for d in re.match(r"\d+", text)[0]]
    sums = list(itertools.accumulate(digits, lambda a, b: (a + b) % 10))
    return "chain" + ".".join(map(str, sums)) + f"..so{sums[-1]}"


# what a clever reader of the prompt's text says
READERS = {
    AddCliff: add,
    ModeLottery: lambda text: f"S0{(int(text[0]) + 3) % 10}",
    ChainSum: chain,
    BlindSpot: lambda text: text[int(text[7])],
}


class Reader(nn.Module):
    """A policy that reads the prompt as text and answers by a rule."""

    def __init__(self, problem):
        super().__init__()
        self.problem, self.rule = problem, READERS[type(problem)]
        self.unused = nn.Parameter(torch.zeros(1))

    def act(self, obs, generator, greedy=False):
        read = self.problem.tokenizer
        said = [read(self.rule(read.decode(ids)))["input_ids"] + [END] for ids in obs["ids"]]
        tokens = torch.tensor([row + [PAD] * (self.problem.max_new - len(row)) for row in said])
        return tokens, upto_end(tokens)


@pytest.mark.parametrize("problem", TASKS, ids=str)
def test_it_obeys_the_laws_of_problems(problem):
    check_problem(problem)
    assert pickle.loads(pickle.dumps(problem)) == problem
    assert problem.config().vocab_size == len(problem.tokenizer)


@pytest.mark.parametrize("problem", TASKS, ids=str)
def test_equal_keys_are_equal_prompts_and_right_answers_are_right(problem):
    prompts = problem.prompts(500, Stream(1).torch())
    right = problem.right(prompts.key)
    assert problem.score(prompts, right, upto_end(right)).all()
    seen = {}
    for key, ids in zip(prompts.key.tolist(), prompts.ids.tolist(), strict=True):
        assert seen.setdefault(key, ids) == ids


@pytest.mark.parametrize("problem", TASKS, ids=str)
def test_the_teacher_writes_answers_that_end(problem):
    prompts, tokens, mask = problem.teach(400, Stream(2).torch())
    assert tokens.shape[1] <= problem.max_new
    assert torch.equal(mask, upto_end(tokens))
    last = tokens.gather(1, mask.sum(1, keepdim=True).long() - 1)
    assert (last == END).all()
    assert ((tokens == PAD) == (mask == 0)).all()
    assert 0.2 < float(problem.score(prompts, tokens, mask).mean()) < 0.97
    again = problem.teach(400, Stream(2).torch())
    assert torch.equal(again[1], tokens)


SUMS = (AddCliff(tests=20), AddCliff(width=8, least=7, hints=True, tests=20), ChainSum(tests=20))


@pytest.mark.parametrize("problem", SUMS, ids=str)
def test_plain_arithmetic_is_always_right(problem):
    found = problem.evaluate(Reader(problem), Stream(0))
    assert found.pop("accuracy") == 1
    assert all(found[name] == 1 for name in found if "digit" in name)


def test_one_digit_of_context_is_the_answer():
    found = BlindSpot().evaluate(Reader(BlindSpot()), Stream(0))
    assert found["accuracy"] == found["right suggestion"] == 1
    assert found["followed"] == 0.5


def test_the_first_strategy_is_the_best_single_answer_and_covers_nothing_else():
    problem = ModeLottery(tests=2000)
    found = problem.evaluate(Reader(problem), Stream(0))
    assert found["accuracy"] == pytest.approx(0.45 + 0.55 * 0.1, abs=0.04)  # another strategy may say the same digit
    assert found["accuracy"] < found["pass@16"] + 1e-6 < 0.55
    assert found["strategy entropy"] == 0
    accepted = problem.prompts(20_000, Stream(3).torch()).key // 10**5
    share = torch.bincount(accepted) / len(accepted)
    torch.testing.assert_close(share, torch.tensor(ModeLottery.chances), atol=0.02, rtol=0)


def test_any_strategy_is_right_where_any_is_accepted():
    prompts = ModeLottery().prompts(200, Stream(0).torch())
    for strategy in range(4):
        key = prompts.key % 10**5 + 10**5 * strategy
        tokens = ModeLottery().right(key)
        assert ModeLottery(accept="any").score(prompts, tokens, upto_end(tokens)).all()
        mine = ModeLottery().score(prompts, tokens, upto_end(tokens)) > 0
        digit = ModeLottery().right(prompts.key)[:, 1] == tokens[:, 1]
        assert torch.equal(mine, digit)


def test_a_teacher_of_sums_slips_as_often_as_it_says():
    problem = AddCliff(width=6, least=1)
    prompts, tokens, _ = problem.teach(60_000, Stream(0).torch())
    right, length = problem.right(prompts.key), prompts.key // 10**12
    for n in range(1, 7):
        rows = length == n
        wrong = (tokens != right)[rows, : n + 1].float()
        assert float(wrong.mean()) == pytest.approx(AddCliff.noise[n - 1], abs=4 * math.sqrt(0.25 / wrong.numel()))


def test_a_teacher_of_chains_takes_either_way_and_fills():
    problem = ChainSum()
    prompts, tokens, mask = problem.teach(20_000, Stream(0).torch())
    slow = tokens[:, 0] == problem.symbol("chain")
    assert float(slow.float().mean()) == pytest.approx(0.5, abs=0.02)
    score = problem.score(prompts, tokens, mask)
    assert score[~slow].all()
    k = prompts.key // 10**8
    for count in (2, 5):
        rows = slow & (k == count)
        assert float(score[rows].mean()) == pytest.approx(0.97**count, abs=0.03)
        dots = (tokens[rows] == problem.symbol(".")).float().sum(1).mean()
        assert float(dots) == pytest.approx(count * 0.35 / 0.65, rel=0.06)  # geometric, hardly ever cut
    assert int(mask.sum(1).max()) == problem.max_new


SUM_OF_347 = (
    ("now4", 1), ("now5", 0), ("now4.", 0), ("now", 0), ("4", 0), ("chain374so4", 1), ("chain3.7..4.so4", 1), ("chain999so4", 1),
    ("chain374so5", 0), ("chain37so4", 0), ("chain3744so4", 0), ("chain.374so4", 0), ("chain374so", 0), ("chain374now4", 0),
    ("so4", 0), ("chain374so4=", 0),
)  # fmt: skip


@pytest.mark.parametrize(("said", "score"), SUM_OF_347)
def test_what_counts_as_an_answer_to_a_chain(said, score):
    problem = ChainSum(width=4)
    key = torch.tensor([3 * 10**4 + 743])  # digits 3, 4, 7
    prompts = problem.prompts(1, Stream(0).torch())
    prompts = type(prompts)(prompts.ids, prompts.mask, key)
    ids = problem.tokenizer(said)["input_ids"]
    for tail, worth in (([END], score), ([], 0), ([END, PAD, PAD], score)):
        tokens = torch.tensor([ids + tail])
        assert problem.score(prompts, tokens, (tokens != PAD).float()) == worth


def test_a_hint_tells_the_share_of_digits_that_it_says():
    problem = AddCliff(width=8, least=8, hints=True)
    prompts = problem.prompts(50, Stream(0).torch())
    right, blank = problem.right(prompts.key), problem.symbol("_")
    for level, told in ((0.0, 0), (0.25, 2), (0.5, 4), (1.0, 9)):
        slots = problem.hint(prompts, level).ids[:, 16:-1]
        assert torch.equal(slots[:, :told], right[:, :told])
        assert (slots[:, told:] == blank).all()
    assert torch.equal(problem.hint(prompts, 0.0).ids, prompts.ids)
    with pytest.raises(ValueError, match=r"AddCliff\(hints=True\)"):
        AddCliff().hint(prompts, 0.5)


def test_a_hidden_context_cannot_be_read():
    problem = BlindSpot()
    prompts = problem.prompts(2000, Stream(0).torch())
    hidden = problem.hidden(prompts)
    assert (hidden.ids[:, :6] == problem.symbol("#")).all()
    assert torch.equal(hidden.ids[:, 6:], prompts.ids[:, 6:])
    agree = problem.right(prompts.key)[:, 0] == prompts.ids[:, 8]
    assert float(agree.float().mean()) == pytest.approx(0.7, abs=0.04)


def test_pass_at_k_is_the_share_of_subsets_that_hold_a_right_answer():
    for n, c, k in itertools.product((4, 6), range(5), (1, 2, 3, 4)):
        answers = [1] * c + [0] * (n - c)
        subsets = list(itertools.combinations(answers, k))
        expected = sum(any(s) for s in subsets) / len(subsets)
        assert float(pass_at_k(n, torch.tensor([c]), k)) == pytest.approx(expected, abs=1e-6)


def test_only_the_exact_answer_counts():
    right = torch.tensor([[5, 6, END, PAD]])
    cases = ([5, 6, END], 1), ([5, 6], 0), ([5, 6, 6], 0), ([6, 5, END], 0), ([5, END, 6], 0), ([5, 6, END, END, 5], 1)
    for said, worth in cases:
        tokens = torch.tensor([said])
        assert same(tokens, upto_end(tokens), right) == worth


def test_examples_are_rows_of_one_shape():
    for problem in (AddCliff(), ChainSum()):
        rows = problem.examples(Reader(problem), Stream(0), 3)
        assert [set(row) for row in rows] == [{"prompt", "answer", "right", "verdict"}] * 3
        assert all(row["verdict"] == "right" for row in rows)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: AddCliff(width=9), "1..8"),
        (lambda: AddCliff(least=7), "least <= most <= width"),
        (lambda: AddCliff(most=7), "least <= most <= width"),
        (lambda: ModeLottery(accept="both"), "'one' or 'any'"),
        (lambda: ChainSum(width=9), "width <= 8"),
        (lambda: BlindSpot(honest=2.0), r"\[0, 1\]"),
        (lambda: symbols("aab"), "differ"),
    ],
)
def test_bad_options_are_refused(make, said):
    with pytest.raises(ValueError, match=said):
        make()


# ------------------------------------------------------------------------------------ a fixed set of prompts


def test_a_fixed_set_asks_what_it_drew_once():
    problem = AddCliff(width=8, least=5, hints=True)
    fixed = Fixed(problem, count=7)
    check_problem(fixed)
    asked = fixed.prompts(50, Stream(3).torch())
    assert sorted(set(asked.key.tolist())) == list(range(7))
    assert fixed.size == 7
    again = fixed.pick(asked.key)
    assert torch.equal(asked.ids, again.ids)
    assert torch.equal(Fixed(problem, count=7).drawn.ids, fixed.drawn.ids)
    assert not torch.equal(Fixed(problem, count=7, seed=1).drawn.ids, fixed.drawn.ids)
    right = problem.right(fixed.drawn.key)[asked.key]
    assert fixed.score(asked, right, upto_end(right)).tolist() == [1.0] * 50
    assert fixed.lesson == problem.lesson  # so that both begin with the same weights
    hinted, plain = fixed.hint(again, 0.5), problem.hint(fixed.drawn, 0.5)
    assert torch.equal(hinted.ids, plain.ids[asked.key])
    assert torch.equal(hinted.key, asked.key)
    with pytest.raises(ValueError, match="count must be at least 1"):
        Fixed(problem, count=0)


# ------------------------------------------------------------------------------------ steps


def random_answers(problem, count, seed):
    """Answers of every kind: the teacher's, and tokens drawn at random."""
    generator = Stream(seed).torch()
    prompts, tokens, mask = problem.teach(count, generator)
    drawn = torch.randint(1, len(problem.tokenizer), tokens.shape, generator=generator)
    tokens = drawn.where(torch.rand(tokens.shape, generator=generator) < 0.3, tokens)
    tokens[:, -1] = END
    mask = upto_end(tokens)
    return prompts, tokens.where(mask > 0, PAD), mask


def test_a_draw_of_nothing_is_no_endless_row_of_dots(monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda shape, **_: torch.zeros(shape))  # one draw in 2^24
    problem = ChainSum(width=4)
    prompts, tokens, mask = problem.teach(8, torch.Generator().manual_seed(0))
    assert (mask.sum(1) <= problem.max_new).all()
    assert (tokens[:, 0] == problem.symbol("chain")).all()
    assert ((tokens * mask.long() == END).sum(1) == 1).all()
    assert prompts.ids.shape == (8, 5)


def test_the_steps_of_a_sum_are_its_digits():
    problem = AddCliff()
    prompts, tokens, mask = random_answers(problem, 300, 3)
    step, right = problem.steps(prompts, tokens, mask)
    seen = 0
    for n in range(300):
        truth = add(problem.tokenizer.decode(prompts.ids[n]))
        for t in range(tokens.shape[1]):
            said = problem.tokenizer.decode(tokens[n, t]) if mask[n, t] else ""
            assert bool(step[n, t]) is (said.isdigit())
            assert bool(right[n, t]) is (said.isdigit() and t < len(truth) and said == truth[t])
            seen += int(right[n, t])
    assert seen > 300
    whole = problem.right(prompts.key)
    step, right = problem.steps(prompts, whole, upto_end(whole))
    assert torch.equal(step, right)
    assert torch.equal(step.sum(1) + 1, upto_end(whole).sum(1))


def test_the_steps_of_a_chain_are_its_running_sums():
    problem = ChainSum()
    prompts, tokens, mask = random_answers(problem, 300, 4)
    step, right = problem.steps(prompts, tokens, mask)
    seen = 0
    for n in range(300):
        digits = [int(d) for d in re.match(r"\d+", problem.tokenizer.decode(prompts.ids[n]))[0]]
        sums = list(itertools.accumulate(digits, lambda a, b: (a + b) % 10))
        said = [problem.tokenizer.decode(i) for i in tokens[n][mask[n] > 0]]
        steps, rights = [], []
        for t, word in enumerate(said):
            is_step = said[0] == "chain" and "so" not in said[:t] and word.isdigit()
            place = sum(steps)
            steps.append(is_step)
            rights.append(is_step and place < len(sums) and int(word) == sums[place])
        rest = [False] * (tokens.shape[1] - len(said))
        assert step[n].bool().tolist() == steps + rest
        assert right[n].bool().tolist() == rights + rest
        seen += sum(rights)
    assert seen > 100
