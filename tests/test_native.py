"""What the kernels compute is what their twins in Python compute, and without them everything still runs."""

import dataclasses
import importlib.machinery
import sys
import types
from itertools import product

import numpy as np
import pytest
import torch

from steepest.collectors.rollout import rollout, stepped
from steepest.core import Batch, State, Stream, native, train
from steepest.engines.compiled import faithful, program_of
from steepest.engines.policy_gradient import PolicyObjective
from steepest.losses import Loss, clip, entropy, loss, reinforce, squared, squared_clip, surrogate, token_mean
from steepest.models.build import actor_state
from steepest.models.control import CategoricalPolicy, control_critic, control_policy
from steepest.models.moments import Normalizer, ReturnScale
from steepest.models.perceptron import Mlp, plain
from steepest.optimize.epochs import Epochs, rule
from steepest.problems.control import CartPole, Pendulum, PointMass, uniforms
from steepest.systems.on_policy.ppo import ppo

kernels = pytest.mark.skipif(native.library is None, reason="the kernels were not built")
OWN = [CartPole(limit=30), Pendulum(limit=13), PointMass(limit=13)]


def random(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.fixture
def without(monkeypatch):
    """As where no compiler was."""
    return lambda: monkeypatch.setattr(native, "library", None)


def net_of(sizes):
    with Stream(0).fork():
        net = Mlp(sizes[0], sizes[-1], width=sizes[1] if len(sizes) > 2 else 1, depth=len(sizes) - 2, gain=1.0)
    with torch.no_grad():
        net.theta.add_(0.1 / sizes[0] ** 0.5 * random(*net.theta.shape, seed=3))
    return net


SIZES = [
    (4, 64, 64, 2), (1, 1), (3, 1, 1), (17, 64, 64, 6), (376, 64, 64, 17), (5, 7, 7, 7, 3), (4, 2), (9, 33, 1), (12, 100, 100, 4),
    (2, 16, 8),
]  # fmt: skip


@kernels
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_a_network_and_its_gradients_are_autograds(sizes):
    """Depth 0 to 3, whole and broken vectors, one row and several blocks of rows."""
    net = net_of(sizes)
    for rows in (1, 2, 5, 6, 63, 64, 65, 130, 300):
        x, weight = random(rows, sizes[0]).requires_grad_(), random(rows, sizes[-1], seed=1) / rows
        theirs, ours = plain(x, net.theta, net.sizes), net(x)
        assert ours.grad_fn.next_functions[0][0].name() == "FusedBackward"  # behind the view that shapes it
        assert torch.allclose(ours, theirs, atol=1e-6, rtol=1e-6)
        wanted = (net.theta, x)
        expected, found = (torch.autograd.grad((y * weight).sum(), wanted) for y in (theirs, ours))
        assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(found, expected, strict=True))
        alone = torch.autograd.grad((net(x) * weight).sum(), x)[0]
        assert torch.equal(alone, found[1])


@kernels
def test_a_row_does_not_depend_on_the_rows_beside_it():
    """Or a rollout of 4 environments and a minibatch of 128 would not know the same log-probability."""
    net, x = net_of((4, 64, 64, 3)), random(133, 4)
    whole = net(x)
    assert all(torch.equal(net(x[i : i + n]), whole[i : i + n]) for i, n in product((0, 1, 63, 100), (1, 4, 7, 33)))


@kernels
def test_the_hyperbolic_tangent_keeps_its_digits():
    """In units of the last place, for small arguments too, where 1 - 2 / (exp(2x) + 1) would have none left."""
    net = Mlp(1, 1, width=1, depth=1, gain=1.0)
    x = torch.cat([10.0 ** torch.linspace(-30, 1.5, 4000), torch.tensor([0.0, torch.inf])])
    x = torch.cat([x, -x])
    with torch.no_grad():
        net.theta.copy_(torch.tensor([1.0, 0.0, 1.0, 0.0]))
        got, expected = net(x[:, None])[:, 0].double(), x.double().tanh()
        assert ((got - expected).abs() <= 5e-7 * expected.abs()).all()
        assert net(torch.tensor([[torch.nan]])).isnan().all()


@kernels
def test_the_gradient_of_the_gradient_goes_through_the_twin():
    net, x = net_of((4, 8, 8, 3)), random(6, 4)

    def curvature(y):
        slope = torch.autograd.grad((y**2).sum(), net.theta, create_graph=True)[0]
        return torch.autograd.grad((slope * random(*slope.shape, seed=4)).sum(), net.theta)[0]

    assert torch.allclose(curvature(net(x)), curvature(plain(x, net.theta, net.sizes)), atol=1e-4, rtol=1e-5)


@kernels
@pytest.mark.parametrize("problem", OWN, ids=str)
@pytest.mark.parametrize("bound", [None, 10.0, 0.5])
def test_what_is_judged_is_what_the_policy_in_torch_says(problem, bound):
    policy = control_policy(problem, Stream(0), width=16, normalize=bound is not None)
    wide = policy.net.sizes[0]
    with torch.no_grad():
        policy.net.theta.mul_(3).add_(0.3 * random(*policy.net.theta.shape))
    if bound is not None:
        policy.norm.write(3 * random(100, wide) + 1)
        policy.norm.bound = bound
    if isinstance(policy, CategoricalPolicy):
        params = [policy.net.theta]
    else:
        params = [policy.net.theta, policy.log_std]
        with torch.no_grad():
            policy.log_std.add_(0.4 * random(*policy.log_std.shape))
    for rows in (1, 7, 130):
        obs, by = 2 * random(rows, 1, wide), (random(rows, 1, seed=1) / rows, random(rows, 1, seed=2) / rows)
        action = policy.sample(obs[:, 0], Stream(1).torch())[0][:, None]
        theirs = policy.logp_entropy(obs, action, None)
        for weights in (by, (by[0], None)):
            total = sum((x * w).sum() for x, w in zip(theirs, weights, strict=True) if w is not None)
            expected = torch.autograd.grad(total, params, retain_graph=True)
            policy.zero_grad()
            logp, entropy, push = policy.judge(obs, action)
            assert torch.allclose(logp, theirs[0], atol=2e-6)
            assert torch.allclose(entropy, theirs[1], atol=2e-6)
            push(*weights)
            assert all(torch.allclose(p.grad, g, atol=2e-6) for p, g in zip(params, expected, strict=True))
            push(*weights)  # gradients add up, as autograd's do
            assert all(torch.allclose(p.grad, 2 * g, atol=4e-6) for p, g in zip(params, expected, strict=True))


@kernels
def test_what_the_kernels_do_not_know_is_left_to_torch():
    policy, obs = control_policy(CartPole(), Stream(0), width=8), random(3, 4)
    action = torch.zeros(3, dtype=torch.long)
    assert policy.judge(obs, action) is not None
    assert policy.judge(obs, action[:, None]) is None

    class Hot(CategoricalPolicy):
        def head(self, out):
            return super().head(out / 2)

    assert Hot(policy.net, None).judge(obs, action) is None
    hot = Hot(policy.net, None)
    taken, logp = hot.sample(obs, Stream(0).torch())
    assert torch.allclose(logp, hot.logp(obs, taken, None))

    class Twice(Mlp):
        def forward(self, x):
            return 2 * super().forward(x)

    assert CategoricalPolicy(Twice(4, 2, width=8, depth=1, gain=1.0), None).judge(obs, action) is None
    assert control_policy(CartPole(), Stream(0), width=8).double().judge(obs.double(), action) is None
    with pytest.raises(IndexError, match="action 2 of row 1 is not one of 2 choices"):
        policy.judge(obs, torch.tensor([1, 2, 0]))
    with pytest.raises(RuntimeError, match="shape"):
        policy.net(random(3, 5))


# ---------------------------------------------------------------------------------- losses as programs


@loss("entropy", "value", "target")
def odd(t, *, sharp=2.0):
    """Nobody's objective: smooth, cornered and saturated pieces of every term."""
    soft = torch.nn.functional.softplus(sharp * t.log_ratio) + torch.nn.functional.logsigmoid(t.new)
    bent = torch.where(t.advantage > 0, soft, t.ratio.clamp(max=1.5)) * t.advantage.tanh()
    far = (t.value - t.target).abs()
    return bent - 0.1 * t.entropy**3 + torch.minimum(far, torch.sqrt(1 + far)), {"far": far, "beyond": t.ratio > 1}


@loss("value", "target")
def everything(t):
    x, y = t.new, t.old
    smooth = x.sigmoid() * y.exp().log1p() + (x * x + 1).rsqrt() - (y / 3).expm1() / (x.abs() + 2)
    stepped = torch.maximum(x, y).relu() * (x.sign() == y.sign()) + x.clamp(-1, 1) ** 4 - (1 - x.square()).clamp_min(0.1).log()
    mixed = torch.where((x > 0) & ~(y < 0) | (x == y), 2 - x, x.reciprocal().tanh())
    return smooth + stepped + mixed + torch.nn.functional.mse_loss(t.value, t.target, reduction="none") + t.value.pow(3)


LOSSES = {
    "ppo": clip() + 0.5 * squared() - 0.01 * entropy(), "surrogate": surrogate(), "reinforce": reinforce(), "value": squared(),
    "clipped value": clip(low=0.1, high=0.3) + squared_clip(), "odd": odd(), "everything": everything(),
}  # fmt: skip


def learner(problem, loss_, normalize, reuse=True):
    policy = control_policy(problem, Stream(0), width=16, normalize=normalize)
    wide = policy.net.sizes[0]
    if normalize:
        policy.norm.write(3 * random(100, wide) + 1)
    state = State(policy=policy, critic=control_critic(problem, Stream(1), width=24, norm=policy.norm))
    # an epsilon of 1: else Adam makes whole steps of a difference in rounding
    trained = [p for p in state.parameters() if p.requires_grad]
    state.optimizers["policy"] = torch.optim.Adam(trained, 0.05, eps=1.0, fused=True, weight_decay=0.01)
    obs = random(7, 31, wide)
    action, logp = policy.sample(obs.reshape(-1, wide), Stream(2).torch())
    a, b, c, d = (random(7, 31, seed=i) for i in range(4))
    old = logp.reshape(7, 31) + 0.2 * a if reuse else None
    action = action.reshape(7, 31, *action.shape[1:])
    batch = Batch(obs, action, old, a, torch.ones(7, 31), torch.arange(7), advantage=b, value=c, target=d)
    return state, PolicyObjective(loss_, token_mean), batch


@kernels
@pytest.mark.parametrize("problem", OWN[::2], ids=str)
@pytest.mark.parametrize("normalize", [False, True], ids=["raw", "normalised"])
@pytest.mark.parametrize("name", LOSSES)
def test_passes_in_one_call_are_passes_in_torch(problem, normalize, name, without):
    """Parameters, moments, steps and metrics, after minibatches of unequal size; the gradient is scaled down in some of them."""
    ends = []
    for _ in range(2):
        state, objective, batch = learner(problem, LOSSES[name], normalize)
        assert (objective.compiled(state, batch.decisions()) is None) == (native.library is None)
        before = [p.detach().clone() for p in state.parameters()]
        told = Epochs(3, 4, max_norm=0.3)(state, objective, batch, Stream(0))
        ends.append((state, told))
        without()
    (one, first), (two, second) = ends
    assert any((p - q).abs().max() > 1e-3 for p, q in zip(one.parameters(), before, strict=True))
    assert all(torch.allclose(p, q, atol=2e-6) for p, q in zip(one.parameters(), two.parameters(), strict=True))
    assert first == pytest.approx(second, rel=1e-4, abs=1e-5)
    a, b = (state.optimizers["policy"].state_dict()["state"] for state in (one, two))
    assert a.keys() == b.keys()
    for i in a:
        assert a[i].keys() == b[i].keys()
        assert all(a[i][k].dtype == b[i][k].dtype and torch.allclose(a[i][k], b[i][k], rtol=1e-4, atol=1e-7) for k in a[i])
        assert float(a[i]["step"]) == 12
    assert all((p.grad is None) == (q.grad is None) for p, q in zip(one.parameters(), two.parameters(), strict=True))


@kernels
@pytest.mark.parametrize("name", LOSSES)
def test_two_threads_change_nothing(name):
    """Parameters, moments and metrics, to the bit; also where one side has nothing to learn."""
    before, ends = torch.get_num_threads(), []
    for threads in (1, 2):
        state, objective, batch = learner(PointMass(), LOSSES[name], True)
        torch.set_num_threads(threads)
        told = Epochs(3, 9, max_norm=0.3)(state, objective, batch, Stream(0))
        torch.set_num_threads(before)
        moments = [x for mine in state.optimizers["policy"].state_dict()["state"].values() for x in mine.values()]
        ends.append((told, [*state.parameters(), *moments]))
    assert ends[0][0] == ends[1][0]
    assert all(torch.equal(a, b) for a, b in zip(ends[0][1], ends[1][1], strict=True))


@kernels
def test_one_step_of_the_policy_that_acted(without):
    """No old log-probability: the ratio is 1; the batch is not shuffled."""
    ends = []
    for _ in range(2):
        state, objective, batch = learner(CartPole(), LOSSES["ppo"], False, reuse=False)
        told = Epochs(1, 1)(state, objective, batch, Stream(0))
        ends.append((torch.cat([p.detach().reshape(-1) for p in state.parameters()]), told))
        without()
    assert torch.allclose(ends[0][0], ends[1][0], atol=1e-6)
    assert ends[0][1] == pytest.approx(ends[1][1], rel=1e-4, abs=1e-6)


def of(fn, *needs):
    return Loss(fn, frozenset(needs), "of")


@kernels
@pytest.mark.parametrize(
    "fn",
    [
        lambda t: t.new - t.new.mean(),
        lambda t: t.new * float(t.advantage.max()),
        lambda t: t.new if t.advantage[0] > 0 else -t.new,
        lambda t: t.new / len(t.new),
        lambda t: t.new * torch.rand(t.new.shape),
        lambda t: t.new * t.advantage.cumsum(0),
        lambda t: t.new + COEFFICIENT,
        lambda t: torch.special.i0(t.new),
        lambda t: (t.new[1:] - t.new[:-1]).repeat(2, 1)[: len(t.new)],
    ],
    ids=["mean", "number", "branch", "rows", "random", "sum", "tensor from elsewhere", "unknown operation", "neighbours"],
)
def test_a_loss_that_looks_beyond_its_decision_stays_in_torch(fn):
    state, objective, batch = learner(CartPole(), of(fn), False)
    assert program_of(objective.loss) is None
    start = state.policy.net.theta.detach().clone()
    Epochs(1, 2)(state, objective, batch, Stream(0))
    assert not torch.equal(start, state.policy.net.theta)


COEFFICIENT = torch.ones(1)


@kernels
def test_a_loss_that_changed_meanwhile_is_traced_anew():
    weight = [1.0]
    moving = of(lambda t: weight[0] * t.new * t.advantage)
    ends = []
    for weight[0] in (1.0, -3.0):
        state, objective, batch = learner(CartPole(), moving, False)
        assert objective.compiled(state, batch.decisions()) is not None
        ends.append(Epochs(1, 1, max_norm=1e9)(state, objective, batch, Stream(0)))
    assert ends[1]["loss"] == pytest.approx(-3 * ends[0]["loss"], rel=1e-5)
    assert ends[1]["grad_norm"] == pytest.approx(3 * ends[0]["grad_norm"], rel=1e-5)


@kernels
def test_a_program_that_is_not_the_loss_is_seen():
    program = program_of(LOSSES["odd"])
    wrong = program.code.clone()
    wrong[0, 0] = (wrong[0, 0] + 1) % 5
    assert faithful(program)
    assert not faithful(dataclasses.replace(program, code=wrong))


@kernels
@pytest.mark.parametrize("options", [{"foreach": True}, {"fused": True, "amsgrad": True}], ids=str)
def test_another_optimizer_steps_as_it_does(options):
    state, objective, batch = learner(CartPole(), LOSSES["ppo"], False)
    state.optimizers["policy"] = torch.optim.Adam([p for p in state.parameters() if p.requires_grad], 0.05, **options)
    assert rule(state.optimizers["policy"], objective.compiled(state, batch.decisions()).moved) is None
    assert Epochs(2, 2)(state, objective, batch, Stream(0))["grad_norm"] > 0
    assert float(state.optimizers["policy"].state[state.policy.net.theta]["step"]) == 4


@kernels
def test_decisions_that_were_not_made_go_through_torch():
    state, objective, batch = learner(CartPole(), LOSSES["ppo"], False)
    batch.mask[3, 5] = 0
    assert objective.compiled(state, batch.decisions()) is None


# ---------------------------------------------------------------------------------- environments


@kernels
@pytest.mark.parametrize("problem", OWN, ids=str)
def test_environments_in_the_kernel_are_those_in_numpy(problem, without):
    """Over resets, and with actions outside the Box."""
    ours, theirs = problem.make(5), problem.make(5)
    assert torch.equal(ours.reset(Stream(3)), theirs.reset(Stream(3)))
    generator = torch.Generator().manual_seed(0)
    draw = 2 * torch.randn(200, *ours.taken.shape, generator=generator)
    if ours.taken.dtype == torch.long:
        draw = (draw > 0).long()
    told = [ours.step(action) for action in draw]
    without()
    ended = 0
    for action, a in zip(draw, told, strict=True):
        b = theirs.step(action)
        for name in ("obs", "next_obs", "reward"):
            assert torch.allclose(getattr(a, name), getattr(b, name), atol=1e-6, rtol=1e-6)
        assert torch.equal(a.terminated, b.terminated)
        assert torch.equal(a.truncated, b.truncated)
        ended += int((a.terminated | a.truncated).sum())
    assert ended > 20
    states = ours.get_state(), theirs.get_state()
    assert all(torch.allclose(states[0][name], states[1][name], atol=1e-9) for name in states[0])


@kernels
@pytest.mark.parametrize("problem", OWN, ids=str)
@pytest.mark.parametrize("normalize", [False, True])
def test_a_rollout_in_one_call_is_the_rollout_step_by_step(problem, normalize):
    """Bitwise: the same random numbers, the same kernels, one call or many."""
    policy = control_policy(problem, Stream(0), width=16, normalize=normalize)
    if normalize:
        policy.norm.write(random(50, policy.net.sizes[0]))
    one, two = problem.make(5), problem.make(5)
    obs = one.reset(Stream(1))
    two.reset(Stream(1))
    kept = obs.clone()
    for part in range(2):
        whole = one.roll(policy, obs, Stream(2, part).torch(), 40)
        steps = stepped(two, policy, obs, Stream(2, part).torch(), 40)
        assert torch.equal(whole.obs, steps.obs)
        assert all(torch.equal(a, b) for a, b in zip(whole.columns, steps.columns, strict=True))
        assert (whole.columns[5] | whole.columns[6]).any()
        obs = whole.obs
    assert torch.equal(kept, one.reset(Stream(1)))
    assert all(torch.equal(a, two.get_state()[name]) for name, a in {**one.get_state(), **two.get_state()}.items())


def test_random_numbers_by_address():
    """Uniform, unlike each other, and the kernel's (a reset is compared above): splitmix64's own test value to begin with."""
    assert uniforms(0, np.arange(3), np.zeros(3, int), 2).shape == (3, 2)
    u = uniforms(7, np.arange(4000), np.full(4000, 3), 4)
    assert u.min() >= 0
    assert u.max() < 1
    assert abs(u.mean() - 0.5) < 4 * (1 / 12 / u.size) ** 0.5
    assert np.abs(np.corrcoef(u.T) - np.eye(4)).max() < 4 / 4000**0.5
    assert len(np.unique(u)) == u.size
    more = [uniforms(seed, np.array([i]), np.array([e]), 1)[0, 0] for seed, i, e in product((0, 1, 2**62), range(5), range(5))]
    assert len(set(more)) == 75
    assert uniforms(7, np.array([12]), np.array([3]), 4)[0] == pytest.approx(u[12], abs=0)


@kernels
def test_a_subclass_is_stepped_as_it_says():
    class Light(CartPole):
        def move(self, state, action):
            after, reward, ended = super().move(state, action)
            return after, 2 * reward, ended

    problem = Light()
    state = actor_state(problem, Stream(0), lr=1e-3, envs=3)
    assert problem.make(3).roll(state.policy, state.live.obs, Stream(0).torch(), 4) is None
    assert (rollout(envs=3, horizon=4)(state, problem, Stream(0)).reward == 2).all()


# ---------------------------------------------------------------------------------- where they were not built


@pytest.mark.parametrize("problem", [CartPole(), PointMass()], ids=str)
def test_a_system_learns_without_them_and_about_the_same(problem, without):
    """One step from the same batch: parameters agree as far as Adam lets rounding errors grow."""
    system = ppo(envs=4, horizon=32, epochs=2, minibatches=2, width=16)
    one, two = (next(iter(train(system, problem, steps=1))).state for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    start = system.init(problem, Stream(0, "init"))
    batch = system.collect(start, problem, Stream(0, 0, "collect"))
    without()
    system.learn(start, batch, Stream(0, 0, "learn"))
    for a, b in zip(one.parameters(), start.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-5)
    whole = list(train(system, problem, steps=2))
    assert whole[-1].metrics["loss"] == whole[-1].metrics["loss"]


def test_a_stale_module_is_refused_with_a_warning(monkeypatch):
    stale = types.ModuleType("_steepest")
    stale.VERSION = native.VERSION - 1
    monkeypatch.setitem(sys.modules, "_steepest", stale)
    with pytest.warns(UserWarning, match=rf"are of version {stale.VERSION}, this source needs {native.VERSION}: they stand idle"):
        assert native.load() is None
    empty = types.ModuleType("_steepest")
    empty.__spec__ = importlib.machinery.ModuleSpec("_steepest", None)
    monkeypatch.setitem(sys.modules, "_steepest", empty)
    with pytest.warns(UserWarning, match="of version None"):
        assert native.load() is None
    monkeypatch.setitem(sys.modules, "_steepest", None)  # as where it is not installed
    assert native.load() is None


@kernels
def test_the_running_return_in_the_kernel_is_that_in_torch(without):
    """To the bit, from one call to the next."""
    ours, theirs = ReturnScale(3, 0.97), ReturnScale(3, 0.97)
    calls = [(random(3, 40, seed=i), random(3, 40, seed=i + 10) > 1.5) for i in range(2)]
    told = [ours(*call) for call in calls]
    without()
    assert all(torch.equal(theirs(*call), x) for call, x in zip(calls, told, strict=True))
    assert all(torch.equal(x, theirs.state_dict()[name]) for name, x in ours.state_dict().items())
    assert torch.equal(ours(calls[0][0].t().contiguous().t(), calls[0][1]), theirs(*calls[0]))


def test_a_normaliser_and_a_network_of_another_precision_go_through_torch():
    net, norm = net_of((4, 8, 3)).double(), Normalizer(4)
    x = random(5, 4, dtype=torch.float64)
    assert torch.equal(net(x), plain(x, net.theta, net.sizes))
    assert norm(x).dtype == torch.float64


@kernels
def test_a_network_deeper_than_the_kernels_take_goes_through_torch():
    fits, deep = net_of((4, *[3] * (native.LAYERS - 1), 2)), net_of((4, *[3] * native.LAYERS, 2))
    x = random(5, 4)
    assert fits.compiled(x)
    assert not deep.compiled(x)
    for net in (fits, deep):
        assert torch.allclose(net(x), plain(x, net.theta, net.sizes), atol=1e-6)
