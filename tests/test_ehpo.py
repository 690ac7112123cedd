"""Easy and hard units of thought: EHPO."""

from functools import partial

import pytest
import torch

from steepest.collectors.branches import branched, drawn, marks
from steepest.collectors.generate import generate
from steepest.core import Batch, Stream, begin, train
from steepest.core.check import check_system
from steepest.evidence.claim import Run
from steepest.evidence.reasoning.ehpo import claim as ehpo_claim
from steepest.problems.language import ChainSum, ModeLottery
from steepest.problems.symbolic import END, ZERO, upto_end
from steepest.systems.reasoning.ehpo import dual_reward, ehpo

CHAINS = partial(ChainSum, width=3, warm=120, tests=8)
SIZES = {"prompts": 6, "group": 3, "lr": 1e-3}


def collected(forks=2, steps=0):
    problem = CHAINS()
    state = begin(ehpo(forks=forks, **SIZES), problem)
    return state, problem, branched(forks)(prompts=6, group=3)(state, problem, Stream(2))


def test_units_are_read_from_what_is_announced():
    task = ChainSum(width=3)
    now, chain, so, dot = (task.symbol(name) for name in ("now", "chain", "so", "."))
    d = ZERO + 4
    rows = [[now, d, END], [chain, d, dot, d, so, d, END], [chain, so, d, END], [d, d, END], [now, now, d, END]]
    tokens = torch.tensor([row + [0] * (7 - len(row)) for row in rows])
    prompts = task.prompts(5, Stream(0).torch())
    easy, hard, fits = task.units(prompts, tokens, upto_end(tokens))
    assert easy.sum(1).tolist() == [1, 0, 0, 0, 1]
    assert hard.sum(1).tolist() == [0, 1, 1, 0, 0]
    assert fits.tolist() == [True, True, False, True, True]
    assert bool((easy + hard)[:, 1:].sum() == 0)


def reward(right, easy, hard, base=0.5):
    right, easy, hard = (torch.tensor(x, dtype=torch.float32) for x in (right, easy, hard))
    return dual_reward(right, torch.zeros(len(right), dtype=torch.long), easy, hard, base=base)


def test_where_all_are_right_only_easy_units_pay_and_the_rarer_the_right_the_more_do_hard_ones():
    assert reward([1, 1], [2, 0], [0, 3], base=0.0).tolist() == [1.0, 0.0]
    assert reward([1, 1], [2, 0], [0, 3]).tolist() == [1.0, 0.5]
    many = [1, 1] + [0] * 98
    easy, hard = [1, 0] + [0] * 98, [0, 1] + [1] * 98
    paid = reward(many, easy, hard, base=0.0)
    assert paid[:2].tolist() == pytest.approx([0.02, 0.98])
    assert bool((paid[2:] == 0).all())  # wrong answers earn nothing
    assert reward([1, 1, 0], [1, 1, 1], [3, 1, 0], base=0.2).tolist() == pytest.approx(
        [0.2 + 0.8 * (2 / 3 * 1 / 4 + 1 / 3 * 3 / 4), 0.2 + 0.8 * 0.5, 0.0]
    )


def test_an_answer_without_units_earns_nothing():
    assert reward([1, 1], [0, 1], [0, 0]).tolist() == [0.0, 1.0]


def test_the_mean_over_all_shares_stays_when_the_base_is_1():
    assert reward([1, 1, 0], [1, 0, 1], [0, 1, 0], base=1.0).tolist() == [1.0, 1.0, 0.0]


def test_forks_join_the_group_and_share_the_beginning_that_turned_hard():
    state, problem, batch = collected()
    plain = generate(prompts=6, group=3)(state, problem, Stream(2))
    assert len(plain) < len(batch) <= len(plain) + 12
    assert batch.check() is batch
    assert torch.equal(batch.key, batch.key.sort()[0])
    assert batch.info["forked"] == pytest.approx(1 - 18 / len(batch))
    said = {(int(k), tuple(row[m > 0].tolist())) for k, row, m in zip(plain.key, plain.action, plain.mask, strict=True)}
    chain = problem.symbol("chain")
    counts = []
    for key in plain.key.unique():
        new = [
            row[m > 0].tolist() for k, row, m in zip(batch.key, batch.action, batch.mask, strict=True) if k == key
            and (int(k), tuple(row[m > 0].tolist())) not in said
        ]  # fmt: skip
        assert all(row[0] == chain for row in new)
        counts.append(int((batch.key == key).sum()) - int((plain.key == key).sum()))
    assert 0 <= min(counts) <= 1 <= max(counts) <= 2
    tokens, mask = batch.action, batch.mask
    logp = state.policy.logp(batch.obs, tokens, mask)
    for n in range(len(batch) - 1):  # a beginning that is shared is as likely in all answers that share it
        if batch.key[n] == batch.key[n + 1] and tokens[n, 0] == tokens[n + 1, 0]:
            assert float((logp[n, 0] - logp[n + 1, 0]).detach()) == pytest.approx(0.0, abs=1e-5)


class Spread:
    """A policy whose entropies are given."""

    def __init__(self, entropy, size):
        self.entropy, self.tokenizer = entropy, range(size)

    def logp_entropy(self, obs, action, mask):
        return None, self.entropy


def test_a_place_forks_with_half_a_chance_and_more_if_doubt_has_grown():
    """Rows of two units; only the turn from easy to hard is a place."""
    n = 4000
    easy, hard = torch.zeros(n, 6), torch.zeros(n, 6)
    easy[:, 0], hard[:, 2], hard[:, 4] = 1.0, 1.0, 1.0
    entropy = torch.zeros(n, 6)
    entropy[:, 3] = torch.tensor(8.0).log() * 0.3  # at the end of the hard unit that begins at 2, which is also its start + 1
    entropy[: n // 2, 3] = 0.0
    hard[: n // 2, 4] = 0.0  # there the unit lasts until the end
    entropy[: n // 2, 5] = torch.tensor(8.0).log() * 0.3
    state = type("S", (), {"policy": Spread(entropy, 8)})()
    batch = Batch({}, None, None, torch.zeros(n, 6), torch.ones(n, 6), torch.arange(n))
    rows, places = drawn(state, batch, easy, hard, Stream(0).torch(), 3)
    assert bool((places == 2).all())
    grown = float((rows < n // 2).sum()) / (n // 2)
    same = float((rows >= n // 2).sum()) / (n // 2)
    assert grown == pytest.approx(0.8, abs=0.03)
    assert same == pytest.approx(0.5, abs=0.03)
    rows, _ = drawn(state, batch.having(key=torch.arange(n) // 10), easy, hard, Stream(0).torch(), 3)
    assert int(torch.bincount(rows // 10).max()) == 3  # of about six in ten


def test_what_is_learned_from_is_the_reward_of_the_units():
    state, problem, batch = collected()
    easy, hard, fits = marks(problem, batch)
    told = ehpo(forks=2, **SIZES).learn(state, batch, Stream(3))
    right = ((batch.score >= 1) & fits).float()
    expected = dual_reward(right, batch.key, easy.sum(1), hard.sum(1), base=0.5)
    assert told["reward"] == pytest.approx(float(expected.mean()))
    assert told["score"] == pytest.approx(float(batch.score.mean()))


def test_ehpo_conforms_in_a_fresh_process():
    assert check_system(partial(ehpo, forks=2, **SIZES), partial(ChainSum, width=2, warm=30, tests=2), half=1)


def test_the_claim_of_ehpo_runs_at_a_smaller_size():
    problem = ehpo_claim.problem(width=2, warm=30, tests=4)
    for arm in (ehpo_claim.ours, ehpo_claim.baseline):
        rows = list(train(arm(prompts=2, group=3), problem, steps=2))
        assert ehpo_claim.measure(Run(0, [r.metrics for r in rows], rows[-1].state, problem)) < 10
        assert "length" in rows[-1].metrics


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (partial(ehpo, forks=0), "forks must be at least 1, not 0"),
        (partial(ehpo, base=1.5), "base must lie in \\[0, 1\\], not 1.5"),
        (partial(ehpo, group=1), "a group needs at least 2 answers"),
    ],
)
def test_what_makes_no_sense_is_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_a_problem_without_units_is_refused():
    with pytest.raises(TypeError, match="it needs `units`, which ModeLottery"):
        next(train(ehpo(**SIZES), ModeLottery(warm=2), steps=1))
