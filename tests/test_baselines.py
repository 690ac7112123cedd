"""Policy gradients without a critic or with one step, natural steps, and PROPS' behaviour policy."""

import copy
import math
from dataclasses import dataclass
from functools import partial

import pytest
import torch

from steepest.core import Batch, State, Stream, begin, train
from steepest.core.check import check_system
from steepest.credit import beyond_others, gae, reward_to_go
from steepest.engines.policy_gradient import PolicyObjective
from steepest.engines.values import values
from steepest.evidence.on_policy.props import claim as props_claim
from steepest.losses import Terms, clip, reinforce, sequence_sum, token_mean
from steepest.models.tabular import TabularSoftmax
from steepest.optimize.epochs import Epochs
from steepest.optimize.natural import NaturalStep, flat
from steepest.problems.control import CartPole, PointMass
from steepest.problems.language import AddCliff
from steepest.systems.on_policy.a2c import a2c
from steepest.systems.on_policy.gpomdp import gpomdp, total
from steepest.systems.on_policy.npg import npg
from steepest.systems.on_policy.ppo import ppo
from steepest.systems.on_policy.props import props, under
from steepest.systems.on_policy.trpo import trpo

SMALL = {"envs": 4, "horizon": 16, "width": 8}
SHORT = CartPole(limit=9)

# ---------------------------------------------------------------------------------- the gradient on a small process


@dataclass(frozen=True)
class Walk:
    """Three states, two actions, four steps: everything can be enumerated."""

    steps: int = 4

    def tables(self):
        g = Stream("walk").torch()
        move = torch.rand(3, 2, 3, generator=g, dtype=torch.float64) ** 2
        return move / move.sum(-1, keepdim=True), 1 + torch.randn(3, 2, generator=g, dtype=torch.float64)

    def worth(self, policy):
        """The expected sum of rewards from state 0, exactly, with gradient."""
        move, reward = self.tables()
        pi, at, worth = policy.probs(), torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64), 0.0
        for _ in range(self.steps):
            worth = worth + ((at[:, None] * pi) * reward).sum()
            at = torch.einsum("s,sa,sat->t", at, pi, move)
        return worth

    def play(self, policy, count, seed=0):
        move, reward = self.tables()
        g, state, rows = Stream(seed).torch(), torch.zeros(count, dtype=torch.long), []
        for _ in range(self.steps):
            action, _ = policy.sample(state, g)
            rows.append((state, action, reward[state, action]))
            state = torch.multinomial(move[state, action], 1, generator=g)[:, 0]
        obs, action, earned = (torch.stack(column, 1) for column in zip(*rows, strict=True))
        return Batch(obs, action, None, earned, torch.ones_like(earned), torch.arange(count))


def walker():
    return TabularSoftmax(torch.randn(3, 2, generator=Stream(3).torch(), dtype=torch.float64))


CREDITS = {"total": partial(total, discount=1.0), "to go": reward_to_go, "with baseline": beyond_others}


def scores(policy, batch, advantage):
    """The gradient that each episode estimates [N, S * A]: grad log softmax is one-hot minus pi."""
    hot = torch.nn.functional.one_hot(batch.action, 2) - policy.probs().detach()[batch.obs]
    where = torch.nn.functional.one_hot(batch.obs, 3).double()
    return torch.einsum("nt,nts,nta->nsa", advantage, where, hot.double()).flatten(1)


@pytest.mark.parametrize("credit", CREDITS.values(), ids=CREDITS)
def test_the_mean_of_many_gradients_is_the_exact_one(credit):
    """Within four standard errors, entry by entry; through the objective that the systems use."""
    policy = walker()
    (exact,) = torch.autograd.grad(Walk().worth(policy), policy.logits)
    batch = Walk().play(policy, 20_000)
    advantage = credit(batch.reward, batch.mask)
    objective, state = PolicyObjective(reinforce(), sequence_sum), State(policy=policy)
    (found,) = torch.autograd.grad(-objective.value(state, objective.weigh(batch.having(advantage=advantage))), policy.logits)
    each = scores(policy, batch, advantage)
    assert torch.allclose(each.mean(0), found.flatten(), atol=1e-9)
    error = each.std(0) / math.sqrt(len(each))
    assert bool(((found - exact).abs().flatten() < 4 * error + 1e-9).all())
    assert float(exact.norm()) > 10 * float(error.norm())


def test_what_happened_before_and_what_all_earn_only_add_noise():
    """The variance falls from the whole return to the return to come, and again with a baseline."""
    policy = walker()
    batch = Walk().play(policy, 20_000, seed=1)
    noise = [float(scores(policy, batch, credit(batch.reward, batch.mask)).var(0).sum()) for credit in CREDITS.values()]
    assert noise[0] > 1.2 * noise[1] > 1.2**2 * noise[2]


def test_a_constant_added_to_all_rewards_changes_no_gradient_where_episodes_are_equally_long():
    """Exactly, episode by episode, with a baseline of the others; without one it changes the noise alone."""
    policy = walker()
    batch = Walk().play(policy, 4000, seed=2)
    one, two = (beyond_others(batch.reward + extra, batch.mask) for extra in (0.0, 5.0))
    assert torch.allclose(one, two, atol=1e-9)
    assert not torch.allclose(reward_to_go(batch.reward + 5, batch.mask), reward_to_go(batch.reward, batch.mask))


def test_whole_episodes_are_credited_with_all_that_they_earned():
    reward, mask = torch.tensor([[1.0, 2.0, 4.0], [8.0, 0.0, 0.0]]), torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, 0.0]])
    assert total(reward, mask, discount=0.5).tolist() == [[3.0] * 3, [8.0] * 3]
    assert reward_to_go(reward, mask, discount=0.5).tolist()[0] == [3.0, 4.0, 4.0]


# ---------------------------------------------------------------------------------- A2C and NPG


def test_a2c_steps_along_the_gradient_of_its_unscaled_advantages():
    system = a2c(max_grad_norm=math.inf, entropy_weight=0.0, **SMALL)
    state = begin(system, SHORT)
    batch = system.collect(state, SHORT, Stream(0))
    advantage = gae(batch.reward, *values(state, batch), discount=0.99, decay=1.0)
    loss = -(state.policy.logp(batch.obs, batch.action, batch.mask) * advantage).mean()
    expected = flat(torch.autograd.grad(loss, list(state.policy.parameters())))
    before = flat([p.detach() for p in state.policy.parameters()]).clone()
    state.optimizers["policy"] = torch.optim.SGD([*state.policy.parameters(), *state.critic.parameters()], 1.0)
    system.learn(state, batch, Stream(1))
    moved = flat([p.detach() for p in state.policy.parameters()]) - before
    assert torch.allclose(-moved, expected, atol=1e-5)
    assert expected.norm() > 0.01


def test_a2c_has_the_optimizer_of_its_paper():
    state = begin(a2c(**SMALL), CartPole())
    assert isinstance(state.optimizers["policy"], torch.optim.RMSprop)
    trained = {id(p) for group in state.optimizers["policy"].param_groups for p in group["params"]}
    assert trained == {id(p) for side in (state.policy, state.critic) for p in side.parameters()}


def test_a_natural_step_is_trpos_before_its_search():
    """Where TRPO takes its first try, both are one and the same; with a bound so small that it must."""
    options = {"max_kl": 1e-4, "critic_minibatches": 2, **SMALL}
    one, two = (next(iter(train(make(**options), SHORT, steps=1))) for make in (npg, trpo))
    assert two.metrics["step"] == 1.0
    assert torch.equal(*(flat([p.detach() for p in r.state.policy.parameters()]) for r in (one, two)))
    assert one.metrics["kl_mean"] == pytest.approx(1e-4, rel=0.3)


def test_a_natural_step_goes_where_trpo_would_not():
    """A length that overshoots is searched back by TRPO alone. Bug that it catches: a natural step that searches."""
    options = {"max_kl": 3.0, "damping": 1e-6, "critic_minibatches": 2, **SMALL}
    one, two = (next(iter(train(make(**options), SHORT, steps=1))).metrics for make in (npg, trpo))
    assert two["step"] < 1
    assert two["kl_mean"] <= 3.0
    assert one["kl_mean"] != two["kl_mean"]


# ---------------------------------------------------------------------------------- PROPS


def test_without_adaptation_the_data_is_the_targets_own_and_the_update_is_ppos():
    plain = {"epochs": 2, "minibatches": 2, "normalize": False, **SMALL}
    one, two = props(every=None, batches=1, **plain), ppo(**plain)
    states = [begin(system, SHORT) for system in (one, two)]
    assert torch.equal(states[0].policy.net.theta, states[1].policy.net.theta)
    for n in range(3):
        mine, its = one.collect(states[0], SHORT, Stream(n)), two.collect(states[1], SHORT, Stream(n) / 0)
        for name in ("obs", "action", "reward"):
            assert torch.equal(getattr(mine, name), getattr(its, name))
        told = one.learn(states[0], mine, Stream(n, "learn")), two.learn(states[1], its, Stream(n, "learn"))
        assert told[0]["loss"] == pytest.approx(told[1]["loss"], abs=1e-4)
        for part in ("policy", "critic"):  # rounding in the log-probabilities must not add up
            getattr(states[0], part).load_state_dict(getattr(states[1], part).state_dict())


def test_the_buffer_holds_the_last_batches_and_all_of_it_is_learned_from():
    system = props(batches=3, every=8, behavior_epochs=1, epochs=1, minibatches=1, **SMALL)
    state, sizes, first = begin(system, SHORT), [], []
    for n in range(5):
        batch = system.collect(state, SHORT, Stream(n))
        sizes.append(len(batch))
        first.append(batch.obs.clone())
        assert batch.logp is None  # the target's, when it learns: the behaviour's ratios never enter
    assert sizes == [4, 8, 12, 12, 12]
    assert torch.equal(first[4][4:8], first[2][4:8]) is False
    assert torch.equal(first[4][8:], first[2][8:])  # rows 8 to 11 were written by the third collection
    assert torch.equal(first[3][4:8], first[1][4:8])


def test_actions_that_were_taken_become_less_likely_and_no_further_than_the_band():
    """One state with two actions. Bug that it catches: a push in the other direction."""
    target = TabularSoftmax(torch.zeros(1, 2))
    behavior = copy.deepcopy(target)
    seen = torch.zeros(40, 1, dtype=torch.long)
    batch = under(target, seen, seen)
    state = State(policy=behavior)
    state.optimizers["policy"] = torch.optim.SGD(behavior.parameters(), 0.1)
    objective = PolicyObjective(clip(low=0.3, high=0.3), token_mean)
    Epochs(3, 1, max_norm=math.inf)(state, objective, batch, Stream(0))
    assert float(behavior.probs()[0, 0].detach()) < 0.5
    Epochs(200, 1, max_norm=math.inf)(state, objective, batch, Stream(0))
    ratio = float(behavior.probs()[0, 0].detach()) / 0.5
    assert 0.6 < ratio < 0.7  # the last step leads beyond the edge
    last = behavior.probs().detach().clone()
    Epochs(5, 1, max_norm=math.inf)(state, objective, batch, Stream(0))
    assert torch.equal(behavior.probs().detach(), last)  # beyond the band there is no gradient


def test_the_behavior_is_the_target_wherever_nothing_was_collected_yet():
    system = props(every=None, **SMALL)
    state = begin(system, SHORT)
    with torch.no_grad():
        state.policy.net.theta.add_(0.1)
    system.collect(state, SHORT, Stream(0))
    assert torch.equal(state.behavior.net.theta, state.policy.net.theta)
    adapting = props(every=4, behavior_minibatches=1, behavior_lr=0.01, **SMALL)
    state = begin(adapting, SHORT)
    batch = adapting.collect(state, SHORT, Stream(0))
    assert not torch.equal(state.behavior.net.theta, state.policy.net.theta)
    assert batch.info["behavior_kl"] > 0


def test_with_a_band_of_1_the_behaviour_descends_the_mean_ratio_itself_as_ros_does():
    """Bug that it catches: a clip that holds back actions whose ratio has moved far."""
    new = torch.tensor([[-2.0], [0.4], [3.0]], dtype=torch.float64, requires_grad=True)
    t = Terms(new, torch.zeros_like(new), -torch.ones_like(new), torch.ones_like(new))
    paid = clip(low=1.0, high=1.0)(t).loss
    assert torch.allclose(paid, t.ratio)
    assert torch.allclose(torch.autograd.grad(paid.sum(), new, retain_graph=True)[0], new.exp())
    held = clip(low=0.3, high=0.3)(t).loss
    assert torch.autograd.grad(held.sum(), new)[0][0] == 0
    ros = props(every=4, band=1.0, behavior_epochs=1, behavior_minibatches=1, behavior_lr=0.01, **SMALL)
    rows = [r.metrics for r in train(ros, CartPole(limit=20), steps=2)]
    assert rows[-1]["behavior_kl"] == pytest.approx(0, abs=1e-6)  # of the one pass, in which behaviour is still the target


def test_the_claim_of_props_measures_what_it_says():
    told = {}
    for name, arm in (("ours", props_claim.ours), ("baseline", props_claim.baseline)):
        rows = [r.metrics for r in train(arm(), props_claim.problem(), steps=30)]
        told[name] = sum(row["sampling_error"] for row in rows) / len(rows)
    assert 0.01 < told["baseline"] < 0.2  # about (A - 1) / 2n = 0.055 for 8 actions and 64 samples
    assert told["ours"] < told["baseline"]


# ---------------------------------------------------------------------------------- all of them


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (partial(a2c, **SMALL), partial(CartPole, limit=7)),
        (partial(a2c, **SMALL), PointMass),
        (partial(npg, critic_minibatches=2, **SMALL), partial(CartPole, limit=7)),
        (partial(npg, critic_minibatches=2, **SMALL), PointMass),
        (partial(gpomdp, count=3, width=8), partial(CartPole, limit=7)),
        (partial(gpomdp, count=3, width=8, earned=total), PointMass),
        (partial(props, every=8, minibatches=2, epochs=2, **SMALL), partial(CartPole, limit=7)),
        (partial(props, every=8, minibatches=2, epochs=2, **SMALL), partial(PointMass, limit=7)),
    ],
    ids=["a2c", "a2c continuous", "npg", "npg continuous", "gpomdp", "reinforce continuous", "props", "props continuous"],
)
def test_systems_conform(make, problem):
    assert check_system(make, problem, fresh=False)[-1] == "resume is bitwise"


@pytest.mark.slow
@pytest.mark.parametrize("make", [partial(a2c, **SMALL), partial(npg, critic_minibatches=2, **SMALL), partial(gpomdp, count=3)])
def test_they_conform_in_a_fresh_process(make):
    assert check_system(make, partial(CartPole, limit=7))[-1] == "resume is bitwise in a fresh process"


def test_props_conforms_in_a_fresh_process():
    make = partial(props, every=8, minibatches=2, epochs=2, **SMALL)
    assert check_system(make, partial(CartPole, limit=7))[-1] == "resume is bitwise in a fresh process"


@pytest.mark.parametrize(
    ("system", "steps", "reached"),
    [
        (a2c(lr=3e-3, envs=16, horizon=8), 150, 50),
        (npg(max_kl=0.02, envs=8, horizon=64, critic_minibatches=4), 30, 80),
        (gpomdp(lr=0.01, count=8, earned=beyond_others), 30, 50),
        (props(lr=3e-3, envs=4, horizon=64, every=16, minibatches=4, behavior_epochs=2), 25, 60),
    ],
    ids=["a2c", "npg", "gpomdp", "props"],
)
def test_a_pole_is_kept_up_for_longer(system, steps, reached):
    told = [r.metrics["return"] for r in train(system, CartPole(), steps=steps) if "return" in r.metrics]
    assert told[0] < 40
    assert sum(told[-5:]) / 5 > reached


def test_what_makes_no_sense_is_refused():
    for build, message in (
        (partial(props, every=7, horizon=16), "horizon must be a multiple of every, not 16 and 7"),
        (partial(props, batches=0), "batches must be at least 1 and band in"),
        (partial(props, band=0.0), "batches must be at least 1 and band in"),
        (partial(gpomdp, discount=2.0), "discount in"),
        (partial(gpomdp, count=0), "count at least 1, not 0.001, 0.99 and 0"),
        (partial(npg, max_kl=0.0), "max_kl must be positive"),
        (partial(a2c, discount=-0.1), "discount and decay must lie in"),
        (partial(NaturalStep, damping=-1.0), "damping must be at least 0"),
        (partial(NaturalStep, steps=0), "steps must be at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            build()
    with pytest.raises(TypeError, match="AddCliff is no Control problem: see reinforce"):
        begin(gpomdp(), AddCliff(width=2, least=1, warm=20, tests=8))
