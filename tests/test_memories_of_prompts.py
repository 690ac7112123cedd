"""Systems that remember something of each prompt: successes, success rates, shortest answers, categories, the past."""

import math
from functools import partial
from itertools import combinations

import pytest
import torch

from steepest.collectors.asking import by_weight
from steepest.collectors.generate import answers, generate
from steepest.core import Stream, begin, train
from steepest.core.check import check_system
from steepest.credit import group_relative, l1_exact, l1_max
from steepest.losses import Terms, clip, token_mean
from steepest.losses.check import check_loss
from steepest.losses.covering import alpha_divergence, covering, forward_kl, jensen_shannon
from steepest.losses.mixed import between, mixed_clip
from steepest.memory.latest import Latest
from steepest.memory.successes import Successes
from steepest.problems.budget import BudgetSum
from steepest.problems.fixed import Fixed
from steepest.problems.language import AddCliff, ChainSum, ModeLottery
from steepest.systems.reasoning.d3s import chosen, d3s, most_varied, on_chosen
from steepest.systems.reasoning.dph_rl import dph_rl
from steepest.systems.reasoning.elastic_reset import elastic_reset
from steepest.systems.reasoning.grpo import grpo
from steepest.systems.reasoning.hapo_history import hapo_history, shaped
from steepest.systems.reasoning.lcpo import lcpo
from steepest.systems.reasoning.remix import remix, weight
from steepest.systems.reasoning.rlep import rlep
from steepest.systems.reasoning.sec import sec
from steepest.systems.reasoning.spo_single_stream import beyond_tracker, spo_single_stream

TASK = AddCliff(width=2, least=1, warm=60, tests=32)
POOL = partial(Fixed, TASK, 12)
SIZES = {"prompts": 4, "group": 4, "lr": 1e-3}


def parameters(policy):
    return torch.cat([p.detach().flatten() for p in policy.parameters()])


def after(system, problem=None, steps=2):
    *_, last = train(system, problem or POOL(), steps=steps)
    return parameters(last.state.policy)


def run(system, problem=None, steps=2):
    *_, last = train(system, problem or POOL(), steps=steps)
    return last


# ------------------------------------------------------------------------- RLEP


def test_a_pool_holds_each_answer_once_and_no_more_than_fit():
    memory = Successes(3, 2, 4)
    said = torch.tensor([[5, 6, 1, 0], [5, 6, 1, 9], [7, 1, 0, 0], [8, 1, 0, 0]])
    mask = torch.tensor([[1.0, 1, 1, 0], [1, 1, 1, 0], [1, 1, 0, 0], [1, 1, 0, 0]])
    memory.write(torch.tensor([2, 2, 2, 2]), said, mask)
    assert memory.held().tolist() == [0, 0, 2]
    whose, tokens, made = memory.read(torch.tensor([0, 2, 2]), 5, Stream(0).torch())
    assert whose.tolist() == [1, 1, 2, 2]  # never the same one twice
    for half in (slice(0, 2), slice(2, 4)):
        assert {tuple(x[m > 0].tolist()) for x, m in zip(tokens[half], made[half], strict=True)} == {(5, 6, 1), (7, 1)}
    assert len(memory.read(torch.tensor([2]), 1, Stream(0).torch())[0]) == 1
    assert len(memory.read(torch.tensor([0, 1]), 2, Stream(0).torch())[0]) == 0


def test_successes_come_back_beside_every_group_and_are_right():
    system, problem = rlep(harvest=3, **SIZES), POOL()
    state = begin(system, problem)
    first = parameters(state.policy)
    for record in train(system, problem, steps=3, state=state):
        assert "replayed" not in record.metrics
    assert torch.equal(parameters(state.policy), first)  # the second phase begins where the first did
    assert not state.optimizers["policy"].state
    assert int(state.pool.held().sum()) > 0
    batch = system.collect(state, problem, Stream(1))
    plain = grpo(**SIZES).collect(state, problem, Stream(1))
    for key in batch.key.unique():
        mine, own = batch.rows(batch.key == key), plain.rows(plain.key == key)
        more = len(mine) - len(own)
        assert more == min(2, int(state.pool.held()[key]))
        assert mine.score[len(own) :].tolist() == [1.0] * more
        if more and not own.score.any():
            assert bool(group_relative(mine.score, mine.key).any())  # a group of failures has something to learn from
    assert torch.equal(after(rlep(harvest=1, replay=0, kl=0.0, **SIZES), steps=1), first)


def test_without_replay_it_is_grpo():
    options = {**SIZES, "kl": 0.0}
    a = after(rlep(harvest=9, **options))
    assert torch.equal(a, after(grpo(loss=clip(low=0.2, high=0.28), reduce=token_mean, **options)))


def test_a_pool_that_is_wrong_is_refused():
    system, problem = rlep(harvest=1, **SIZES), POOL()
    state = begin(system, problem)
    state.step = 1
    key = torch.arange(12)
    state.pool.write(key, torch.full((12, 2), 5), torch.ones(12, 2))
    with pytest.raises(ValueError, match="is not right: it was verified by another problem"):
        system.collect(state, problem, Stream(0))


# ------------------------------------------------------------------------- SPO


def test_the_last_row_of_a_key_stays():
    memory = Latest(4, x=torch.zeros(3), n=torch.zeros((), dtype=torch.long))
    memory.write(torch.tensor([1, 3, 1]), x=torch.tensor([[1.0, 1], [2, 2], [3, 3]]), n=torch.tensor([1, 2, 3]))
    assert memory.read(torch.tensor([1, 3, 0]))["x"].tolist() == [[3, 3, 0], [2, 2, 0], [0, 0, 0]]
    assert memory.n.tolist() == [0, 3, 0, 2]
    with pytest.raises(ValueError, match=r"columns \['n', 'x'\]"):
        memory.write(torch.tensor([1]), x=torch.zeros(1, 3))


def test_an_answers_baseline_is_of_the_past():
    system, problem = spo_single_stream(prompts=8, minibatches=2, lr=1e-3, first=4), POOL()
    state = begin(system, problem)
    assert torch.allclose(state.tracker.alpha + state.tracker.beta, torch.full((12,), 8.0))
    batch = system.collect(state, problem, Stream(0))
    before = state.tracker.read().clone()
    system.learn(state, batch, Stream(1))
    for n, key in enumerate(batch.key.tolist()):
        rho = 0.96  # nothing was answered before, so nothing has moved
        alpha = rho * 8 * before[key] + batch.score[n]
        assert float(state.tracker.alpha[key]) == pytest.approx(float(alpha), abs=1e-5)
    away = batch.score - before[batch.key]
    expected = (away - away.mean()) / away.std(correction=0)
    state = begin(system, problem)
    torch.testing.assert_close(beyond_tracker(state, batch)[:, 0], expected, atol=1e-5, rtol=0)
    untouched = sorted(set(range(12)) - set(batch.key.tolist()))
    assert torch.equal(state.tracker.read()[untouched], before[untouched])


def test_the_past_is_forgotten_as_the_policy_moves():
    system, problem = spo_single_stream(prompts=12, minibatches=1, lr=1e-9, first=0), POOL()
    still = run(system, problem, 3).state
    assert torch.allclose(still.tracker.weight(), torch.tensor(((8 * 0.96 + 1) * 0.96 + 1) * 0.96 + 1), atol=1e-3)
    moved = run(spo_single_stream(prompts=12, minibatches=1, lr=3e-2, first=0), problem, 3).state
    assert bool((moved.tracker.weight() < still.tracker.weight() - 0.5).any())
    assert bool((moved.tracker.weight() >= ((8 * 0.875 + 1) * 0.875 + 1) * 0.875 + 1 - 1e-3).all())


def test_what_was_foreseen_teaches_nothing():
    class Flat(AddCliff):
        def score(self, prompts, tokens, mask):
            return torch.ones(len(mask))

    problem = Fixed(Flat(width=2, least=1, warm=5), 12)
    system = spo_single_stream(prompts=12, minibatches=1, lr=1e-3)
    state = begin(system, problem)
    (record,) = train(system, problem, steps=1, state=state)
    assert record.metrics["skipped"] == 1


# ------------------------------------------------------------------------- SEC


def test_categories_are_asked_by_what_they_teach():
    system, problem = sec(tau=0.1, rate=0.5, **SIZES), POOL()
    state = begin(system, problem)
    assert state.bandit.value.tolist() == [0, 0]
    assert torch.equal(state.bandit.of, problem.drawn.key // 10**4 - 1)
    batch = system.collect(state, problem, Stream(0))
    system.learn(state, batch, Stream(1))
    of, gain = state.bandit.of[batch.key], group_relative(batch.score, batch.key).abs()
    for arm in range(2):
        if bool((of == arm).any()):
            assert float(state.bandit.value[arm]) == pytest.approx(0.5 * float(gain[of == arm].mean()), abs=1e-5)
    state.bandit.value.copy_(torch.tensor([0.0, 2.0]))
    asked = [int(k) for seed in range(20) for k in system.collect(state, problem, Stream(seed)).key.unique()]
    assert float((state.bandit.of[asked] == 1).float().mean()) > 0.95
    with pytest.raises(ValueError, match="tau must be positive"):
        sec(tau=0.0)


# ------------------------------------------------------------------------- HAPO


def test_a_right_answer_is_measured_by_the_shortest_before_it():
    problem = Fixed(ChainSum(width=3, warm=30), 12)
    system = hapo_history(**SIZES)
    state = begin(system, problem)
    batch = answers(state, problem, problem.pick(torch.arange(12)), Stream(0))
    assert torch.equal(shaped(state, batch, weight=1.0, worst=-0.7, right=1.0).reward, batch.reward)  # no history yet
    good = torch.arange(12) % 2 == 0
    n = batch.length
    batch = batch.having(reward=torch.zeros_like(batch.mask).scatter_(1, n.long()[:, None] - 1, good.float()[:, None]))
    for share in (0.3, 0.5, 1.0, 1.6, 3.0):
        state.history.shortest.copy_(n / share)
        f = math.cos(min(share, 2.0) * math.pi / 2)
        expected = torch.where(good, 1 + max(-0.7, f), min(0.0, f))
        paid = shaped(state, batch, weight=1.0, worst=-0.7, right=1.0).score
        torch.testing.assert_close(paid, expected, atol=1e-5, rtol=0)
        assert bool(paid[good].min() > paid[~good].max())


def test_the_record_of_a_prompt_never_grows():
    problem = Fixed(ChainSum(width=3, warm=60), 6)
    system = hapo_history(**{**SIZES, "group": 8})
    state = begin(system, problem)
    for step in range(3):
        was = state.history.shortest.clone()
        batch = system.collect(state, problem, Stream(step))
        system.learn(state, batch, Stream(step))
        for key in range(6):
            mine = batch.length[(batch.key == key) & (batch.score >= 1)]
            best = min([float(was[key]), *mine.tolist()])
            assert float(state.history.shortest[key]) == best
    assert bool(state.history.shortest.isfinite().any())


# ------------------------------------------------------------------------- LCPO


def test_the_reward_is_one_where_the_answer_is_right_and_as_long_as_asked():
    verdict, asked, used = torch.tensor([1.0, 1, 1, 1, 0]), torch.tensor([8.0] * 5), torch.tensor([8.0, 6, 10, 28, 8])
    assert l1_exact(used, verdict, asked, rate=0.05).tolist() == pytest.approx([1, 0.9, 0.9, 0, 0])
    assert l1_max(used, verdict, asked, rate=0.05).tolist() == pytest.approx([0.5, 0.6, 0.4, 0, 0])
    lengths = torch.arange(1.0, 40)
    paid = l1_max(lengths, torch.ones(39), torch.full((39,), 20.0), rate=0.05)
    assert bool((paid.diff() <= 0).all())
    assert not l1_max(lengths, torch.zeros(39), torch.full((39,), 20.0), rate=0.05).any()


def test_prompts_say_how_long_and_the_system_reads_it():
    problem = BudgetSum(warm=5)
    asked = problem.prompts(50, Stream(0).torch())
    budget = problem.budget(asked.key)
    assert int(budget.min()) >= 4
    assert int(budget.max()) <= 20
    digits = asked.ids[:, -3:-1] - 2
    assert torch.equal(digits[:, 0] + 10 * digits[:, 1], budget)
    tokens, mask = problem.demonstrate(asked)
    assert problem.score(asked, tokens, mask).tolist() == [1.0] * 50  # the verdict is that of the sum
    system = lcpo(alpha=0.05, **SIZES)
    state = begin(system, problem)
    batch = system.collect(state, problem, Stream(0))
    assert torch.equal(batch.extra["budget"][:, 0], problem.budget(batch.key).float())
    metrics = system.learn(state, batch, Stream(1))
    assert metrics["missed"] == pytest.approx(float((problem.budget(batch.key) - batch.length).abs().mean()))
    with pytest.raises(TypeError, match="it needs `budget`, which AddCliff"):
        next(train(lcpo(**SIZES), TASK, steps=1))
    with pytest.raises(ValueError, match="shortest first"):
        BudgetSum(shortest=9, longest=8)


# ------------------------------------------------------------------------- Elastic Reset


def test_the_policy_becomes_its_average_and_the_average_the_beginning():
    system, problem = elastic_reset(every=2, decay=0.9, **SIZES), POOL()
    state = begin(system, problem)
    first = parameters(state.policy)
    for record in train(system, problem, steps=1, state=state):
        one = parameters(record.state.policy)
    mean = 0.9 * first + 0.1 * one
    torch.testing.assert_close(parameters(state.average.read()), mean)
    two = after(elastic_reset(every=9, decay=0.9, **SIZES), problem, steps=2)
    for record in train(system, problem, steps=2, state=state):
        torch.testing.assert_close(parameters(record.state.policy), 0.9 * mean + 0.1 * two)
    assert torch.equal(parameters(state.average.read()), first)


@pytest.mark.parametrize(("decay", "where"), [(0.0, "last"), (1.0, "first")])
def test_decays_at_the_ends(decay, where):
    problem = POOL()
    plain = run(grpo(kl=0, **SIZES), problem, 1).state
    reset = run(elastic_reset(every=1, decay=decay, **SIZES), problem, 1).state
    start = parameters(begin(grpo(**SIZES), problem).policy)
    expected = parameters(plain.policy) if where == "last" else start
    torch.testing.assert_close(parameters(reset.policy), expected)
    assert torch.equal(after(elastic_reset(every=99, **SIZES), problem), after(grpo(kl=0, **SIZES), problem))


# ------------------------------------------------------------------------- ReMix


def test_its_loss_is_the_clipped_ratio_where_the_policy_that_acted_is_the_present_one():
    check_loss(mixed_clip(width=0.2), columns={"now": lambda t: t.old.detach()})
    new = torch.randn(3, 4, dtype=torch.float64)
    terms = Terms(new, new + 0.4 * torch.randn(3, 4, dtype=torch.float64), torch.randn(3, 4, dtype=torch.float64), torch.ones(3, 4))
    both = mixed_clip(width=0.2)(Terms(terms.new, terms.old, terms.advantage, terms.mask, extra={"now": terms.old}))
    torch.testing.assert_close(both.loss, clip()(terms).loss)
    far = Terms(new, new - 2, torch.ones(3, 4), torch.ones(3, 4), extra={"now": new - 2 + math.log(7.0)})
    ratio = math.exp(2.0)  # 7.39, outside of 1 +- .2 and of 7 +- .2
    assert float(mixed_clip(width=0.2)(far).loss[0, 0]) == pytest.approx(-7.2)
    assert float(mixed_clip(width=0.5)(far).loss[0, 0]) == pytest.approx(-ratio)


def test_both_divergences_meet():
    x = torch.randn(2, 3, dtype=torch.float64)
    terms = Terms(x, x, x, torch.ones(2, 3), ref=x + 1, extra={"before": x - 1, "share": torch.full((2, 3), 0.7)})
    expected = 0.7 * (math.e - 2) + 0.3 * (1 / math.e)
    assert float(between()(terms).loss[0, 0]) == pytest.approx(expected, rel=1e-6)
    assert [weight(t) for t in (0, 50, 51, 60, 61, 200)] == [1, 1, 0.9, 0.9, 0.8, 0.5]


def test_without_the_past_it_is_grpo():
    options = {**SIZES, "minibatches": 2, "epochs": 2}
    torch.testing.assert_close(after(remix(mix=0.0, beta=0.0, **options)), after(grpo(kl=0, **options)), atol=1e-6, rtol=0)


def test_old_groups_keep_their_time_until_the_restart():
    system, problem = remix(mix=0.5, window=2, restart=3, **SIZES), POOL()
    state = begin(system, problem)
    seen = []
    for record in train(system, problem, steps=4, state=state):
        seen.append(record.metrics.get("old", 0.0))
        if record.step == 3:
            assert torch.equal(parameters(state.reference), parameters(state.policy))
        before = {name: x.clone() for name, x in state.past.named_buffers()}
    assert seen == [0, 0.5, 0.5, 0]
    state.step = 2
    batch = system.collect(state, problem, Stream(7)).check()
    old = batch.rows(batch.extra["fresh"][:, 0] == 0)
    assert len(old) == 8
    for row in range(8):
        width = int(old.length[row])
        same = (before["prompt"] == old.key[row]) & (before["tokens"][:, :width] == old.action[row, :width]).all(1)
        at = int(same.nonzero()[0])
        torch.testing.assert_close(old.logp[row, :width], before["logp"][at, :width])
        torch.testing.assert_close(old.extra["stored"][row, 0], before["advantage"][at, 0])
    now = state.policy.logp(old.obs, old.action, old.mask).detach()
    torch.testing.assert_close(old.extra["now"], now, atol=1e-5, rtol=1e-5)


# ------------------------------------------------------------------------- D3S


@pytest.mark.parametrize("seed", range(5))
def test_no_subset_of_its_size_varies_more(seed):
    x = torch.randn(8, generator=Stream(seed).torch())
    for count in (2, 3, 5, 8):
        best = max(float(x[list(rows)].var(correction=0)) for rows in combinations(range(8), count))
        assert float(x[most_varied(x, count)].var(correction=0)) == pytest.approx(best, rel=1e-5)
        assert len(most_varied(x, count).unique()) == count
    assert 3 not in most_varied(torch.tensor([1.0, -1.0, 1.0, 0.0, -1.0]), 4).tolist()  # what teaches nothing goes first


def test_all_answers_and_tokens_are_grpo_and_a_part_is_less():
    whole = {"answers": (1.0, 1.0), "across": (1.0, 1.0), "tokens": (1.0, 1.0)}
    assert torch.equal(after(d3s(**whole, **SIZES)), after(grpo(kl=0, **SIZES)))
    system, problem = d3s(over=10, **SIZES), POOL()
    state = begin(system, problem)
    batch = system.collect(state, problem, Stream(0))
    shares = {"answers": (0.5, 1.0), "across": (0.5, 1.0), "tokens": (0.25, 1.0), "over": 10}
    part = chosen(state, batch, **shares)
    assert len(part) == 4
    assert int((part.extra["chosen"] > 0).sum()) == max(1, round(0.25 * float(part.mask.sum())))
    weighed = part.extra["given"].abs() * state.policy.logp_entropy(part.obs, part.action, part.mask)[1]
    assert float(weighed[part.extra["chosen"] > 0].min()) >= float(weighed[(part.extra["chosen"] == 0) & (part.mask > 0)].max())
    assert float(part.extra["chosen"].sum()) == pytest.approx(float(part.mask.sum()))
    state.step = 10
    assert len(chosen(state, batch, **shares)) == len(batch)
    check_loss(on_chosen(width=0.2), columns={"chosen": lambda t: torch.ones_like(t.mask)})


# ------------------------------------------------------------------------- DPH-RL


@pytest.mark.parametrize("f", [forward_kl, jensen_shannon, alpha_divergence, partial(alpha_divergence, alpha=0.7)])
def test_a_generator_is_zero_and_flat_where_the_policies_agree_and_positive_elsewhere(f):
    u = torch.linspace(0.05, 6, 200, dtype=torch.float64)
    assert bool((f(u) >= 0).all())
    one = torch.ones(1, dtype=torch.float64, requires_grad=True)
    assert float(f(one)) == pytest.approx(0, abs=1e-12)
    assert float(torch.autograd.grad(f(one).sum(), one)[0]) == pytest.approx(0, abs=1e-12)


def test_forward_kl_on_base_samples_pulls_as_cross_entropy_does():
    """In expectation over the base's answers, which are enumerated."""
    base = torch.randn(7, dtype=torch.float64).log_softmax(0)
    theta = torch.randn(7, dtype=torch.float64, requires_grad=True)
    new = theta.log_softmax(0)
    terms = Terms(new[:, None], base[:, None], base[:, None], torch.ones(7, 1),
                  extra={"base": base[:, None], "rehearsed": torch.ones(7, 1)})  # fmt: skip
    (mine,) = torch.autograd.grad((base.exp()[:, None] * covering()(terms).loss).sum(), theta, retain_graph=True)
    (cross,) = torch.autograd.grad(-(base.exp() * new).sum(), theta)
    torch.testing.assert_close(mine, cross)


def test_mastered_prompts_are_rehearsed_and_the_others_explored():
    problem = Fixed(ModeLottery(warm=150), 24)
    system = dph_rl(eta=0.1, mastered=0.25, samples=4, rehearse=3, **SIZES)
    state = begin(system, problem)
    known = state.rehearsal.mask[:, 0] > 0
    assert 3 < int(known.sum()) < 20
    batch = system.collect(state, problem, Stream(0)).check()
    old = batch.rows(batch.extra["rehearsed"][:, 0] > 0)
    new = batch.rows(batch.extra["rehearsed"][:, 0] == 0)
    assert len(old) == 3
    assert len(new) == 16
    assert bool(known[old.key].all())
    assert not known[new.key].any()
    asked = problem.pick(old.key)
    assert problem.score(asked, old.action, old.mask).tolist() == [1.0] * 3
    torch.testing.assert_close(old.extra["base"], state.policy.logp(old.obs, old.action, old.mask).detach(), atol=1e-5, rtol=0)
    metrics = system.learn(state, batch, Stream(1))
    assert metrics["covering"] == pytest.approx(0, abs=1e-6)  # the policy still is the base


def test_without_rehearsal_it_is_grpo_on_what_is_left():
    problem = POOL()
    plain = grpo(kl=0, collect=partial(generate, ask=by_weight()), **SIZES)
    system = dph_rl(samples=1, right=2.0, **SIZES)  # no answer is that right, so nothing is mastered
    assert torch.equal(after(system, problem), after(plain, problem))


# ------------------------------------------------------------------------- all of them

CHAINS, BUDGETS = partial(Fixed, ChainSum(width=2, warm=5), 12), partial(BudgetSum, warm=5)
SYSTEMS = {
    "rlep": (partial(rlep, harvest=1, **SIZES), POOL), "sec": (partial(sec, **SIZES), POOL),
    "spo": (partial(spo_single_stream, prompts=8, minibatches=2, lr=1e-3, first=1), POOL),
    "elastic_reset": (partial(elastic_reset, every=1, decay=0.5, **SIZES), POOL),
    "hapo_history": (partial(hapo_history, **SIZES), CHAINS), "lcpo": (partial(lcpo, alpha=0.05, **SIZES), BUDGETS),
    "remix": (partial(remix, mix=0.5, restart=2, **SIZES), POOL), "d3s": (partial(d3s, over=2, **SIZES), POOL),
    "dph_rl": (partial(dph_rl, eta=0.1, mastered=0.5, samples=2, rehearse=2, **SIZES), POOL),
}  # fmt: skip


@pytest.mark.parametrize(("make", "problem"), SYSTEMS.values(), ids=SYSTEMS)
def test_it_conforms(make, problem):
    check_system(make, problem, half=1)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (partial(rlep, replay=-1), "replay not negative"), (partial(spo_single_stream, floor=0.0), "floor > 0"),
        (partial(elastic_reset, decay=1.5), "decay in"), (partial(elastic_reset, every=0), "every must be at least 1"),
        (partial(hapo_history, weight=1.5), "no more than a short wrong one"), (partial(lcpo, alpha=-1.0), "alpha must not be"),
        (partial(remix, mix=1.0), "mix in"), (partial(remix, window=0), "window"), (partial(d3s, tokens=(0.0, 1.0)), "shares lie"),
        (partial(dph_rl, eta=-1.0), "eta >= 0"), (partial(sec, rate=0.0), "rate must lie"),
    ],
)  # fmt: skip
def test_bad_input_is_refused(make, said):
    with pytest.raises(ValueError, match=said):
        begin(make(**({} if make.func is spo_single_stream else {"group": 4})), POOL())


@pytest.mark.parametrize("make", [rlep, sec, remix, hapo_history, dph_rl, partial(spo_single_stream)])
def test_prompts_without_end_are_refused(make):
    with pytest.raises(TypeError, match="Fixed"):
        begin(make(prompts=2), TASK)
