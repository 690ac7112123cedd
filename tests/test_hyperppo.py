"""HyperPPO: what is written is an ordinary small net, padding is nothing, and only the writer learns."""

from functools import partial

import pytest
import torch
from torch import nn

from steepest.core import Stream, begin, train
from steepest.core.check import check_system
from steepest.evidence.claim import Run
from steepest.evidence.on_policy.hyperppo import claim, good
from steepest.models.hyper import Apart, Hyper, Population, shapes
from steepest.problems.control import CartPole, Pendulum, PointMass
from steepest.problems.gym import Gym
from steepest.problems.language import AddCliff
from steepest.systems.on_policy.hyperppo import hyperppo

SMALL = {"widths": (2, 3), "layers": 2, "sampled": 2, "envs": 4, "horizon": 16, "width": 8, "epochs": 2, "minibatches": 2}


def writer(kind, inputs=3, outputs=2):
    with Stream(7).fork():
        return Hyper(inputs, outputs, shapes((2, 5), 3), hidden=8) if kind is Hyper else Apart(inputs, outputs, shapes((2, 5), 3))


# ---------------------------------------------------------------------------------- conformance


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"normalize": True}, partial(Pendulum, limit=9)),
        ({"shared": False}, partial(CartPole, limit=9)),
        ({}, partial(Gym, "CartPole-v1")),
    ],
    ids=["numbers", "apart", "gym"],
)
def test_it_conforms(options, problem):
    assert check_system(partial(hyperppo, **SMALL, **options), problem, fresh=False)[-1] == "resume is bitwise"


def test_it_conforms_in_a_fresh_process():
    assert check_system(partial(hyperppo, **SMALL), partial(CartPole, limit=7))[-1] == "resume is bitwise in a fresh process"


# ---------------------------------------------------------------------------------- what is written


@pytest.mark.parametrize("kind", [Hyper, Apart])
def test_a_written_net_is_a_sequential_with_the_same_weights(kind):
    """Bug that it catches: a unit of the padding that answers, or a layer in the wrong place of a shallow net."""
    many = writer(kind)
    x = torch.randn(11, 3, generator=Stream(1).torch())
    for index, shape in enumerate(many.shapes):
        plain: list[nn.Module] = []
        for i, o in zip((3, *shape), (*shape, 2), strict=True):
            plain += [nn.Linear(i, o), nn.Tanh()]
        plain = nn.Sequential(*plain[:-1])
        written = many.write(torch.tensor([index]))
        with torch.no_grad():
            for layer, (weight, bias) in zip(plain[::2], [*written[: len(shape)], written[-1]], strict=True):
                layer.weight.copy_(weight[0, : layer.in_features, : layer.out_features].T)
                layer.bias.copy_(bias[0, : layer.out_features])
        found = many(torch.cat([x, torch.full((11, 1), float(index))], 1))
        assert torch.allclose(found, plain(x), atol=1e-6)
        assert torch.allclose(many.alone(index)(x), plain(x), atol=1e-6)
        count = sum(i * o + o for i, o in zip((3, *shape), (*shape, 2), strict=True))
        assert sum(p.numel() for p in many.alone(index).parameters()) == count


def test_rows_of_several_nets_are_each_answered_by_their_own():
    many = writer(Hyper)
    x, net = torch.randn(40, 3, generator=Stream(1).torch()), torch.arange(40) % len(many.shapes)
    together = many(torch.cat([x, net[:, None].float()], 1).view(8, 5, 4))
    apart = torch.stack([many.alone(int(k))(row) for row, k in zip(x, net, strict=True)])
    assert together.shape == (8, 5, 2)
    assert torch.allclose(together.view(40, 2), apart, atol=1e-6)


def test_padding_is_zero_and_has_no_gradient():
    many = writer(Apart)
    with torch.no_grad():  # as if something had been written there
        many.weight.fill_(0.3)
        many.bias.fill_(0.3)
    index = many.shapes.index((2, 5))
    x = torch.randn(9, 3, generator=Stream(1).torch())
    many(torch.cat([x, torch.full((9, 1), float(index))], 1)).square().sum().backward()
    inside = torch.zeros_like(many.weight[0], dtype=torch.bool)
    for place, (i, o) in ((0, (3, 2)), (1, (2, 5)), (3, (5, 2))):
        inside[place, :i, :o] = True
    assert (many.weight.grad[index][inside] != 0).all()
    assert (many.weight.grad[index][~inside] == 0).all()
    others = torch.arange(len(many.shapes)) != index
    assert (many.weight.grad[others] == 0).all()
    assert all((w[:, :, 2:] == 0).all() for w, _ in many.write(torch.tensor([index]))[:1])


def test_one_net_moves_the_weights_of_all_where_they_are_shared_and_none_where_not():
    for kind, moves in ((Hyper, True), (Apart, False)):
        many = writer(kind)
        x = torch.randn(9, 3, generator=Stream(1).torch())
        before = many.alone(5)(x).detach()
        many(torch.cat([x, torch.full((9, 1), 2.0)], 1)).square().sum().backward()
        with torch.no_grad():
            for p in many.parameters():
                p.sub_(0.1 * (p.grad if p.grad is not None else 0))
        assert torch.allclose(many.alone(5)(x), before) is not moves
        assert not torch.allclose(many.alone(2)(x), writer(kind).alone(2)(x))


def test_written_weights_are_of_the_size_that_their_inputs_ask_for():
    """The variance of a weight falls as 2 / inputs, whatever the decoder says; a bias lies in (-1, 1)."""
    with Stream(0).fork():
        many = Hyper(4, 2, ((64,), (64, 64)), hidden=16)
    weight, bias = many.tiles(torch.tensor([1]))
    z = weight[0] / (2 / torch.tensor([4.0, 64.0, 64.0])).sqrt()[:, None, None]
    assert z.std((1, 2)).max() / z.std((1, 2)).min() < 2
    assert bias.abs().max() < 1


# ---------------------------------------------------------------------------------- who acts


def test_nets_share_the_environments_evenly_and_change_with_every_batch():
    system = hyperppo(**SMALL)
    state, drawn = begin(system, CartPole(limit=7)), []
    for k in range(4):
        batch = system.collect(state, CartPole(limit=7), Stream(0, k))
        net = batch.obs[..., -1]
        assert (net == net[:, :1]).all()
        assert torch.equal(batch.info["next_obs"][..., -1], net)
        first = net[:, 0].tolist()
        assert first[0] == first[1] != first[2] == first[3]
        drawn.append(tuple(first))
        assert torch.allclose(state.policy.logp(batch.obs, batch.action, batch.mask), batch.logp, atol=1e-5)
    assert len(set(drawn)) > 1


def test_every_depth_is_as_likely_as_another():
    problem = Population(CartPole(), shapes((2, 3, 4), 2), 1, 1)  # three nets of one layer, nine of two
    deep = [len(problem.shapes[int(problem.draw(1, Stream(0, k))[0])]) for k in range(600)]
    assert 240 < deep.count(1) < 360
    assert torch.equal(Population(CartPole(), shapes((2, 3), 1)).draw(5, Stream(0)), torch.tensor([0, 1, 0, 1, 0]))


def test_a_net_taken_out_decides_as_it_did_within():
    for problem in (CartPole(limit=20), PointMass(limit=20)):
        state = list(train(hyperppo(normalize=True, **SMALL), problem, steps=2))[-1].state
        obs = torch.randn(6, problem.observation_space.shape[0], generator=Stream(1).torch())
        for index in range(len(state.policy.net.shapes)):
            within = state.policy.act(torch.cat([obs, torch.full((6, 1), float(index))], 1), Stream(2).torch(), True)
            assert torch.allclose(state.policy.alone(index).act(obs, Stream(2).torch(), True).float(), within.float(), atol=1e-5)
        assert problem.evaluate(state.policy, Stream(0))["length"] <= 20
        state.critic.norm.mean[:] = 3.0
        assert state.critic.norm is state.policy.norm


def test_the_critic_does_not_see_which_net_acts():
    state = begin(hyperppo(**SMALL), CartPole())
    obs = torch.randn(5, 5, generator=Stream(1).torch())
    other = obs.clone()
    other[:, -1] += 3
    ones = torch.ones(5)
    assert torch.equal(state.critic.value(obs, ones, ones), state.critic.value(other, ones, ones))


@pytest.mark.slow
def test_most_nets_of_a_population_learn():
    system = hyperppo(widths=(4, 8), layers=2, sampled=3, envs=12, horizon=128, minibatches=4, epochs=4, lr=1e-3)
    state = list(train(system, CartPole(), steps=30))[-1].state
    found = [CartPole(episodes=5).evaluate(state.policy.alone(k), Stream(0))["return"] for k in range(6)]
    assert sum(x > 150 for x in found) >= 4


# ---------------------------------------------------------------------------------- claim and bad input


def test_the_claim_runs_at_a_smaller_size():
    for arm in (claim.ours, claim.baseline):
        problem = claim.problem(limit=20, episodes=2)
        record = list(train(partial(arm, envs=4, horizon=32)(), problem, steps=2))[-1]
        assert claim.figure in record.metrics
        assert good(Run(0, [record.metrics], record.state, problem)) == 0


def test_what_makes_no_sense_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(ValueError, match="8 environments cannot be divided evenly among 3 sampled policies"):
        hyperppo(sampled=3)
    with pytest.raises(ValueError, match="policies need a hidden layer"):
        hyperppo(layers=0)
    with pytest.raises(ValueError, match="every layer a unit"):
        begin(hyperppo(widths=(0,), layers=1, sampled=1), CartPole())
    with pytest.raises(TypeError, match="AddCliff is no Control problem"):
        begin(hyperppo(), AddCliff(width=2, least=1, warm=1, tests=8))
    with pytest.raises(ValueError, match=r"sampled lies in 1\.\.2"):
        Population(CartPole(), shapes((2, 3), 1), 3)
