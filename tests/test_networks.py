"""Networks, spaces and heads: parts of a row are found again, distributions against torch's, names of the command line."""

import itertools
from functools import partial

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Text, Tuple, flatten

from steepest.app.compare import build_system
from steepest.app.options import coerce, options_of
from steepest.app.parts import part_of
from steepest.app.plan import slots
from steepest.core import Stream, begin, train
from steepest.core.check import check_system
from steepest.core.problem import Control, flat_size
from steepest.evidence.run import described
from steepest.losses import Loss, clip
from steepest.models.control import control_critic, control_policy
from steepest.models.distributions import Bernoullis, Categorical, Categoricals
from steepest.models.hyper import Written
from steepest.models.networks import Network, conv, hyper, mlp
from steepest.models.spaces import normalizer, views
from steepest.problems.control import CartPole
from steepest.systems.on_policy.ppo import ppo
from steepest.systems.on_policy.trpo import trpo
from steepest.systems.on_policy.vpg import vpg

IMAGE = Box(0, 255, (40, 44, 3), np.uint8)
NESTED = Dict({"b": Box(-1, 1, (2, 3)), "a": Tuple([Discrete(3), IMAGE]), "c": MultiDiscrete([2, 4]), "d": MultiBinary(3)})


# ---------------------------------------------------------------------------------- spaces


def test_parts_of_a_flat_row_are_found_again():
    NESTED.seed(0)
    seen = NESTED.sample()
    row = torch.as_tensor(flatten(NESTED, seen)).float()
    assert len(row) == flat_size(NESTED)
    (_, one_hot), (_, image), (_, box), (_, multi), (_, bits) = views(NESTED, row[None])
    assert one_hot[0].argmax() == seen["a"][0]
    assert np.array_equal(image[0].numpy(), seen["a"][1])
    assert np.array_equal(box[0].numpy(), seen["b"])
    assert (multi[0, :2].argmax(), multi[0, 2:].argmax()) == tuple(seen["c"])
    assert np.array_equal(bits[0].numpy(), seen["d"])


def test_a_space_without_a_fixed_size_is_refused():
    with pytest.raises(TypeError, match="no fixed number of numbers"):
        flat_size(Dict({"a": Text(5)}))


def test_bytes_are_scaled_and_only_the_rest_is_normalised():
    space = Dict({"image": Box(0, 255, (2, 2, 1), np.uint8), "x": Box(-9, 9, (2,))})
    x = torch.cat([torch.randint(0, 256, (50, 4), generator=Stream(0).torch()).float(), torch.randn(50, 2) * 3 + 5], 1)
    still, running = normalizer(space, False), normalizer(space, True)
    for norm in (still, running):
        norm.write(x)
        assert torch.allclose(norm(x)[:, :4], x[:, :4] / 255)
    assert torch.equal(still(x)[:, 4:], x[:, 4:])
    assert torch.allclose(running(x)[:, 4:].std(0, correction=0), torch.ones(2), atol=1e-4)
    assert normalizer(Box(-1, 1, (3,)), False) is None


# ---------------------------------------------------------------------------------- heads


def heads():
    g = Stream(3).torch()
    scores, others = torch.randn(5, 9, generator=g), torch.randn(5, 9, generator=g)
    sizes = (2, 3, 4)
    choices = Categoricals.of(scores, sizes), Categoricals.of(others, sizes)
    for a, b in (choices, (Bernoullis(scores[:, :3]), Bernoullis(others[:, :3]))):
        counts = sizes if isinstance(a, Categoricals) else (2, 2, 2)
        yield a, b, torch.tensor(list(itertools.product(*map(range, counts))))


def torchs(d):
    """The same distribution in torch, part by part."""
    if isinstance(d, Categoricals):
        return [torch.distributions.Categorical(logits=part.logits) for part in d.parts]
    return [torch.distributions.Bernoulli(logits=d.logits[:, k]) for k in range(3)]


@pytest.mark.parametrize("case", range(2), ids=["categoricals", "bernoullis"])
def test_heads_of_several_parts_by_enumeration_and_against_torch(case):
    a, b, every = list(heads())[case]
    logp = torch.stack([a.logp(action.expand(5, 3)) for action in every], 1)  # [5, all actions]
    other = torch.stack([b.logp(action.expand(5, 3)) for action in every], 1)
    p = logp.exp()
    assert torch.allclose(p.sum(1), torch.ones(5), atol=1e-5)
    assert torch.allclose(a.entropy(), -(p * logp).sum(1), atol=1e-5)
    assert torch.allclose(a.kl(b), (p * (logp - other)).sum(1), atol=1e-5)
    assert torch.allclose(a.kl(a), torch.zeros(5), atol=1e-6)
    assert torch.equal(a.mode(), every[p.argmax(1)])
    mine = every[7].expand(5, 3)
    theirs = sum(d.log_prob(mine[:, k].to(d.logits.dtype)) for k, d in enumerate(torchs(a)))
    assert torch.allclose(a.logp(mine), theirs, atol=1e-5)
    assert torch.allclose(a.entropy(), sum(d.entropy() for d in torchs(a)), atol=1e-5)
    assert torch.allclose(a.kl(b), sum(map(torch.distributions.kl_divergence, torchs(a), torchs(b))), atol=1e-5)


@pytest.mark.parametrize("case", range(2), ids=["categoricals", "bernoullis"])
def test_samples_of_several_parts_have_their_probabilities(case):
    a, _, every = list(heads())[case]
    if isinstance(a, Bernoullis):
        one = Bernoullis(a.logits[:1].expand(20_000, -1))
    else:
        one = Categoricals(tuple(Categorical(x.logits[:1].expand(20_000, -1)) for x in a.parts))
    drawn = one.sample(Stream(1).torch())
    found = torch.stack([(drawn == action).all(1).float().mean() for action in every])
    p = torch.stack([a.logp(action.expand(5, 3))[0] for action in every]).exp()
    assert (found - p).abs().max() < 4 * (0.25 / 20_000) ** 0.5
    assert not one.detach().kl(one).requires_grad


# ---------------------------------------------------------------------------------- networks


class Shown(Control):
    """A problem of two spaces, to build models for."""

    def __init__(self, seen, done):
        self.observation_space, self.action_space = seen, done

    def make(self, count):
        raise NotImplementedError

    def evaluate(self, policy, rng):
        raise NotImplementedError


@pytest.mark.parametrize("space", [Discrete(3), Box(-1, 1, (2,)), MultiDiscrete([2, 3]), MultiBinary(3)], ids=str)
@pytest.mark.parametrize("network", [None, conv(width=8), mlp(width=8), hyper(width=8)], ids=["usual", "conv", "mlp", "hyper"])
def test_every_network_meets_every_action_space(network, space):
    problem = Shown(NESTED, space)
    policy = control_policy(problem, Stream(0), model=network)
    critic = control_critic(problem, Stream(0), model=network, norm=policy.norm)
    NESTED.seed(1)
    obs = torch.stack([torch.as_tensor(flatten(NESTED, NESTED.sample())).float() for _ in range(4)])
    action, logp = policy.sample(obs, Stream(0).torch())
    mask = torch.ones(4)
    assert torch.allclose(policy.logp(obs, action, mask), logp, atol=1e-5)
    assert logp.shape == critic.value(obs, action, mask).shape == (4,)
    done = policy.act(obs, Stream(1).torch(), True).numpy().astype(space.dtype)
    assert all(space.contains(x) for x in done)
    policy.logp(obs, action, mask).sum().backward()
    assert all(p.grad is not None for p in policy.parameters())


def test_conv_reads_bytes_with_channels_at_either_end():
    last = torch.randint(0, 256, (3, 40, 44, 3), generator=Stream(0).torch(), dtype=torch.uint8)
    found = []
    for shape, image in (((40, 44, 3), last), ((3, 40, 44), last.permute(0, 3, 1, 2))):
        policy = control_policy(Shown(Box(0, 255, shape, np.uint8), Discrete(4)), Stream(0), model=conv(width=8))
        found.append(policy.distribution(image.reshape(3, -1)).logits)
    assert torch.allclose(*found, atol=1e-6)
    assert found[0].std(0).max() > 0


@pytest.mark.parametrize(
    ("space", "said"),
    [(Box(0, 255, (20, 40, 3), np.uint8), "at least 36 x 36 pixels, not 20 x 40"), (Box(-1, 1, (4,)), "conv needs images")],
)
def test_conv_refuses_what_it_cannot_see(space, said):
    with pytest.raises(ValueError, match=said):
        control_policy(Shown(space, Discrete(2)), Stream(0), model=conv())


def test_the_layers_of_a_hypernetwork_are_ordinary_ones_with_the_weights_that_it_writes():
    """Bug that it catches: a net that goes on with the weights that were written before its writer learned."""
    with Stream(5).fork():
        trunk = Written(6, width=4, depth=3, hidden=8)
    x = torch.randn(2, 5, 6, generator=Stream(1).torch())
    for _ in range(2):
        h = trunk.first(x).tanh()
        layers = trunk.written.write(torch.tensor([0]))
        for weight, bias in layers:
            h = (h @ weight[0] + bias[0]).tanh()
        assert len(layers) == 3
        assert torch.allclose(trunk(x), h, atol=1e-6)
        trunk(x).square().sum().backward()
        with torch.no_grad():
            for p in trunk.parameters():
                p.sub_(0.1 * p.grad)
        assert not torch.allclose(trunk(x), h, atol=1e-3)


def test_a_deeper_hypernetwork_has_no_more_to_learn():
    two, five = (sum(p.numel() for p in Written(6, width=8, depth=depth, hidden=8).parameters()) for depth in (2, 5))
    assert two == five


def test_a_hypernetwork_refuses_a_single_layer():
    with pytest.raises(ValueError, match="depth must be at least 2, not 1"):
        hyper(depth=1)


def test_the_network_of_a_size_is_the_usual_one_of_that_size():
    small = partial(ppo, envs=2, horizon=8, minibatches=2, epochs=1)
    runs = small(width=8, depth=1), small(model=mlp(width=8, depth=1))
    ends = [list(train(system, CartPole(), steps=2))[-1].state.state_dict() for system in runs]
    assert all(torch.equal(a, b) for a, b in zip(*(end.values() for end in ends), strict=True) if isinstance(a, torch.Tensor))


@pytest.mark.parametrize("system", [ppo, vpg, trpo])
def test_a_text_is_no_network(system):
    with pytest.raises(TypeError, match=r"model='mpl' is no network; nearest: mlp: environments take one of"):
        begin(system(model="mpl"), CartPole())


# ---------------------------------------------------------------------------------- the command line


def test_parts_have_names_on_the_command_line():
    assert part_of("mlp(width=8)", Network | None) == mlp(width=8)
    assert part_of("mlp", str | Network | None) == mlp()
    assert part_of("gpt2", str | Network | None) == "gpt2"  # a model of texts
    assert repr(part_of("clip(low=0.1)", Loss)) == "clip(low=0.1)"
    assert coerce(ppo, {"model": "conv(width=16)", "lr": 1e-3}) == {"model": conv(width=16), "lr": 1e-3}


@pytest.mark.parametrize(
    ("text", "annotation", "said"),
    [
        ("mpl", Network, "no network is called 'mpl'; nearest: mlp: choose of"),
        ("mpl(width=8)", str | Network, "no network is called 'mpl'; nearest: mlp"),
        ("mlp(widht=8)", Network, "mlp has no option 'widht'; nearest: width"),
        ("mlp(width=0)", Network, "width must be at least 1, not 0"),
        ("mlp(8)", Network, "options are given by name"),
        ("clop", Loss, "no loss is called 'clop'; nearest: clip"),
        ("clip(hihg=1)", Loss, "clip has no option 'hihg'; nearest: high"),
        ("mlp(width=a)", Network, "takes plain values, not a"),
    ],
)
def test_wrong_names_and_options_of_parts_fail_before_any_work(text, annotation, said):
    with pytest.raises(ValueError, match=said):
        part_of(text, annotation)


def test_a_loss_refuses_options_that_it_does_not_have():
    with pytest.raises(TypeError, match="unexpected keyword argument 'hihg'"):
        clip(hihg=0.1)


def test_options_with_parts_are_flags_that_say_their_names():
    told = {option.name: option for option in options_of(ppo, "ppo")}
    assert told["model"].type == told["loss"].type == str | None
    assert "mlp" in told["model"].help
    assert "clip" in told["loss"].help
    assert "wrap" not in told


def test_a_part_that_a_claim_sets_stays_and_a_flag_replaces_it():
    def system(*, loss: Loss = clip(), model: str | Network | None = None, lr: float = 1.0):
        """loss  it"""

    told = {option.name: option for option in options_of(system, "s", {"loss": clip(low=0.1), "lr": 2.0})}
    assert (told["loss"].usual, told["loss"].default, told["lr"].default) == (True, None, 2.0)
    given = partial(system, loss=clip(low=0.1), model=mlp(), lr=2.0)
    assert set(slots(given)) == {"loss", "model"}
    assert set(slots(partial(system, model="folder"))) == set()


def test_parts_inside_a_system_on_one_line():
    made = build_system("ppo(model=mlp(width=8), loss=clip(low=0.1), lr=2e-4)")
    assert made.keywords["model"] == mlp(width=8)
    assert repr(made.keywords["loss"]) == "clip(low=0.1)"
    assert described(made)[1]["loss"] == "clip(low=0.1)"
    assert described(made)[1]["model"] == {"made by": "steepest.models.perceptron.Perceptron", "width": 8, "depth": 2}
    with pytest.raises(ValueError, match="lr takes plain values"):
        build_system("ppo(lr=mlp)")
    with pytest.raises(ValueError, match="no network is called 'gruu'"):
        build_system("trpo(model=gruu(width=8))")


@pytest.mark.parametrize("network", [mlp(width=8), hyper(width=8, hidden=4)], ids=["mlp", "hyper"])
@pytest.mark.parametrize("system", [ppo, vpg, trpo])
def test_systems_with_a_network_conform(system, network):
    sizes = {"minibatches": 2, "epochs": 1} if system is ppo else {"critic_minibatches": 2, "critic_epochs": 1}
    make = partial(system, envs=2, horizon=8, **sizes, model=network)
    assert check_system(make, CartPole, fresh=False)[-1] == "resume is bitwise"
