"""Rewards of length against plain arithmetic on every small case, and what each paper promises of its own."""

import itertools
import math

import pytest
import torch

from steepest.credit import (
    cer,
    cer_decrements,
    cosine,
    hapo,
    kimi_length,
    l1_exact,
    l1_max,
    leave_one_out,
    overlong,
    prefix_cer,
    rubric,
    shortest_right,
)  # fmt: skip

GRID = [(float(n), float(r), float(w)) for n in range(1, 13) for r in (0, 1) for w in (1, 4, 9)]
LENGTH, RIGHT, WANTED = (torch.tensor(column) for column in zip(*GRID, strict=True))
KEY = torch.zeros(len(GRID), dtype=torch.long)


def close(found, wanted):
    torch.testing.assert_close(found, torch.tensor(list(wanted), dtype=found.dtype), rtol=0, atol=1e-6)


def test_l1_is_its_equation():
    close(l1_exact(LENGTH, RIGHT, WANTED, rate=0.05), (r - 0.05 * abs(w - n) for n, r, w in GRID))
    close(l1_max(LENGTH, RIGHT, WANTED, rate=0.05), (r * min(1, max(0, 0.05 * (w - n) + 0.5)) for n, r, w in GRID))


def test_l1_promises():
    exact = l1_exact(LENGTH, RIGHT, WANTED)
    assert torch.equal(exact == 1, (RIGHT == 1) & (LENGTH == WANTED))  # 1 for a right answer of the wanted length, and only then
    over, under = (l1_exact(torch.tensor([n]), torch.ones(1), torch.tensor([6.0])) for n in (8.0, 4.0))
    assert torch.equal(over, under)
    most = l1_max(LENGTH, RIGHT, WANTED, rate=0.2)
    assert (most[RIGHT == 0] == 0).all()
    for wanted in (1.0, 4.0, 9.0):
        one = most[(RIGHT == 1) & (wanted == WANTED)]
        assert (one.diff() <= 0).all()


def test_hapo_is_its_equation_and_prefers_every_right_answer():
    def by_hand(n, r, h):
        f = math.cos(min(n / h, 2) * math.pi / 2)
        return max(-0.7, f) if r else min(0.0, f)

    close(hapo(LENGTH, RIGHT, WANTED), (by_hand(*row) for row in GRID))
    total = RIGHT + hapo(LENGTH, RIGHT, WANTED)
    assert total[RIGHT == 1].min() > total[RIGHT == 0].max()
    assert (hapo(LENGTH, RIGHT, torch.full_like(LENGTH, math.inf)) == 0).all()
    wrong_and_short = (RIGHT == 0) & (LENGTH <= WANTED)
    assert hapo(LENGTH, RIGHT, WANTED)[wrong_and_short].abs().max() < 1e-6


def test_the_shortest_right_answer_is_remembered_and_never_grows():
    before = torch.tensor([math.inf, 5.0, 3.0, math.inf])
    length, right = torch.tensor([7.0, 4.0, 2.0, 9.0, 1.0]), torch.tensor([1.0, 1.0, 0.0, 1.0, 0.0])
    key = torch.tensor([0, 0, 2, 1, 3])
    after = shortest_right(length, right, key, before)
    assert after.tolist() == [4, 5, 3, math.inf]
    assert before.tolist() == [math.inf, 5, 3, math.inf]
    assert torch.equal(shortest_right(length, right, key, after), after)


def test_kimi_is_its_equation_within_each_prompt():
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        key = torch.randint(4, (12,), generator=generator)
        length = torch.randint(1, 5, (12,), generator=generator).float()
        right = torch.randint(2, (12,), generator=generator).float()
        wanted = []
        for n, r, k in zip(length.tolist(), right.tolist(), key.tolist(), strict=True):
            group = length[key == k]
            least, most = float(group.min()), float(group.max())
            x = 0.0 if least == most else 0.5 - (n - least) / (most - least)
            wanted.append(x if r else min(0.0, x))
        close(kimi_length(length, right, key), wanted)
    found = kimi_length(torch.tensor([3.0, 9.0, 3.0]), torch.tensor([1.0, 1.0, 0.0]), torch.zeros(3, dtype=torch.long))
    assert found.tolist() == [0.5, -0.5, 0.0]


def test_overlong_is_its_equation():
    wanted = [0, 0, 0, 0, 0, 0, 0, 0, -0.25, -0.5, -0.75, -1, -1, -1]
    close(overlong(torch.arange(1.0, 15.0), most=12, buffer=4), wanted)


def test_cosine_is_its_equation_and_orders_what_it_should():
    most = 10.0

    def by_hand(n, r):
        if n >= most:
            return -10.0
        a, b = (2.0, 1.0) if r else (-10.0, 0.0)
        return b + 0.5 * (a - b) * (1 + math.cos(n * math.pi / most))

    close(cosine(LENGTH, RIGHT, most=most), (by_hand(n, r) for n, r, _ in GRID))
    within = torch.arange(1.0, 10.0)
    assert (cosine(within, torch.ones(9), most=most).diff() < 0).all()  # right: the shorter the better
    assert (cosine(within, torch.zeros(9), most=most).diff() > 0).all()  # wrong: thinking longer costs less


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: l1_exact(LENGTH, RIGHT, WANTED, rate=-1.0), "rate must not be negative"),
        (lambda: l1_max(LENGTH, RIGHT, 0 * WANTED), "a wanted length is 0"),
        (lambda: hapo(0 * LENGTH, RIGHT, WANTED), "0 tokens"),
        (lambda: hapo(LENGTH, RIGHT, WANTED, floor=-1.0), r"lies in \(-1, 0\]"),
        (lambda: overlong(LENGTH, most=4, buffer=5), "0 < buffer <= most"), (lambda: cosine(LENGTH, RIGHT, most=0), "most must be"),
        (lambda: rubric(2 * torch.ones(2, 1), torch.ones(2, 1), KEY[:2]), r"scores lie in \[0, 1\]"),
        (lambda: rubric(torch.ones(2, 1), torch.zeros(2, 1), KEY[:2] + 7), "all confidences of prompt 7 are 0"),
        (lambda: rubric(torch.ones(2, 1), -torch.ones(2, 1), KEY[:2]), "none may be negative"),
        (lambda: rubric(torch.ones(2), torch.ones(2), KEY[:2]), r"both \[N, K\]"),
        (lambda: cer(KEY[None], torch.ones(1, len(KEY)), KEY[None], torch.zeros(1, len(KEY))), "target 0 is empty"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(call, said):
    with pytest.raises(ValueError, match=said):
        call()


# ------------------------------------------------------------------------------------ rubrics


def test_a_rubric_is_its_equation():
    generator = torch.Generator().manual_seed(1)
    score, sure = torch.rand(8, 3, generator=generator), torch.rand(8, 3, generator=generator)
    weight, key = torch.tensor([1.0, 2.0, 0.5]), torch.tensor([4, 4, 9, 9, 9, 4, 9, 4])
    wanted = []
    for n in range(8):
        mean = sure[key == key[n]].mean(0)
        wanted.append(float((mean * weight * score[n]).sum() / (mean * weight).sum()))
    close(rubric(score, sure, key, weight), wanted)


def test_a_rubric_of_one_sure_item_is_its_score_and_an_unsure_item_is_gone():
    generator = torch.Generator().manual_seed(2)
    score, key = torch.rand(8, 2, generator=generator), torch.arange(8) // 4
    one = rubric(score[:, :1], torch.ones(8, 1), key)
    torch.testing.assert_close(leave_one_out(one, key), leave_one_out(score[:, 0], key))
    torch.testing.assert_close(rubric(score, torch.tensor([[0.7, 0.0]]).expand(8, 2), key), score[:, 0])


# ------------------------------------------------------------------------------------ character errors


def edits(one, other):
    """Levenshtein's distance, by its recursion."""
    if not one or not other:
        return len(one) + len(other)
    swap = edits(one[1:], other[1:]) + (one[0] != other[0])
    return min(swap, edits(one[1:], other) + 1, edits(one, other[1:]) + 1)


def test_the_error_rate_of_every_prefix_is_that_of_the_recursion():
    answers = [list(x) for n in range(4) for x in itertools.product((1, 2), repeat=n)]
    targets = [list(x) for n in range(1, 4) for x in itertools.product((1, 2, 3), repeat=n)][::3]
    for one, other in itertools.product(answers, targets):
        padded = [*one, *[1] * (4 - len(one))]
        mask = torch.tensor([[1.0] * len(one) + [0.0] * (4 - len(one))])
        target = torch.tensor([[*other, *[1] * (3 - len(other))]])
        of_target = torch.tensor([[1.0] * len(other) + [0.0] * (3 - len(other))])
        said = (torch.tensor([padded]), mask, target, of_target)
        wanted = [edits(one[:t], other) / len(other) for t in range(5)]
        close(prefix_cer(*said)[0], wanted)
        close(cer(*said), wanted[-1:])
        close(cer_decrements(*said).sum(1), [1 - wanted[-1]])
