"""The language model: both paths agree, sampling is exact, warm-up is cached bitwise, collecting refuses bad scores."""

from __future__ import annotations

import copy
import os
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config

from steepest.collectors import generate as collecting
from steepest.collectors.generate import generate
from steepest.core import Language, Prompts, State, Stream, Warmup, native
from steepest.models import decoder, decoding, generation
from steepest.models.language import LanguageModel, TokenValue, language_policy
from steepest.models.warmup import cached, warm_up

V, EOS, PAD = 11, 1, 0
SIZE: dict[str, Any] = dict(
    vocab_size=V, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=32,
    pad_token_id=PAD, eos_token_id=EOS, bos_token_id=None,
)  # fmt: skip
CONFIGS: dict[str, Any] = {
    "llama": lambda: LlamaConfig(**SIZE, num_key_value_heads=4),
    "llama grouped tied": lambda: LlamaConfig(**SIZE, num_key_value_heads=2, tie_word_embeddings=True, attention_bias=True),
    "llama scaled": lambda: LlamaConfig(
        **SIZE, num_key_value_heads=1,
        rope_parameters=dict(
            rope_type="llama3", rope_theta=1e4, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
            original_max_position_embeddings=16,
        ),
    ),
    "mistral": lambda: MistralConfig(**SIZE, num_key_value_heads=2, sliding_window=None),
    "qwen2": lambda: Qwen2Config(**SIZE, num_key_value_heads=2, tie_word_embeddings=True),
    "qwen3": lambda: Qwen3Config(**SIZE, num_key_value_heads=2, head_dim=8),
    "gpt2": lambda: GPT2Config(vocab_size=V, n_embd=16, n_layer=2, n_head=2, n_positions=32, eos_token_id=EOS, bos_token_id=EOS),
}  # fmt: skip
FAST = [name for name in CONFIGS if name != "gpt2"]


def policy_of(config: Any, temperature: float = 1.0, sharp: float = 4.0, max_new: int = 6) -> LanguageModel:
    with Stream(3, "weights").fork():
        model = AutoModelForCausalLM.from_config(config)
        with torch.no_grad():  # far from uniform, so that mistakes show
            for p in model.parameters():
                p.mul_(sharp) if p.dim() > 1 else p.add_(0.1 * torch.randn(p.shape))
    return LanguageModel(model, eos=EOS, pad=PAD, max_new=max_new, temperature=temperature)


def texts(equal: bool = False) -> tuple[dict[str, torch.Tensor], torch.Tensor, torch.Tensor]:
    """Nine answers of lengths 1..6 to four prompts, shared by 3, 1, 4 and 1 of them, not in order."""
    g = torch.Generator().manual_seed(5)
    prompts, lengths = torch.randint(2, V, (4, 7), generator=g), [7, 3, 5, 5]
    real = torch.ones(4, 7) if equal else torch.tensor([[0.0] * (7 - n) + [1.0] * n for n in lengths])
    which = torch.tensor([2, 0, 0, 2, 1, 2, 0, 3, 2])
    mask = torch.tensor([[1.0] * n + [0.0] * (6 - n) for n in (6, 1, 3, 2, 6, 4, 5, 1, 2)])
    action = torch.where(mask > 0, torch.randint(2, V, (9, 6), generator=g), PAD)
    ids = torch.where(real > 0, prompts, PAD)
    return {"ids": ids[which], "mask": real[which]}, action, mask


def plain(policy: LanguageModel) -> LanguageModel:
    other = copy.deepcopy(policy)
    other.fast = False
    return other


def reference(policy: LanguageModel, obs: Any, action: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities and entropies, one text at a time, without any padding."""
    logp, entropy = torch.zeros(mask.shape), torch.zeros(mask.shape)
    for i in range(len(mask)):
        n, prompt = int(mask[i].sum()), obs["ids"][i][obs["mask"][i] > 0]
        out = policy.model(torch.cat([prompt, action[i, :n]])[None]).logits[0, len(prompt) - 1 : -1] / policy.temperature
        d = torch.distributions.Categorical(logits=out)
        logp = logp.index_put((torch.tensor(i), torch.arange(n)), d.log_prob(action[i, :n]))
        entropy = entropy.index_put((torch.tensor(i), torch.arange(n)), d.entropy())
    return logp, entropy


def gradients(policy: LanguageModel, value: torch.Tensor) -> torch.Tensor:
    policy.zero_grad()
    value.backward()
    return torch.cat([p.grad.flatten() for p in policy.parameters()])


@pytest.mark.parametrize("name", CONFIGS)
def test_log_probabilities_entropies_and_gradients_are_those_of_single_texts(name: str) -> None:
    policy = policy_of(CONFIGS[name](), temperature=0.7)
    assert policy.fast == (name in FAST)
    for equal in (False, True):
        obs, action, mask = texts(equal)
        weight = torch.randn(2, *mask.shape, generator=torch.Generator().manual_seed(1))
        expected = reference(policy, obs, action, mask)
        want = gradients(policy, (weight[0] * expected[0] + weight[1] * expected[1]).sum())
        logp, entropy = policy.logp_entropy(obs, action, mask)
        torch.testing.assert_close(logp, expected[0], atol=5e-6, rtol=0)
        torch.testing.assert_close(entropy, expected[1], atol=5e-6, rtol=0)
        got = gradients(policy, (weight[0] * logp + weight[1] * entropy).sum())
        assert (got - want).norm() < 1e-5 * want.norm()
        assert torch.equal(policy.logp(obs, action, mask), logp)
        assert not logp[mask == 0].any()
        assert not entropy[mask == 0].any()


@pytest.mark.parametrize("name", ["llama grouped tied", "gpt2"])
def test_logits_hold_the_log_probabilities(name: str) -> None:
    policy = policy_of(CONFIGS[name](), temperature=1.3)
    obs, action, mask = texts()
    got = policy.logits(obs, action).log_softmax(-1).gather(2, action[..., None])[..., 0] * mask
    torch.testing.assert_close(got, policy.logp(obs, action, mask), atol=5e-6, rtol=0)


def test_pieces_of_the_vocabulary_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = policy_of(CONFIGS["qwen2"]())
    obs, action, mask = texts()
    found = []
    for chunk in (decoder.CHUNK, 4 * V):
        monkeypatch.setattr(decoder, "CHUNK", chunk)
        logp, entropy = policy.logp_entropy(obs, action, mask)
        found.append((logp, entropy, gradients(policy, (logp * entropy).sum())))
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["llama", "qwen2"])
def test_both_ways_of_attention_agree(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = policy_of(CONFIGS[name]())
    for same_length in (False, True):
        obs, action, mask = texts(same_length)
        found = []
        for small in (decoder.SMALL, 0):
            monkeypatch.setattr(decoder, "SMALL", small)
            logp = policy.logp(obs, action, mask)
            found.append((logp, gradients(policy, (logp**2).sum())))
        torch.testing.assert_close(found[0], found[1], atol=1e-4, rtol=1e-5)


def test_rows_padding_and_holes_in_the_mask_change_nothing() -> None:
    policy = policy_of(CONFIGS["llama grouped tied"]())
    obs, action, mask = texts()
    logp = policy.logp(obs, action, mask)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    shuffled = policy.logp({k: v[order] for k, v in obs.items()}, action[order], mask[order])
    torch.testing.assert_close(shuffled, logp[order], atol=5e-6, rtol=0)
    wide = {k: torch.cat([torch.zeros(9, 3, dtype=v.dtype), v], 1) for k, v in obs.items()}
    more = torch.cat([action, torch.zeros(9, 2, dtype=torch.long)], 1), torch.cat([mask, torch.zeros(9, 2)], 1)
    torch.testing.assert_close(policy.logp(wide, *more)[:, :6], logp, atol=5e-6, rtol=0)
    holes = mask.clone()
    holes[0, [0, 2, 3, 5]] = 0
    holes[7] = 0
    torch.testing.assert_close(policy.logp(obs, action, holes), logp * holes, atol=5e-6, rtol=0)


def test_the_fast_path_reads_each_prompt_once_and_no_padding() -> None:
    policy = policy_of(CONFIGS["llama"]())
    obs, action, mask = texts()
    seen: list[int] = []
    before = policy.logp(obs, action, mask)
    policy.model.model.layers[0].mlp.register_forward_hook(lambda m, inputs, out: seen.append(inputs[0].shape[0]))
    after = policy.logp(obs, action, mask)
    torch.testing.assert_close(after, before, atol=5e-6, rtol=0)  # a hook is served by the layers in torch
    assert seen == [7 + 3 + 5 + 5 + int((mask.sum(1) - 1).sum())]


@pytest.mark.parametrize("name", CONFIGS)
def test_sampled_log_probabilities_are_those_of_training(name: str) -> None:
    policy = policy_of(CONFIGS[name](), temperature=1.5, max_new=8)
    obs, _, _ = texts()
    for greedy in (False, True):
        tokens, mask, logp = policy.sample(obs, torch.Generator().manual_seed(2), greedy)
        torch.testing.assert_close(logp, policy.logp(obs, tokens, mask), atol=5e-6, rtol=0)
        ended = (tokens == EOS) & (mask > 0)
        assert (ended.sum(1) <= 1).all()
        assert tokens.shape == mask.shape
        assert 1 <= tokens.shape[1] <= 8
        assert (mask.diff(dim=1) <= 0).all()
        assert (tokens[mask == 0] == PAD).all()
        assert not logp[mask == 0].any()
        assert (ended.any(1) | (mask.sum(1) == 8)).all()  # an answer stops at its end token or at the limit
        assert (ended.float() * mask.cumsum(1)).sum(1)[ended.any(1)].eq(mask.sum(1)[ended.any(1)]).all()
        assert mask[:, -1].any()  # T is the longest produced
        if greedy:
            z = policy.logits(obs, tokens)
            assert torch.equal(z.argmax(-1)[mask > 0], tokens[mask > 0])
    assert torch.equal(
        policy.act(obs, torch.Generator().manual_seed(2))[0], policy.sample(obs, torch.Generator().manual_seed(2))[0]
    )


def test_samples_do_not_depend_on_rows_leaving_nor_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = policy_of(CONFIGS["llama grouped tied"](), temperature=2.0, max_new=20)
    obs = {k: v.repeat(6, 1) for k, v in texts()[0].items()}
    draws, kept = [], []
    keep = decoding.Cached.keep
    monkeypatch.setattr(decoding.Cached, "keep", lambda self, rows: (kept.append(len(rows)), keep(self, rows))[1])
    draws.append(policy.sample(obs, torch.Generator().manual_seed(4)))
    monkeypatch.setattr(native, "library", None)
    for leave in (0.0, 0.75, 1.0):
        monkeypatch.setattr(decoding.Cached, "leave", leave)
        draws.append(policy.sample(obs, torch.Generator().manual_seed(4)))
    for leave in (0.0, 0.75, 1.0):
        monkeypatch.setattr(decoding.Plain, "leave", leave)
        draws.append(plain(policy).sample(obs, torch.Generator().manual_seed(4)))
    assert kept
    assert draws[0][1].sum(1).unique().numel() > 3  # rows really end at different times
    for tokens, mask, logp in draws[1:]:
        assert torch.equal(tokens, draws[0][0])
        assert torch.equal(mask, draws[0][1])
        torch.testing.assert_close(logp, draws[0][2], atol=5e-6, rtol=0)


def test_frequencies_are_the_probabilities() -> None:
    policy = policy_of(CONFIGS["qwen3"](), temperature=0.8, max_new=2)
    obs = {k: v[:1].repeat(20_000, 1) for k, v in texts()[0].items()}
    tokens, _, _ = policy.sample(obs, torch.Generator().manual_seed(0))
    p = policy.logits({k: v[:1] for k, v in obs.items()}, tokens[:1, :1])[0, 0].softmax(-1)
    counts = tokens[:, 0].bincount(minlength=V).float()
    chi2 = ((counts - 20_000 * p) ** 2 / (20_000 * p)).sum()
    assert chi2 < 29.6  # 99.9 % quantile at 10 degrees of freedom
    wrong = policy.logits({k: v[:1] for k, v in obs.items()}, tokens[:1, :1])[0, 0].mul(0.8).softmax(-1)  # temperature 1
    assert ((counts - 20_000 * wrong) ** 2 / (20_000 * wrong)).sum() > 29.6


def test_the_cdf_is_inverted_exactly() -> None:
    probs = torch.tensor([0.0, 0.5, 0.0, 0.25, 0.25, 0.0]).repeat(6, 1)
    uniform = torch.tensor([0.0, 0.4999, 0.5, 0.7499, 0.75, 1 - 2**-24])
    assert generation.invert(probs, uniform).tolist() == [1, 1, 3, 3, 4, 4]


def test_dropout_is_never_on() -> None:
    policy = policy_of(GPT2Config(vocab_size=V, n_embd=16, n_layer=1, n_head=2, n_positions=32, resid_pdrop=0.5, embd_pdrop=0.5))
    obs, action, mask = texts()
    one = policy.logp(obs, action, mask)
    assert not policy.train().training
    assert not any(m.training for m in State(policy=policy).train().policy.modules())
    assert torch.equal(policy.logp(obs, action, mask), one)


def test_a_model_that_differs_takes_the_plain_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder, "rotate", lambda x, cos, sin: x)
    with pytest.warns(UserWarning, match="differs from the plain one"):
        policy = policy_of(CONFIGS["llama"]())
    assert not policy.fast
    assert not decoder.fits(AutoModelForCausalLM.from_config(MistralConfig(**SIZE, num_key_value_heads=2, sliding_window=3)))


@pytest.mark.parametrize("name", ["llama grouped tied", "gpt2"])
def test_the_critic_starts_at_zero_and_sees_only_what_came_before(name: str) -> None:
    policy = policy_of(CONFIGS[name]())
    critic = TokenValue(policy, Stream(0))
    obs, action, mask = texts()
    assert not critic.value(obs, action, mask).any()
    with torch.no_grad():
        critic.head.weight.normal_(generator=torch.Generator().manual_seed(0))
    value = critic.value(obs, action, mask)
    assert value.shape == mask.shape
    assert not value[mask == 0].any()
    assert value[mask > 0].all()
    changed = action.clone()
    changed[:, 2:] = 3
    other = critic.value(obs, changed, mask)
    torch.testing.assert_close(other[:, :3], value[:, :3], atol=5e-6, rtol=1e-5)
    assert not torch.allclose(other[:, 3:], value[:, 3:])
    slow = copy.deepcopy(critic)
    slow.fast = False
    torch.testing.assert_close(slow.value(obs, action, mask), value, atol=2e-5, rtol=1e-5)
    assert {id(p) for p in critic.parameters()}.isdisjoint(id(p) for p in policy.parameters())


# ------------------------------------------------------------------------------- building, warm-up, saving


class Tokenizer(SimpleNamespace):
    def __len__(self) -> int:
        return self.size


@dataclass(frozen=True)
class Echo(Language):
    """Answer the prompt's last digit."""

    size: int = V
    end: int | None = EOS
    steps: int = 0
    broken: str = ""
    max_new: int = 3

    @property
    def tokenizer(self) -> Any:
        return Tokenizer(eos_token_id=self.end, pad_token_id=PAD, size=self.size)

    def prompts(self, count: int, generator: torch.Generator) -> Prompts:
        ids = torch.randint(2, V, (count, 3), generator=generator)
        return Prompts(ids, torch.ones_like(ids), ids @ torch.tensor([V * V, V, 1]))

    def score(self, prompts: Prompts, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        right = (tokens[:, 0] == prompts.ids[:, -1]).float()
        if self.broken == "nan":
            right[3] = torch.nan
        return right[:-1] if self.broken == "shape" else right

    def config(self) -> Any:
        return LlamaConfig(**SIZE, num_key_value_heads=2)

    def teach(self, count: int, generator: torch.Generator) -> tuple[Prompts, torch.Tensor, torch.Tensor]:
        prompts = self.prompts(count, generator)
        tokens = torch.stack([prompts.ids[:, -1], torch.full((count,), EOS)], 1)
        return prompts, tokens, torch.ones(count, 2)

    @property
    def warmup(self) -> Warmup | None:
        return Warmup(self.teach, self.steps, batch=32, lr=1e-2, warm=5) if self.steps else None

    def evaluate(self, policy: Any, rng: Stream) -> dict[str, float]:
        prompts = self.prompts(256, rng.torch())
        tokens, mask = policy.act({"ids": prompts.ids, "mask": prompts.mask}, rng.torch(), greedy=True)
        return {"accuracy": float(self.score(prompts, tokens, mask).mean())}


def weights(policy: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in policy.state_dict().items()}


def equal(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[k], two[k]) for k in one) and one.keys() == two.keys()


def test_warm_up_teaches_and_the_cache_gives_the_same_weights(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEEPEST_CACHE", str(tmp_path))
    problem, before = Echo(steps=60), torch.get_rng_state()
    made = language_policy(problem, Stream(0, "init"))
    assert problem.evaluate(made, Stream(1))["accuracy"] > 0.6  # chance is 1 in 9
    (file,) = tmp_path.iterdir()
    monkeypatch.setattr("steepest.models.warmup.warm_up", lambda *_: pytest.fail("trained although it was stored"))
    assert equal(weights(language_policy(problem, Stream(0, "init"))), weights(made))
    monkeypatch.undo()
    monkeypatch.setenv("STEEPEST_CACHE", str(tmp_path))
    for damage in (lambda: file.write_bytes(file.read_bytes()[:-7]), lambda: file.write_bytes(b""), file.unlink):
        damage()
        assert equal(weights(language_policy(problem, Stream(0, "init"))), weights(made))
    assert [path.name for path in tmp_path.iterdir()] == [file.name]
    for other in (Echo(steps=61), Echo(steps=60, max_new=4)):
        language_policy(other, Stream(0, "init"))
    language_policy(problem, Stream(1, "init"))
    assert len(list(tmp_path.iterdir())) == 4
    assert torch.equal(torch.get_rng_state(), before)
    monkeypatch.setenv("STEEPEST_CACHE", os.devnull + "/nowhere")
    assert equal(weights(language_policy(problem, Stream(0, "init"))), weights(made))


def test_a_key_that_names_an_address_is_not_stored(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEEPEST_CACHE", str(tmp_path))
    cached(policy_of(CONFIGS["llama"]()), Warmup(Echo().teach, 1), f"{object()!r}", Stream(0))
    assert not list(tmp_path.iterdir())


def test_the_learning_rate_rises_and_falls_linearly() -> None:
    plan = Warmup(Echo().teach, steps=10, lr=1.0, warm=4, floor=0.1)
    torch.testing.assert_close([plan.rate(s) for s in (0, 3, 9)], [0.25, 1.0, 0.1])
    falls = [plan.rate(s) - plan.rate(s + 1) for s in range(3, 9)]
    torch.testing.assert_close(falls, [0.15] * 6)


def test_maximum_likelihood_step_is_adams() -> None:
    policy = policy_of(CONFIGS["llama"]())
    twin, problem, plan = copy.deepcopy(policy), Echo(), Warmup(Echo().teach, 1, batch=8, warm=1, lr=1e-2)
    warm_up(policy, plan, Stream(9))
    prompts, tokens, mask = problem.teach(8, (Stream(9) / 0).torch())
    nll = -reference(twin, {"ids": prompts.ids, "mask": prompts.mask}, tokens, mask)[0].sum() / 16
    optimizer = torch.optim.AdamW(twin.parameters(), 1e-2, betas=(0.9, 0.98))
    nll.backward()
    torch.nn.utils.clip_grad_norm_(twin.parameters(), 1.0)
    optimizer.step()
    for one, two in zip(policy.parameters(), twin.parameters(), strict=True):
        assert (one - two).abs().max() < 1e-4


@pytest.mark.parametrize("name", ["qwen3", "llama grouped tied", "gpt2"])
def test_an_exported_model_is_a_transformers_model(name: str, tmp_path: Any) -> None:
    policy = policy_of(CONFIGS[name]())
    policy.export(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path, use_safetensors=True)
    assert equal(weights(again), weights(policy.model))
    read = language_policy(Echo(), Stream(0), model=str(tmp_path), temperature=0.5)
    assert read.temperature == 0.5
    assert equal(weights(read), weights(policy))
    fresh = language_policy(Echo(), Stream(0), model=str(tmp_path / "config.json"))
    assert type(fresh.model) is type(policy.model)
    assert not equal(weights(fresh), weights(policy))
    assert equal(weights(fresh), weights(language_policy(Echo(), Stream(0), model=str(tmp_path / "config.json"))))


def test_a_policy_is_saved_and_restored_bitwise() -> None:
    policy = policy_of(CONFIGS["llama grouped tied"]())
    other = policy_of(CONFIGS["llama grouped tied"](), sharp=1.0)
    other.load_state_dict(policy.state_dict())
    obs, action, mask = texts()
    assert torch.equal(other.logp(obs, action, mask), policy.logp(obs, action, mask))


def test_what_cannot_work_is_refused() -> None:
    with pytest.raises(ValueError, match="no end token"):
        language_policy(Echo(end=None), Stream(0))
    with pytest.raises(ValueError, match=r"knows 11 tokens, Echo\.tokenizer makes 99"):
        language_policy(Echo(size=99), Stream(0))
    with pytest.raises(ValueError, match="temperature must be positive, not 0"):
        language_policy(Echo(), Stream(0), temperature=0.0)
    policy = policy_of(CONFIGS["llama"](), max_new=6)
    obs = {"ids": torch.full((1, 27), 3), "mask": torch.ones(1, 27)}
    with pytest.raises(ValueError, match="27 tokens and 6 of answer exceed the model's context of 32"):
        policy.sample(obs, torch.Generator())
    obs["mask"][0, :1] = 0
    policy.sample(obs, torch.Generator())


# ----------------------------------------------------------------------------------------- collecting


def test_generate_makes_groups_and_scores_them() -> None:
    problem, policy = Echo(), language_policy(Echo(), Stream(0))
    state = State(policy=policy)
    batch = generate(prompts=5, group=3)(state, problem, Stream(7)).check()
    assert len(batch) == 15
    assert batch.logp is None
    drawn = problem.prompts(5, (Stream(7) / "prompts").torch())
    assert torch.equal(batch.obs["ids"], drawn.ids.repeat_interleave(3, 0))
    assert torch.equal(batch.key, drawn.key.repeat_interleave(3))
    assert torch.equal(batch.score, (batch.action[:, 0] == batch.obs["ids"][:, -1]).float())
    last = batch.mask.sum(1).long() - 1
    assert torch.equal(batch.reward.gather(1, last[:, None])[:, 0], batch.score)
    assert (batch.reward != 0).sum() == batch.score.sum()
    cut = [EOS not in row[: int(n)].tolist() for row, n in zip(batch.action, batch.length, strict=True)]
    assert batch.info["truncated"] == pytest.approx(sum(cut) / 15)
    again = generate(prompts=5, group=3)(state, problem, Stream(7))
    assert torch.equal(again.action, batch.action)
    assert not batch.action.requires_grad


def test_bad_scores_and_sizes_are_refused() -> None:
    state = State(policy=language_policy(Echo(), Stream(0)))
    with pytest.raises(ValueError, match=r"Echo\.score gave nan for answer 3 \(1 of 8"):
        generate(prompts=2, group=4)(state, Echo(broken="nan"), Stream(0))
    with pytest.raises(ValueError, match=r"Echo\.score must give one number for each of 8 answers, not a tensor of shape \[7\]"):
        generate(prompts=2, group=4)(state, Echo(broken="shape"), Stream(0))
    with pytest.raises(ValueError, match="group must be at least 1"):
        collecting.generate(prompts=2, group=0)
