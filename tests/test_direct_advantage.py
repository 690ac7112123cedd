"""Texts that go on from where others stop, and the regression on advantages of steps."""

from functools import partial

import pytest
import torch

from steepest.collectors.generate import answers
from steepest.collectors.prefixes import alone, continued, extended, next_end, some_state
from steepest.collectors.steps import split
from steepest.core import Batch, Prompts, State, Stream, begin, train
from steepest.core.check import check_system
from steepest.losses import Terms, from_reference, regress
from steepest.problems.language import ChainSum
from steepest.systems.reasoning.dapo_direct_advantage import advantage, dapo_direct_advantage

CHAINS = partial(ChainSum, width=3, warm=120, tests=16)
SIZES = {"fit": 2, "fit_lr": 1e-3, "lr": 1e-3, "prompts": 4, "actions": 3}


def answered(count=8):
    problem = CHAINS()
    state = begin(dapo_direct_advantage(**SIZES), problem, seed=3)
    asked = problem.prompts(count, torch.Generator().manual_seed(0))
    return state, problem, asked, split(problem, answers(state, problem, asked, Stream(1)))


# ------------------------------------------------------------------------------------ beginnings


def test_a_text_is_extended_by_its_beginning_and_padded_on_the_left():
    prompts = Prompts(torch.tensor([[0, 0, 5], [7, 8, 9]]), torch.tensor([[0.0, 0, 1], [1, 1, 1]]), torch.arange(2))
    tokens = torch.tensor([[3, 4, 6], [2, 2, 2]])
    found = extended(prompts, tokens, torch.tensor([2, 0]))
    assert found.ids.tolist() == [[5, 3, 4], [7, 8, 9]]
    assert found.mask.all()
    found = extended(prompts, tokens, torch.tensor([0, 1]))
    assert found.mask.tolist() == [[0, 0, 0, 1], [1, 1, 1, 1]]
    assert found.ids[0, -1] == 5
    assert found.ids[1].tolist() == [7, 8, 9, 2]


def test_a_continuation_keeps_its_beginning_and_is_scored_as_a_whole():
    state, problem, asked, batch = answered()
    length = some_state(batch.extra["step"], torch.Generator().manual_seed(1))
    whole = continued(state, problem, asked, batch.action, length, Stream(2))
    for n, size in enumerate(length.tolist()):
        assert torch.equal(whole.action[n, :size], batch.action[n, :size])
        assert whole.mask[n, : size + 1].all()
    assert (whole.length > length).all()
    assert (whole.length <= problem.max_new).all()
    assert torch.equal(whole.score, problem.score(asked, whole.action, whole.mask))
    again = continued(state, problem, asked, batch.action, torch.zeros(8, dtype=torch.long), Stream(1))
    plain = answers(state, problem, asked, Stream(1))
    assert torch.equal(again.action, plain.action)  # from nothing it is an ordinary answer
    assert torch.equal(again.mask, plain.mask)


def test_what_is_said_beyond_the_longest_answer_is_cut_off():
    state, problem, asked, _ = answered()
    dots = torch.full((8, problem.max_new - 1), problem.symbol("."))
    whole = continued(state, problem, asked, dots, torch.full((8,), problem.max_new - 1), Stream(0))
    assert (whole.length == problem.max_new).all()


def test_a_whole_answer_cannot_be_continued():
    state, problem, asked, batch = answered()
    with pytest.raises(ValueError, match=r"beginning 0, of .* is a whole answer"):
        continued(state, problem, asked, batch.action, batch.length.long(), Stream(0))


def test_states_stand_before_steps_and_all_are_drawn():
    step = torch.tensor([[0.0, 1, 0, 1, 1]]).expand(600, 5)
    drawn = some_state(step, torch.Generator().manual_seed(0))
    counts = torch.bincount(drawn, minlength=5)
    assert counts[[1, 3]].sum() == 0
    assert (counts[[0, 2, 4]] > 150).all()
    assert next_end(step[:3], torch.tensor([0, 2, 4])).tolist() == [1, 3, 4]


def test_a_step_alone_has_the_log_probabilities_that_it_had_in_its_answer():
    state, _, _, batch = answered()
    length = some_state(batch.extra["step"], torch.Generator().manual_seed(1))
    end = next_end(batch.extra["step"], length)
    step = alone(batch, length, end)
    whole = state.policy.logp(batch.obs, batch.action, batch.mask).detach()
    mine = state.policy.logp(step.obs, step.action, step.mask).detach()
    for n, (first, last) in enumerate(zip(length.tolist(), end.tolist(), strict=True)):
        torch.testing.assert_close(mine[n, : last + 1 - first], whole[n, first : last + 1], atol=1e-4, rtol=1e-4)
    assert torch.equal(step.score, batch.score)
    assert torch.equal(step.length.long(), end + 1 - length)


# ------------------------------------------------------------------------------------ the system


class Told:
    """A verifier that knows the value of a text: `value[ids]`, by the number made of its tokens."""

    def __init__(self, value):
        self.known = value

    def score(self, obs, action, mask):
        texts = torch.cat([obs["ids"], action], 1)
        said = obs["ids"].shape[1]
        found = [[self.known[tuple(row[: said + t + 1].tolist())] for t in range(action.shape[1])] for row in texts]
        return torch.tensor(found) * mask


def test_with_an_exact_critic_the_advantages_of_a_state_add_up_to_zero():
    chance, after = torch.tensor([0.2, 0.5, 0.3]), {(1, 2, 4): 0.9, (1, 2, 5): 0.1, (1, 2, 6): 0.4}
    here = float((chance * torch.tensor(list(after.values()))).sum())
    state = State()
    state.__dict__["verifier"] = Told({(1, 2): here, **after})
    rows = torch.tensor([[1, 2]] * 3)
    one = torch.ones(3, 1)
    batch = Batch(
        {"ids": rows, "mask": torch.ones(3, 2)}, torch.tensor([[4], [5], [6]]), None, torch.zeros(3, 1), one, torch.zeros(3).long(),
        info={"ended": torch.zeros(3, dtype=torch.bool)},
    )  # fmt: skip
    found = advantage(state, batch).squeeze(1)
    assert float((chance * found).sum()) == pytest.approx(0, abs=1e-6)
    assert float(found.std()) == pytest.approx(1, abs=1e-6)
    assert found.argsort().tolist() == [1, 2, 0]
    over = batch.having(info={"ended": torch.tensor([False, True, False])}, reward=torch.tensor([[0.0], [1], [0]]))
    raw = torch.tensor([0.9, 1.0, 0.4]) - here  # what has ended is worth its score
    torch.testing.assert_close(advantage(state, over).squeeze(1), raw / raw.std())


def test_the_least_square_is_the_reference_tilted_by_the_advantage():
    ref = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64).log()
    gained, beta = torch.tensor([1.0, -1.5, 0.4], dtype=torch.float64), 0.5
    logits = ref.clone().requires_grad_()
    optimizer = torch.optim.LBFGS([logits], max_iter=200, line_search_fn="strong_wolfe")
    partition = ((ref.exp() * (gained / beta).exp()).sum()).log() * beta  # the part of A that no policy can follow

    def loss():
        optimizer.zero_grad()
        new = logits.log_softmax(0)[:, None]
        terms = Terms(new, new.detach(), (gained - partition)[:, None], torch.ones_like(new), ref=ref[:, None])
        value = from_reference(regress(scale=1 / beta))(terms).loss.sum()
        value.backward()
        return value

    for _ in range(5):
        optimizer.step(loss)
    want = (ref + gained / beta).log_softmax(0)
    torch.testing.assert_close(logits.log_softmax(0).detach(), want, atol=1e-5, rtol=1e-5)


def test_no_advantage_keeps_the_reference():
    new = torch.tensor([[-1.0, -2.0]], dtype=torch.float64, requires_grad=True)
    terms = Terms(new, new.detach(), torch.zeros_like(new), torch.ones_like(new), ref=new.detach())
    (slope,) = torch.autograd.grad(from_reference(regress(scale=10.0))(terms).loss.sum(), new)
    assert not slope.any()


def test_first_the_critic_learns_and_then_the_policy_and_never_both():
    problem = CHAINS()
    system = dapo_direct_advantage(**SIZES)
    state = begin(system, problem, seed=0)
    first = {name: x.clone() for name, x in state.state_dict().items() if isinstance(x, torch.Tensor)}
    moved = []
    for record in train(system, problem, steps=4, state=state):
        now = {name: x.clone() for name, x in state.state_dict().items() if isinstance(x, torch.Tensor)}
        moved.append({name.split(".")[0] for name in now if not torch.equal(now[name], first[name])})
        first = now
        assert ("verifier_loss" in record.metrics) == (record.step <= 2)
    assert moved == [{"verifier"}, {"verifier"}, {"policy"}, {"policy"}]


def test_the_critic_learns_how_often_a_state_ends_right():
    problem = CHAINS()
    told = [
        record.metrics
        for record in train(dapo_direct_advantage(fit=40, fit_lr=1e-3, prompts=32, actions=4), problem, steps=40, seed=0)
    ]
    early, late = (sum(row["verifier_loss"] for row in rows) / 8 for rows in (told[:8], told[-8:]))
    assert late < early - 0.05


@pytest.mark.parametrize(
    ("options", "match"),
    [({"actions": 1}, "at least 2"), ({"fit": 0}, "fit at least 1"), ({"beta": 0.0}, "beta"), ({"fit_lr": 0.0}, "fit_lr")],
)
def test_bad_options_are_refused(options, match):
    with pytest.raises(ValueError, match=match):
        dapo_direct_advantage(**options)


def test_it_conforms():
    assert "resume is bitwise in a fresh process" in check_system(partial(dapo_direct_advantage, **SIZES), partial(CHAINS, warm=5))
