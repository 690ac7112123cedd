"""Networks that remember: whole sequences against one step after the other, the memory in State, and what only memory can solve."""

import math
from functools import partial

import pytest
import torch
from gymnasium.spaces import Box

from steepest.core import Stream, begin, train
from steepest.core.check import check_problem, check_system
from steepest.core.recurrent import Seen
from steepest.engines.values import values
from steepest.models.networks import gru, mlp, s5, transformer
from steepest.models.s5 import StateSpace, scan
from steepest.models.transformer import Attention
from steepest.problems.control import CartPole, Pendulum
from steepest.problems.recall import Recall
from steepest.systems.on_policy.a2c import a2c
from steepest.systems.on_policy.discovered_po import discovered_po
from steepest.systems.on_policy.fixpo import fixpo
from steepest.systems.on_policy.mdpo import mdpo
from steepest.systems.on_policy.npg import npg
from steepest.systems.on_policy.ppo import ppo
from steepest.systems.on_policy.ppo_penalty import ppo_penalty
from steepest.systems.on_policy.spo import spo
from steepest.systems.on_policy.trpo import trpo
from steepest.systems.on_policy.vmpo import vmpo
from steepest.systems.on_policy.vpg import vpg

NETWORKS = [gru(width=8), s5(width=8, size=8, depth=2), transformer(width=8, heads=2, context=20)]
SMALL = {"envs": 3, "horizon": 12}
each_network = pytest.mark.parametrize("network", NETWORKS, ids=lambda n: type(n).__name__)


def net(network, outputs=3):
    with Stream(0).fork():
        return network.net(Box(-1, 1, (4,)), outputs, 1.0)


def sequence(n=3, t=11, seed=0):
    g = Stream(seed).torch()
    return torch.randn(n, t, 4, generator=g), torch.rand(n, t, generator=g) < 0.2


def stepwise(network, x, start, memory):
    found = []
    for t in range(x.shape[1]):
        y, memory = network(x[:, t : t + 1], start[:, t : t + 1], memory)
        found.append(y)
    return torch.cat(found, 1), memory


# ---------------------------------------------------------------------------------- networks


@each_network
@pytest.mark.parametrize("clean", [True, False], ids=["from the start", "from memory"])
def test_a_sequence_at_once_is_step_after_step(network, clean):
    one = net(network)
    memory = one.fresh(3) if clean else one(*sequence(seed=7), one.fresh(3))[1]
    x, start = sequence()
    whole, after = one(x, start, memory)
    steps, last = stepwise(one, x, start, memory)
    assert torch.allclose(whole, steps, atol=1e-5)
    again, further = one(*sequence(seed=3), after), one(*sequence(seed=3), last)  # memories that differ in nothing that counts
    assert torch.allclose(again[0], further[0], atol=1e-5)
    halves, middle = one(x[:, :5], start[:, :5], memory)
    assert torch.allclose(torch.cat([halves, one(x[:, 5:], start[:, 5:], middle)[0]], 1), whole, atol=1e-5)


@each_network
def test_nothing_passes_the_start_of_an_episode_and_all_before_it_counts(network):
    one = net(network)
    x, start = sequence(2, 8)
    start[:] = False
    start[0, 5] = True
    plain = one(x, start, one.fresh(2))[0]
    other = x.clone()
    other[:, :5] += 1
    changed = one(other, start, one.fresh(2))[0]
    assert torch.equal(changed[0, 5:], plain[0, 5:])
    assert ((changed[1, 5:] - plain[1, 5:]).abs().amax(-1) > 1e-6).all()
    late = x.clone()
    late[:, 6] += 1
    assert torch.allclose(one(late, start, one.fresh(2))[0][:, :6], plain[:, :6], atol=1e-6)  # nothing comes from the future


@each_network
def test_gradients_are_those_of_step_after_step(network):
    one = net(network)
    x, start = sequence()
    slopes = []
    for run in (one, partial(stepwise, one)):
        out = run(x, start, one.fresh(3))[0]
        slopes.append(torch.autograd.grad(out.square().sum(), list(one.parameters())))
    assert all(torch.allclose(a, b, atol=1e-3, rtol=1e-3) for a, b in zip(*slopes, strict=True))


def test_the_scan_is_the_loop_whatever_the_chunks():
    g = Stream(0).torch()
    n, t, p = 3, 300, 5
    decay = torch.polar(torch.rand(p, generator=g), torch.rand(p, generator=g) * 6)
    inputs, state = (torch.randn(*shape, dtype=torch.complex64, generator=g) for shape in ((n, t, p), (n, p)))
    start = torch.rand(n, t, generator=g) < 0.02
    found, x = [], state
    for k in range(t):
        x = decay * torch.where(start[:, k : k + 1], 0.0, x) + inputs[:, k]
        found.append(x)
    expected = torch.stack(found, 1)
    assert (scan(decay, inputs, start, state) - expected).abs().max() < 1e-5
    assert start.any()
    assert (scan(decay, inputs, torch.zeros_like(start), state) - expected).abs().max() > 0.1


def test_states_of_s5_decay_and_start_from_hippo():
    """The normal part of HiPPO-LegS by its definition: real parts -1/2, imaginary ones in conjugate pairs."""
    with Stream(0).fork():
        layer = StateSpace(4, 16)
    held, _ = layer.discrete()
    assert (held.abs() < 1).all()
    size, n = 16, torch.arange(16).double()
    root = (2 * n + 1).sqrt()
    legs = -torch.outer(root, root).tril(-1) - torch.diag(n + 1)
    normal = legs + 0.5 * torch.outer(root, root)  # A + P P' with P = sqrt(n + 1/2)
    expected = torch.linalg.eigvals(normal)
    mine = torch.complex(-layer.decay.exp(), layer.turn).detach()
    assert torch.allclose(mine.real, torch.full((size // 2,), -0.5), atol=1e-5)
    assert torch.allclose(mine.imag.sort().values.double(), expected.imag[expected.imag > 0].sort().values, atol=1e-3)
    with torch.no_grad():
        layer.decay.fill_(-20.0)
        layer.turn.normal_()
    assert (layer.discrete()[0].abs() <= 1).all()


def test_a_sink_of_zeros_is_one_more_in_the_denominator():
    """softmax1: exp(s_j) / (1 + sum exp(s)), and a key of its own takes weight from the others."""
    with Stream(0).fork():
        one, q, k, v = Attention(4, 1), torch.randn(2, 3, 4), torch.randn(2, 5, 4), torch.randn(2, 5, 4)
    far = torch.zeros(2, 3, 5)
    score = (one.query(q) @ k.transpose(1, 2) / 2).exp()
    expected = one.out(score @ v / (1 + score.sum(-1, keepdim=True)))
    assert torch.allclose(one(q, k, v, far), expected, atol=1e-5)
    with torch.no_grad():
        one.sink_value.normal_(generator=Stream(1).torch())
    assert not torch.allclose(one(q, k, v, far), expected, atol=1e-3)


def test_a_transformer_looks_no_further_than_its_context():
    short = net(transformer(width=8, depth=1, heads=2, context=3))
    x, start = torch.randn(1, 8, 4, generator=Stream(0).torch()), torch.zeros(1, 8, dtype=torch.bool)
    plain = short(x, start, short.fresh(1))[0]
    other = x.clone()
    other[:, 2] += 1
    moved = (short(other, start, short.fresh(1))[0] - plain).abs().amax(-1)[0] > 1e-6
    assert moved.tolist() == [False, False, True, True, True, False, False, False]
    whole, steps = short(x, start, short.fresh(1))[0], stepwise(short, x, start, short.fresh(1))[0]
    assert torch.allclose(whole, steps, atol=1e-5)  # beyond the context the cache has lost its oldest
    with pytest.raises(ValueError, match="64 cannot be among 3"):
        transformer(heads=3)


@pytest.mark.parametrize(("size", "said"), [(3, "size must be even"), (0, "at least 2, not 0")])
def test_sizes_that_s5_cannot_have(size, said):
    with pytest.raises(ValueError, match=said):
        s5(size=size)


# ---------------------------------------------------------------------------------- collecting


@each_network
@pytest.mark.parametrize("problem", [CartPole(limit=7), Pendulum(limit=5)], ids=["categorical", "gaussian"])
def test_the_log_probability_of_a_batch_is_what_was_sampled(network, problem):
    """Also in the second collection, which goes on from the memory of the first."""
    system = ppo(model=network, normalize=False, **SMALL)
    state = begin(system, problem)
    for step in range(2):
        batch = system.collect(state, problem, Stream(0, step) / "collect").check()
        assert isinstance(batch.obs, Seen)
        assert batch.obs.start[:, 0].all() == (step == 0)
        with torch.no_grad():
            assert torch.allclose(state.policy.logp(batch.obs, batch.action, batch.mask), batch.logp, atol=1e-5)
            rows = batch.rows(torch.tensor([2, 0]))
            assert torch.allclose(state.policy.logp(rows.obs, rows.action, rows.mask), batch.logp[[2, 0]], atol=1e-5)
            forgetful = Seen(batch.obs.obs, torch.ones_like(batch.obs.start), batch.obs.memory)
            assert not torch.allclose(state.policy.logp(forgetful, batch.action, batch.mask), batch.logp, atol=1e-5)


@each_network
def test_values_of_true_successors_are_those_of_a_plain_loop(network):
    """Step by step with the critic; at a cut the final observation is read with the memory of its own episode."""
    problem = CartPole(limit=5)  # the clock cuts episodes inside the batch
    system = ppo(model=network, **SMALL)
    state = begin(system, problem)
    with torch.no_grad():
        for step in range(2):
            batch = system.collect(state, problem, Stream(0, step) / "collect")
            value, later, terminated, truncated = values(state, batch)
            assert truncated[:, :-1].any()
            critic, seen = state.critic, batch.obs
            for n in range(3):
                memory = tuple(x[n : n + 1] for x in seen.memory["critic"])
                for t in range(SMALL["horizon"]):
                    v, memory = critic.read(seen.obs[n : n + 1, t : t + 1], seen.start[n : n + 1, t : t + 1], memory)
                    assert torch.allclose(v[0, 0], value[n, t], atol=1e-5)
                    true = batch.info["next_obs"][n : n + 1, t : t + 1]
                    after = critic.read(true, torch.zeros(1, 1, dtype=torch.bool), memory)[0]
                    if not terminated[n, t]:
                        assert torch.allclose(after[0, 0], later[n, t], atol=1e-5)
                    else:
                        assert later[n, t] == 0


# ---------------------------------------------------------------------------------- systems


@each_network
@pytest.mark.parametrize(
    "make",
    [
        partial(ppo, epochs=1, normalize=True, entropy_weight=0.01, **SMALL),
        partial(vpg, critic_epochs=1, **SMALL),
        partial(trpo, critic_epochs=1, cg_steps=2, tries=2, **SMALL),
    ],
    ids=["ppo", "vpg", "trpo"],
)
def test_every_network_runs_with_every_system(make, network):
    assert check_system(partial(make, model=network), partial(CartPole, limit=7), half=1, fresh=False)[-1] == "resume is bitwise"


@pytest.mark.parametrize(
    "make",
    [
        partial(spo, epochs=1, **SMALL), partial(discovered_po, epochs=1, **SMALL), partial(ppo_penalty, epochs=1, **SMALL),
        partial(fixpo, epochs=1, **SMALL), partial(vmpo, epochs=1, **SMALL), partial(a2c, **SMALL),
        partial(mdpo, updates=1, critic_epochs=1, **SMALL), partial(npg, cg_steps=2, critic_epochs=1, **SMALL),
    ],
    ids=lambda make: make.func.__name__,
)  # fmt: skip
def test_the_other_systems_run_with_a_network_that_remembers(make):
    told = [record.metrics for record in train(make(model=gru(width=8)), CartPole(limit=7), steps=2)]
    assert all(math.isfinite(x) for row in told for x in row.values())


def test_memory_resumes_in_a_fresh_process():
    make = partial(ppo, epochs=1, model=gru(width=8), **SMALL)
    assert check_system(make, partial(Recall, length=5), half=1)[-1] == "resume is bitwise in a fresh process"


def test_a_reference_has_no_memory():
    with pytest.raises(ValueError, match="a frozen reference has no memory"):
        begin(ppo(kl=0.1, model=gru()), CartPole())


# ---------------------------------------------------------------------------------- what asks for memory


def test_recall_obeys_the_laws_of_problems():
    check_problem(Recall(length=4, signs=3))


def test_recall_pays_for_the_sign_alone():
    problem = Recall(length=4, signs=3)
    env = problem.make(5)
    obs = env.reset(Stream(0))
    sign = obs[:, :3].argmax(1)
    for t in range(4):
        assert torch.equal(obs[:, 3], torch.full((5,), float(t == 3)))
        assert torch.equal(obs[:, :3].sum(1), torch.full((5,), float(t == 0)))
        step = env.step((sign + torch.tensor([0, 1, 2, 0, 1])) % 3)
        assert step.terminated.all() == (t == 3)
        assert step.reward.tolist() == [float(t == 3), 0, 0, float(t == 3), 0]
        obs = step.obs
    with pytest.raises(ValueError, match="must be at least 2, not 1 and 2"):
        Recall(length=1)


def reached(network, steps, problem):
    system = ppo(model=network, envs=16, horizon=64, epochs=4, minibatches=4, lr=3e-3, entropy_weight=0.01, discount=0.99)
    *_, last = train(system, problem, steps=steps)
    return problem.evaluate(last.state.policy, Stream(9))["return"]


@pytest.mark.slow
def test_what_remembers_solves_what_nothing_else_can():
    problem = Recall(length=6)
    assert reached(gru(width=32), 15, problem) > 0.95
    assert reached(mlp(width=32), 15, problem) < 0.7
