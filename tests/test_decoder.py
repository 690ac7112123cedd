"""The kernels of text against torch, one by one and as whole layers; log-probabilities in pieces; heads that are no matrix."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, CohereConfig, Qwen2Config

from steepest.core import Stream, native
from steepest.models import decoder, stack
from steepest.models.language import LanguageModel

from .test_language_model import CONFIGS, EOS, FAST, PAD, SIZE, V, gradients, policy_of, texts

kernels = pytest.mark.skipif(native.library is None, reason="the kernels were not built")
CLOSE = dict(atol=1e-6, rtol=2e-6)


def draw(*shape: int, number: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(number))


@kernels
@pytest.mark.parametrize("width", [1, 5, 8, 19, 64])
def test_the_norm_and_its_gradient_are_torchs(width: int) -> None:
    x, weight, by = draw(7, width).requires_grad_(), draw(width, number=1).requires_grad_(), draw(7, width, number=2)
    module = nn.RMSNorm(width)
    module.weight, module.variance_epsilon = nn.Parameter(weight.detach().clone()), 1e-5
    want = F.rms_norm(x, (width,), weight, 1e-5)
    with torch.no_grad():
        out, inv = stack.norm(module, x)
        torch.testing.assert_close(out, want, **CLOSE)
        by_x, by_weight = torch.autograd.grad(want, (x, weight), by)
        to, found = torch.ones_like(x), {}
        stack.norm_back(module, x, inv, by, to, found)
    torch.testing.assert_close(to, 1 + by_x, atol=2e-6, rtol=1e-5)
    torch.testing.assert_close(found[module.weight], by_weight, atol=2e-6, rtol=1e-5)


@kernels
@pytest.mark.parametrize("count", [1, 7, 8, 29])
def test_the_gate_and_its_gradient_are_torchs_also_far_out(count: int) -> None:
    gate, up, by = 10 * draw(count), draw(count, number=1), draw(count, number=2)
    gate[0] = -200.0
    gate, up = gate.requires_grad_(), up.requires_grad_()
    want = F.silu(gate) * up
    by_gate, by_up = torch.autograd.grad(want, (gate, up), by)
    got, got_gate, got_up = torch.empty(count), torch.empty(count), torch.empty(count)
    with torch.no_grad():
        stack.gated(gate, up, got)
        native.library.gate_back(count, *(x.data_ptr() for x in (gate, up, by, got_gate, got_up)))
    for mine, torchs in ((got, want), (got_gate, by_gate), (got_up, by_up)):
        torch.testing.assert_close(mine, torchs, atol=1e-6, rtol=1e-5)
    assert torch.isnan(stack.gated(torch.full((count,), torch.nan), by, got)).all()


@kernels
@pytest.mark.parametrize("depth", [2, 6, 8, 20])
def test_turning_is_torchs_and_turning_back_undoes_it(depth: int) -> None:
    x, angle = draw(5, 3 * depth), draw(5, depth // 2, number=1).repeat(1, 2)
    angles, got = (angle.cos(), angle.sin()), x.clone()
    stack.turn(got, angles, depth, 1.0)
    want = decoder.rotate(x.view(5, 3, depth), angles[0][:, None], angles[1][:, None]).flatten(1)
    torch.testing.assert_close(got, want, **CLOSE)
    stack.turn(got, angles, depth, -1.0)
    torch.testing.assert_close(got, x, **CLOSE)


@kernels
@pytest.mark.parametrize(("heads", "keys", "depth"), [(1, 1, 3), (4, 2, 8), (6, 3, 20)])
def test_attention_and_its_gradient_are_torchs(heads: int, keys: int, depth: int) -> None:
    """Three prompts of lengths 1, 4 and 9, answers of lengths 3, 1 and 0 to the second, of 2 to the first."""
    asked = [[0, 0, 0, 1, 0, 1], [0, 0, 1, 4, 1, 4], [0, 0, 5, 9, 5, 9]]
    spans = torch.tensor(asked + [[1, 4, 14, 3, 14, 3], [1, 4, 17, 1, 17, 1], [1, 4, 18, 0, 18, 0], [0, 1, 18, 2, 18, 2]])
    q, k, v = (draw(20, h * depth, number=h + i).requires_grad_() for i, h in enumerate((heads, keys, keys)))
    want = []
    for before, seen, own, said, _, _ in spans.tolist():
        here = torch.cat([torch.arange(before, before + seen), torch.arange(own, own + said)])
        if said:
            parts = (x[here].view(1, len(here), -1, depth).transpose(1, 2) for x in (q, k, v))
            whole = F.scaled_dot_product_attention(*parts, is_causal=True, enable_gqa=True)
            want.append(whole[0].transpose(0, 1).flatten(1)[seen:])
    expected, by = torch.cat(want), draw(20, heads * depth, number=9)
    slopes = torch.autograd.grad(expected, (q, k, v), by)
    out, total = torch.empty(20, heads * depth), torch.empty(20, heads)
    found = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
    shape = heads, keys, depth
    native.library.attend(
        *shape, 9, depth**-0.5, len(spans), spans.data_ptr(), *(x.data_ptr() for x in (q, k, v, k, v, out, total))
    )
    torch.testing.assert_close(out, expected, **CLOSE)
    native.library.attend_back(
        *shape, depth**-0.5, len(spans), spans.data_ptr(), *(x.data_ptr() for x in (q, k, v, out, total, by, *found))
    )
    for mine, torchs in zip(found, slopes, strict=True):
        torch.testing.assert_close(mine, torchs, atol=2e-6, rtol=1e-5)


def both(policy: LanguageModel, monkeypatch: pytest.MonkeyPatch, work: Any) -> list[Any]:
    """What `work` gives with the kernels and without them."""
    found = [work(policy)]
    monkeypatch.setattr(native, "library", None)
    return [*found, work(policy)]


@kernels
@pytest.mark.parametrize("name", FAST)
@pytest.mark.parametrize("equal", [True, False])
def test_whole_layers_and_gradients_agree_with_torch(name: str, equal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = policy_of(CONFIGS[name]())
    assert stack.known(policy.model.model) is not None
    obs, action, mask = texts(equal)

    def work(policy: LanguageModel) -> tuple[Tensor, Tensor]:
        logp, entropy = policy.logp_entropy(obs, action, mask)
        return logp, gradients(policy, (logp.exp() + entropy * draw(*mask.shape)).sum())

    (logp, slope), (other, want) = both(policy, monkeypatch, work)
    torch.testing.assert_close(logp, other, atol=3e-6, rtol=0)
    assert (slope - want).norm() < 1e-5 * want.norm()


@kernels
def test_gradients_of_gradients_and_second_passes_are_right(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = policy_of(CONFIGS["qwen3"](), sharp=2.0)
    obs, action, mask = texts()

    def work(policy: LanguageModel) -> Tensor:
        logp, entropy = policy.logp_entropy(obs, action, mask)
        parameters = [p for name, p in policy.named_parameters() if "norm" not in name]
        first = torch.autograd.grad((logp + entropy).sum(), parameters, create_graph=True)
        twice = torch.autograd.grad(sum((g**2).sum() for g in first), parameters)
        return torch.cat([g.flatten() for g in (*first, *twice)]).detach()

    one, two = both(policy, monkeypatch, work)
    assert (one - two).norm() < 1e-4 * two.norm()


@kernels
def test_a_graph_may_be_walked_twice() -> None:
    policy = policy_of(CONFIGS["llama"]())
    obs, action, mask = texts()
    total = policy.logp(obs, action, mask).sum()
    one, two = (torch.autograd.grad(total, list(policy.parameters()), retain_graph=again) for again in (True, False))
    assert all(torch.equal(x, y) for x, y in zip(one, two, strict=True))


class Adapted(nn.Linear):
    """A matrix with something beside it, as an adapter is."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 1.0


@kernels
def test_layers_that_are_more_than_the_kernels_know_are_left_to_torch() -> None:
    obs, action, mask = texts()
    changes = {
        "adapter": lambda layer: setattr(layer.self_attn, "q_proj", Adapted(16, 16)),
        "hook": lambda layer: layer.mlp.up_proj.register_forward_hook(lambda module, inputs, out: 2 * out),
        "frozen": lambda layer: layer.mlp.requires_grad_(False),
        "activation": lambda layer: setattr(layer.mlp, "act_fn", nn.GELU()),
        "precision": lambda layer: layer.double(),
        "shared": lambda layer: setattr(layer.mlp, "up_proj", layer.mlp.gate_proj),
    }
    for name, change in changes.items():
        policy = policy_of(CONFIGS["llama"]())
        before = policy.logp(obs, action, mask)
        change(policy.model.model.layers[0])
        assert stack.known(policy.model.model) is None, name
        if name in ("adapter", "hook", "activation"):
            assert (policy.logp(obs, action, mask) - before).abs().max() > 1e-3, name
    with torch.no_grad():
        policy = policy_of(CONFIGS["llama"]())
        policy.requires_grad_(False)
        assert stack.known(policy.model.model) is not None  # a reference is read, never trained


def test_different_rows_are_told_apart_also_where_their_numbers_collide(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = torch.tensor([[1, 2, 3], [3, 2, 1], [1, 2, 3], [2, 2, 2], [-1, 2, 5]])
    for collide in (False, True):
        if collide:  # every number the same
            monkeypatch.setattr(torch.Tensor, "cumprod", lambda self, dim: torch.zeros_like(self))
        found, which = decoder.distinct(rows)
        assert len(found) == 4
        assert torch.equal(found[which], rows)


# ------------------------------------------------------------------------------------------ the vocabulary


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("size", [1, 3, 100])
def test_log_probabilities_in_pieces_and_their_gradients_are_those_of_all_logits(bias: bool, size: int) -> None:
    x, weight, b = (3 * draw(9, 6)).requires_grad_(), draw(23, 6, number=1).requires_grad_(), draw(23, number=2).requires_grad_()
    token, given = torch.arange(9) * 2, [x, weight] + [b] * bias
    args = (x, weight, b if bias else None, token, 0.7, size, True)
    want = decoder.plain_logp(F.linear(x, weight, b if bias else None), token, 0.7)
    got = decoder.TokenLogp.apply(*args)
    for mine, torchs in zip(got, want, strict=True):
        torch.testing.assert_close(mine, torchs, atol=2e-6, rtol=1e-5)
    by = draw(9, number=3), draw(9, number=4)
    for mine, torchs in zip(torch.autograd.grad(got, given, by), torch.autograd.grad(want, given, by), strict=True):
        torch.testing.assert_close(mine, torchs, atol=1e-5, rtol=1e-5)
    alone = decoder.TokenLogp.apply(*args[:-1], False)[0]
    first = torch.autograd.grad(alone, given, by[0], create_graph=True)
    twice = torch.autograd.grad(sum((g**2).sum() for g in first), given)
    plain = decoder.plain_logp(F.linear(x, weight, b if bias else None), token, 0.7)[0]
    again = torch.autograd.grad(plain, given, by[0], create_graph=True)
    for mine, torchs in zip(twice, torch.autograd.grad(sum((g**2).sum() for g in again), given), strict=True):
        torch.testing.assert_close(mine, torchs, atol=1e-4, rtol=1e-4)


def test_logits_of_bfloat16_are_summed_and_kept_in_float32() -> None:
    x, weight = draw(20, 64).bfloat16(), draw(300, 64, number=1).bfloat16()
    exact = x.double() @ weight.double().t()
    got = decoder.scores(x, weight, None)
    assert got.dtype == torch.float32
    assert (got - exact).abs().max() < 1e-4
    assert ((x @ weight.t()).double() - exact).abs().max() > 1e-2  # what rounding every logit costs
    logp, spread = decoder.TokenLogp.apply(x, weight, None, torch.arange(20), 1.0, 7, True)
    torch.testing.assert_close(logp.double(), exact.log_softmax(1)[torch.arange(20), torch.arange(20)], atol=1e-4, rtol=0)
    torch.testing.assert_close(spread.double(), torch.special.entr(exact.softmax(1)).sum(1), atol=1e-4, rtol=0)


def test_never_more_logits_than_one_piece_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also by a model's own forward pass: what used to hold [N, T, V]."""
    made: list[int] = []
    scores = decoder.scores
    monkeypatch.setattr(decoder, "scores", lambda x, *rest: (made.append(len(x)), scores(x, *rest))[1])
    monkeypatch.setattr(decoder, "CHUNK", 4 * V)
    for name in ("gpt2", "qwen2"):
        policy = policy_of(CONFIGS[name]())
        made.clear()
        obs, action, mask = texts()
        gradients(policy, policy.logp(obs, action, mask).sum())
        assert max(made) == 4
        assert sum(made) == 2 * int(mask.sum())  # once forward and once for the gradient, where a token was decided


def test_where_logits_are_more_than_a_matrix_the_models_own_are_taken() -> None:
    config = CohereConfig(**SIZE, num_key_value_heads=2, logit_scale=0.3)
    with Stream(3, "weights").fork():
        model = AutoModelForCausalLM.from_config(config)
        with torch.no_grad():
            for p in model.parameters():
                p.mul_(4.0)
    policy = LanguageModel(model, eos=EOS, pad=PAD, max_new=6)
    assert not policy.split
    assert policy_of(CONFIGS["gpt2"]()).split
    assert policy_of(Qwen2Config(**SIZE, num_key_value_heads=2)).split
    obs, action, mask = texts()
    logp, entropy = policy.logp_entropy(obs, action, mask)
    want = policy.logits(obs, action).log_softmax(-1)
    torch.testing.assert_close(logp, want.gather(2, action[..., None])[..., 0] * mask, **CLOSE)
    torch.testing.assert_close(entropy, -(want.exp() * want).sum(-1) * mask, **CLOSE)
    policy.split = True  # and the check has a reason: the trunk's states times the matrix are not its logits
    assert (policy.logp(obs, action, mask) - logp).abs().max() > 1e-2
