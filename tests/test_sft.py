"""Learning from demonstrations and from own successes: SFT, RFT, PSFT and OTR."""

from functools import partial

import pytest
import torch

from steepest.collectors.demonstrations import demonstrations
from steepest.core import Stream, begin, train
from steepest.core.check import check_system
from steepest.losses import Terms, clip, reinforce, token_mean
from steepest.problems.fixed import Fixed
from steepest.problems.language import AddCliff, BlindSpot, ChainSum, ModeLottery
from steepest.problems.single_turn import Questions
from steepest.systems.reasoning.otr import otr
from steepest.systems.reasoning.psft import psft
from steepest.systems.reasoning.rft import accepted, rft
from steepest.systems.reasoning.sft import sft

SMALL = partial(AddCliff, width=2, least=1, warm=60, tests=32)
SIZES = {"prompts": 8, "lr": 1e-3}


def parameters(state):
    return torch.cat([p.detach().flatten() for p in state.policy.parameters()])


def after(system, problem=None, steps=1):
    *_, last = train(system, problem or SMALL(), steps=steps)
    return parameters(last.state)


# ------------------------------------------------------------------------- demonstrations


TASKS = AddCliff(), AddCliff(hints=True), ModeLottery(), ChainSum(), BlindSpot(), Fixed(AddCliff(), 9)


@pytest.mark.parametrize("problem", TASKS, ids=lambda problem: type(problem).__name__)
def test_a_demonstration_is_right_and_ends(problem):
    asked = problem.prompts(12, Stream(0).torch())
    tokens, mask = problem.demonstrate(asked)
    assert problem.score(asked, tokens, mask).tolist() == [1.0] * 12
    last = mask.sum(1, keepdim=True).long() - 1
    assert bool((tokens.gather(1, last) == problem.tokenizer.eos_token_id).all())


def same_text(question, text, answer):
    return float(text == answer)


def test_those_of_a_data_set_are_its_answers():
    rows = (("1+1", "2"), ("two", "zwei"), ("three words", "drei kurze Worte"))
    problem = Questions(rows, same_text, max_new=20)
    asked = problem.pick(torch.tensor([2, 0, 1]))
    tokens, mask = problem.demonstrate(asked)
    assert problem.read(tokens, mask) == ["drei kurze Worte", "2", "zwei"]
    assert problem.score(asked, tokens, mask).tolist() == [1.0] * 3
    assert bool((tokens[mask == 0] == problem.tokenizer.pad_token_id).all())


def test_only_answers_are_learned_and_every_token_counts_the_same():
    problem, system = SMALL(), sft(max_grad_norm=float("inf"), **SIZES)
    state = begin(system, problem)
    batch = system.collect(state, problem, Stream(0))
    assert batch.check() is batch
    assert batch.score.tolist() == [1.0] * 8
    system.learn(state, batch, Stream(1))
    got = torch.cat([p.grad.flatten() for p in state.policy.parameters()])
    fresh = begin(system, problem)
    whole = -(fresh.policy.logp(batch.obs, batch.action, batch.mask) * token_mean(batch.mask)).sum()  # log pi(answer | prompt)
    whole.backward()
    torch.testing.assert_close(got, torch.cat([p.grad.flatten() for p in fresh.policy.parameters()]))


def test_it_does_not_depend_on_the_cut():
    torch.testing.assert_close(after(sft(**SIZES)), after(sft(micro=3, **SIZES)), atol=1e-6, rtol=0)


def test_it_learns_what_it_is_shown():
    problem = AddCliff(width=1, least=1, warm=30, tests=256)
    system = sft(prompts=64, lr=3e-3)
    state = begin(system, problem)
    before = problem.evaluate(state.policy, Stream(0))["accuracy"]
    *_, last = train(system, problem, steps=40, state=state)
    assert problem.evaluate(last.state.policy, Stream(0))["accuracy"] > before + 0.1


def test_a_problem_without_answers_to_show_is_refused():
    class Silent(AddCliff):
        @property
        def demonstrate(self):
            raise AttributeError("no", name="demonstrate", obj=self)

    with pytest.raises(TypeError, match="it needs `demonstrate`, which Silent"):
        next(train(sft(**SIZES), Silent(width=2, least=1, warm=5), steps=1))
    with pytest.raises(ValueError, match="prompts must be at least 1, not 0"):
        demonstrations(prompts=0)


# ------------------------------------------------------------------------- own successes


def test_right_answers_are_kept_once_and_each_counts_one():
    problem, system = SMALL(), rft(group=6, **SIZES)
    state = begin(system, problem)
    batch = system.collect(state, problem, Stream(0))
    twice = batch.rows(torch.arange(len(batch)).repeat(2))
    chosen = accepted(state, twice, right=1.0, cap=None)
    said = {(int(k), *row) for k, row, good in zip(batch.key, batch.action.tolist(), batch.score > 0, strict=True) if good}
    assert 0 < len(chosen) == len(said) < len(batch)
    assert chosen.score.tolist() == [1.0] * len(chosen)
    assert {(int(k), *row) for k, row in zip(chosen.key, chosen.action.tolist(), strict=True)} == said
    lottery = ModeLottery(accept="any", warm=60)  # several answers are right
    state = begin(system, lottery)
    many = rft(group=32, **SIZES).collect(state, lottery, Stream(0))
    counts = [accepted(state, many, right=1.0, cap=cap).key.unique(return_counts=True)[1].max() for cap in (None, 2, 1)]
    assert counts[0] > 2
    assert counts[1:] == [2, 1]


def test_its_gradient_is_that_of_the_verdict_as_advantage():
    """With all tokens of a step counted, right or wrong, only the size differs."""
    problem = SMALL()
    system = rft(group=6, max_grad_norm=float("inf"), **SIZES)
    state, plain = begin(system, problem), begin(system, problem)
    batch = system.collect(state, problem, Stream(0))
    chosen = accepted(state, batch, right=1.0, cap=None)
    index = [row for row in range(len(batch)) if any(int(batch.key[row]) == int(k) and torch.equal(batch.action[row], a)
             for k, a in zip(chosen.key, chosen.action, strict=True))]  # fmt: skip
    system.learn(state, batch, Stream(1))
    logp = plain.policy.logp(batch.obs, batch.action, batch.mask)
    seen, verdict = set(), torch.zeros(len(batch))
    for row in index:
        said = (int(batch.key[row]), *batch.action[row].tolist())
        verdict[row] = float(said not in seen)
        seen.add(said)
    (-(logp * verdict[:, None]).sum() / chosen.mask.sum()).backward()
    mine, other = (torch.cat([p.grad.flatten() for p in s.policy.parameters()]) for s in (state, plain))
    torch.testing.assert_close(mine, other, atol=1e-6, rtol=1e-4)


def test_where_nothing_is_right_nothing_changes():
    class Hopeless(AddCliff):
        def score(self, prompts, tokens, mask):
            return torch.zeros(len(mask))

    problem = Hopeless(width=2, least=1, warm=5)
    state = begin(rft(**SIZES), problem)
    before = parameters(state)
    (record,) = train(rft(**SIZES), problem, steps=1, state=state)
    assert record.metrics["skipped"] == 1
    assert torch.equal(before, parameters(state))


# ------------------------------------------------------------------------- PSFT


def test_with_one_update_it_is_sft_and_with_more_it_is_not():
    torch.testing.assert_close(after(psft(minibatches=1, **SIZES)), after(sft(**SIZES)), atol=1e-6, rtol=0)
    far = dict(prompts=32, lr=3e-2, minibatches=8, epochs=2)
    assert float((after(psft(**far)) - after(sft(**far))).abs().max()) > 1e-3


def test_a_token_beyond_the_band_pulls_no_longer():
    problem = SMALL()
    state = begin(sft(**SIZES), problem)
    batch = demonstrations(prompts=4)(state, problem, Stream(0))
    new = state.policy.logp(batch.obs, batch.action, batch.mask).detach().requires_grad_()
    shift = torch.where(torch.arange(4)[:, None] < 2, 0.3, 0.2)  # ratios of 1.35 and 1.22
    terms = Terms(new, new.detach() - shift, torch.ones_like(new), batch.mask)
    (g,) = torch.autograd.grad((clip(low=0.2, high=0.28)(terms).loss * batch.mask).sum(), new)
    assert not g[:2].any()
    assert bool((g[2:][batch.mask[2:] > 0] < 0).all())
    below = Terms(new, new.detach() + 3, torch.ones_like(new), batch.mask)
    (g,) = torch.autograd.grad((clip(low=0.2, high=0.28)(below).loss * batch.mask).sum(), new)
    assert bool((g[batch.mask > 0] < 0).all())  # the lower edge never binds


# ------------------------------------------------------------------------- OTR


def gradient(system, seed=1):
    problem = SMALL()
    state = begin(system, problem)
    batch = system.collect(state, problem, Stream(0))
    system.learn(state, batch, Stream(seed))
    return state, batch, torch.cat([p.grad.flatten() for p in state.policy.parameters()])


def expected(batch, warmth, wrong):
    """The limit of infinitely many draws."""
    state = begin(sft(**SIZES), SMALL())
    logits = state.policy.logits(batch.obs, batch.action)
    chance, logp = (logits / warmth).softmax(-1).detach(), logits.log_softmax(-1)
    right = torch.nn.functional.one_hot(batch.action, logits.shape[-1])
    loss = -(chance * torch.where(right > 0, 1.0, wrong) * logp).sum(-1)
    (loss * token_mean(batch.mask)).sum().backward()
    return torch.cat([p.grad.flatten() for p in state.policy.parameters()])


@pytest.mark.parametrize("wrong", [0.0, -0.1])
def test_many_draws_give_the_gradient_that_is_expected(wrong):
    _, batch, got = gradient(otr(tokens=20_000, wrong=wrong, max_grad_norm=float("inf"), **SIZES))
    true = expected(batch, 1.3, wrong)
    assert float((got - true).norm() / true.norm()) < 0.05
    _, _, rough = gradient(otr(tokens=4, wrong=wrong, max_grad_norm=float("inf"), **SIZES))
    assert float((rough - true).norm() / true.norm()) > 0.2  # or the law above would hold of anything


def test_without_a_penalty_it_is_sft_weighed_by_confidence():
    """At temperature 1 the weight of a token is its own probability."""
    state, batch, _ = gradient(otr(**SIZES))
    true = expected(batch, 1.0, 0.0)
    state = begin(sft(**SIZES), SMALL())
    logp = state.policy.logp(batch.obs, batch.action, batch.mask)
    (-(logp.exp().detach() * logp) * token_mean(batch.mask)).sum().backward()
    torch.testing.assert_close(true, torch.cat([p.grad.flatten() for p in state.policy.parameters()]), atol=1e-5, rtol=1e-3)


# ------------------------------------------------------------------------- all of them

SYSTEMS = {"sft": sft, "rft": partial(rft, group=4, cap=1), "psft": partial(psft, minibatches=2), "otr": partial(otr, tokens=8)}


@pytest.mark.parametrize("make", SYSTEMS.values(), ids=SYSTEMS)
def test_it_conforms(make):
    check_system(partial(make, **SIZES), SMALL, half=1)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (partial(rft, cap=0), "cap must be at least 1"), (partial(psft, high=0.0), "high must be positive"),
        (partial(psft, minibatches=0), "minibatches must be at least 1"), (partial(otr, tokens=0), "tokens must be at least 1"),
        (partial(otr, wrong=0.1), "wrong at most 0"), (partial(rft, group=0), "group must be at least 1"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_before_any_work(make, said):
    with pytest.raises(ValueError, match=said):
        make()


def test_sft_is_the_weighted_policy_gradient_with_advantage_one():
    torch.testing.assert_close(after(sft(**SIZES)), after(sft(loss=reinforce(), **SIZES)))
