"""Adapters, mixed precision, gradient checkpointing and accumulation: what each may change and what not."""

import copy
from functools import partial

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig

from steepest.core import Stream, train
from steepest.core.check import check_system
from steepest.core.save import restore, save
from steepest.core.system import begin
from steepest.models.adapters import Base, merged
from steepest.models.build import actor_state
from steepest.models.language import LanguageModel, language_policy
from steepest.models.precision import Head, recompute
from steepest.models.weights import Weights, hf
from steepest.problems.language import AddCliff
from steepest.problems.single_turn import Questions
from steepest.systems.reasoning.grpo import grpo

SIZE = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
PROBLEM = AddCliff(warm=5)


@pytest.fixture
def folder(tmp_path):
    """Weights of a tiny model that knows the problem's symbols."""
    config = LlamaConfig(**SIZE, vocab_size=len(PROBLEM.tokenizer), max_position_embeddings=64, tie_word_embeddings=True)
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "model")
    return str(tmp_path / "model")


def printables(question, completion, answer):
    return sum(letter.isascii() for letter in completion) / 8


def even():
    return Questions([("a", "1"), ("bc", "2")], printables, max_new=8, seconds=None)


def policy_of(weights):
    return language_policy(PROBLEM, Stream(0), model=weights)


def texts(policy, count=6, seed=0):
    """Prompts with an answer each."""
    asked = PROBLEM.prompts(count, Stream(seed).torch())
    obs = {"ids": asked.ids, "mask": asked.mask}
    return obs, *policy.sample(obs, Stream(seed, "tokens").torch())[:2]


def gradient(policy, batch):
    policy.zero_grad()
    obs, action, mask = batch
    weight = torch.linspace(-1, 1, mask.numel()).reshape(mask.shape)
    logp, entropy = policy.logp_entropy(obs, action, mask)
    (weight * logp + 0.1 * entropy).sum().backward()
    return {name: p.grad.clone() for name, p in policy.named_parameters() if p.grad is not None}


def stir(policy):
    """Adapters that do something."""
    with torch.no_grad():
        for name, p in policy.named_parameters():
            if "lora_B" in name:
                p.copy_(0.1 * torch.randn(p.shape, generator=Stream("stir", name).torch()))


# ------------------------------------------------------------------------------------ adapters

lora = pytest.mark.usefixtures("needs_peft")


@pytest.fixture
def needs_peft():
    pytest.importorskip("peft")


@lora
def test_adapters_begin_at_the_model_and_are_all_that_is_trained(folder):
    plain, policy = policy_of(folder), policy_of(hf(path=folder, lora=4))
    batch = texts(plain)
    torch.testing.assert_close(plain.logp(*batch), policy.logp(*batch), atol=1e-5, rtol=0)  # the plain one by the kernels
    assert policy.fast
    trained = [name for name, p in policy.named_parameters() if p.requires_grad]
    assert len(trained) == 2 * 7 * SIZE["num_hidden_layers"]  # A and B of every linear layer, the head not
    assert all("lora_" in name for name in trained)
    assert gradient(policy, batch).keys() == set(trained)
    few = policy_of(hf(path=folder, lora=2, alpha=8, targets=("q_proj", "v_proj")))
    assert sum(p.requires_grad for p in few.parameters()) == 2 * 2 * SIZE["num_hidden_layers"]
    again = policy_of(hf(path=folder, lora=4))
    assert all(torch.equal(a, b) for a, b in zip(policy.parameters(), again.parameters(), strict=True))


@lora
def test_the_fast_path_sees_the_adapters(folder):
    policy = policy_of(hf(path=folder, lora=4))
    batch = texts(policy)
    before = policy.logp(*batch)
    stir(policy)
    fast = policy.logp(*batch)
    policy.fast = False
    assert torch.allclose(fast, policy.logp(*batch), atol=1e-5)
    assert float((fast - before).detach().abs().max()) > 1e-3


@lora
def test_the_reference_is_the_model_with_the_adapters_off_and_no_copy_of_it(folder):
    make = partial(actor_state, PROBLEM, Stream(0), lr=1e-2, reference=True)
    state, plain = make(model=hf(path=folder, lora=4)), policy_of(folder)
    assert type(state.reference) is Base
    assert not list(state.reference.parameters())
    assert sum(p.numel() for p in state.parameters()) < 2 * sum(p.numel() for p in plain.parameters())
    stir(state.policy)
    batch = texts(state.policy)
    new = state.policy.logp(*batch)
    ref = state.reference.logp(*batch)  # while a gradient of the policy is under way
    torch.testing.assert_close(ref, plain.logp(*batch).detach(), atol=1e-5, rtol=0)
    assert torch.equal(state.reference.logits(*batch[:2]), plain.logits(*batch[:2]).detach())
    new.sum().backward()
    assert all(p.grad is not None for p in state.optimizers["policy"].param_groups[0]["params"])
    assert torch.equal(state.policy.logp(*batch), new)
    twin = copy.deepcopy(state)
    assert twin.reference.held[0] is twin.policy


@lora
def test_a_checkpoint_holds_the_adapters_and_refuses_other_frozen_weights(folder, tmp_path):
    state = actor_state(PROBLEM, Stream(0), lr=1e-2, model=hf(path=folder, lora=4), critic=True)
    kept = [name for name in state.state_dict() if "extra_state" not in name]
    assert all("lora_" in name or "fingerprint" in name or name.startswith("critic.head") for name in kept)
    stir(state.policy)
    save(tmp_path / "saved", state, {})
    other = actor_state(PROBLEM, Stream(1), lr=1e-2, model=hf(path=folder, lora=4), critic=True)
    restore(other, tmp_path / "saved")
    batch = texts(state.policy)
    assert torch.equal(state.policy.logp(*batch), other.policy.logp(*batch))
    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        model.model.norm.weight[0] += 1e-6
    model.save_pretrained(tmp_path / "another")
    wrong = actor_state(PROBLEM, Stream(1), lr=1e-2, model=hf(path=str(tmp_path / "another"), lora=4), critic=True)
    with pytest.raises(ValueError, match="adapters were trained on other frozen weights"):
        restore(wrong, tmp_path / "saved")


@lora
def test_peft_reads_what_is_exported_and_a_merged_model_is_a_plain_one(folder, tmp_path):
    import peft

    policy = policy_of(hf(path=folder, lora=4, alpha=16))
    stir(policy)
    obs, action, mask = texts(policy)
    policy.export(tmp_path / "adapters")
    assert not list((tmp_path / "adapters").glob("model*.safetensors"))  # the base is not written again
    read = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder), tmp_path / "adapters")
    whole = merged(policy)
    assert type(whole.model.layers[0].self_attn.q_proj) is nn.Linear
    whole.save_pretrained(tmp_path / "whole")
    plain = policy_of(str(tmp_path / "whole"))
    wanted = policy.logp(obs, action, mask)
    assert torch.allclose(plain.logp(obs, action, mask), wanted, atol=1e-5)
    plain.model, plain.fast = read.merge_and_unload(), False
    assert torch.allclose(plain.logp(obs, action, mask), wanted, atol=1e-5)
    assert policy.logp(obs, action, mask).requires_grad  # the policy itself is as it was


@lora
@pytest.mark.parametrize("options", [{}, {"bf16": True, "checkpointing": True}])
def test_a_run_with_adapters_resumes_bitwise_and_leaves_the_rest_alone(tmp_path, options):
    LlamaConfig(**SIZE, vocab_size=258, max_position_embeddings=64).save_pretrained(tmp_path)
    AutoModelForCausalLM.from_config(LlamaConfig.from_pretrained(tmp_path)).save_pretrained(tmp_path / "bytes")
    make = partial(grpo, prompts=2, group=4, lr=1e-2, model=hf(path=str(tmp_path / "bytes"), lora=2, **options))
    assert any("resume is bitwise" in law for law in check_system(make, even, half=2))
    system = make()
    state = begin(system, even())
    before = {name: p.clone() for name, p in state.policy.named_parameters()}
    for _ in train(system, even(), steps=3, state=state):
        pass
    moved = {name for name, p in state.policy.named_parameters() if not torch.equal(p, before[name])}
    assert moved
    assert all("lora_" in name for name in moved)


@lora
def test_adapters_where_there_is_nothing_to_adapt_are_refused(folder):
    with pytest.raises(ValueError, match="no adapters on nowhere: "):
        policy_of(hf(path=folder, lora=4, targets=("nowhere",)))


@pytest.mark.parametrize(
    ("options", "said"), [({"lora": -1}, "a rank"), ({"lora": 4, "alpha": 0}, "alpha positive"), ({"alpha": 3}, "give them a rank")]
)
def test_options_that_contradict_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        hf(**options)


# ------------------------------------------------------------------------------------ mixed precision


def test_in_bf16_the_layers_are_low_and_weights_head_and_log_probabilities_are_not(folder):
    plain, policy = policy_of(folder), policy_of(hf(path=folder, bf16=True))
    assert {p.dtype for p in policy.parameters()} == {torch.float32}
    seen = {}

    def note(name):
        return lambda module, inputs, out: seen.update({name: out.dtype})

    policy.model.model.layers[0].mlp.down_proj.register_forward_hook(note("layer"))
    policy.model.lm_head.register_forward_hook(note("head"))
    batch = texts(plain)
    logp, entropy = policy.logp_entropy(*batch)
    assert (logp.dtype, entropy.dtype, seen["layer"], seen["head"]) == (*[torch.float32] * 2, torch.bfloat16, torch.float32)
    gap = float((logp - plain.logp(*batch)).detach().abs().max())
    assert 0 < gap < 0.05
    assert type(policy.model.lm_head) is Head
    assert policy.model.lm_head.weight is policy.model.model.embed_tokens.weight  # still tied
    policy.fast = False
    assert torch.allclose(policy.logp(*batch), logp, atol=0.02)


def test_what_the_sampler_says_and_what_the_trainer_computes_agree_in_bf16(folder):
    policy = policy_of(hf(path=folder, bf16=True))
    asked = PROBLEM.prompts(16, Stream(0).torch())
    obs = {"ids": asked.ids, "mask": asked.mask}
    tokens, mask, logp = policy.sample(obs, Stream(1).torch())
    assert float((policy.logp(obs, tokens, mask) - logp).detach().abs().max()) < 0.05


def test_steps_that_bfloat16_weights_would_lose_are_kept(folder):
    policy = policy_of(hf(path=folder, bf16=True))
    before = policy.model.model.norm.weight.clone()
    optimizer = torch.optim.Adam(policy.parameters(), 1e-6)
    gradient(policy, texts(policy))
    optimizer.step()
    moved = policy.model.model.norm.weight
    assert not torch.equal(moved, before)
    assert torch.equal(moved.bfloat16(), before.bfloat16())  # a step of Adam at 1e-6 beside a weight of 1


@lora
def test_frozen_weights_are_kept_in_bf16_and_adapters_are_not(folder):
    policy = policy_of(hf(path=folder, lora=4, bf16=True))
    types = {name: p.dtype for name, p in policy.named_parameters()}
    assert {x for name, x in types.items() if "lora_" in name} == {torch.float32}
    assert {x for name, x in types.items() if "base_layer" in name} == {torch.bfloat16}
    assert types["model.model.embed_tokens.weight"] == torch.float32
    stir(policy)
    plain = policy_of(hf(path=folder, lora=4))
    stir(plain)
    batch = texts(plain)
    assert float((policy.logp(*batch) - plain.logp(*batch)).detach().abs().max()) < 0.05


def test_the_critic_computes_as_the_policy_does(folder):
    state = actor_state(PROBLEM, Stream(0), lr=1e-3, critic=True, model=hf(path=folder, bf16=True))
    nn.init.normal_(state.critic.head.weight, generator=Stream(0).torch())
    batch = texts(state.policy)
    low = state.critic.value(*batch)
    state.critic.lowered = False
    high = state.critic.value(*batch)
    assert low.dtype == torch.float32
    assert 0 < float((low - high).detach().abs().max()) < 0.2


# ------------------------------------------------------------------------------------ recomputation


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("options", [{}, {"lora": 4}])
def test_checkpointing_changes_no_gradient_and_keeps_less(folder, fast, options):
    if options:
        pytest.importorskip("peft")
    plain, policy = policy_of(hf(path=folder, **options)), policy_of(hf(path=folder, checkpointing=True, **options))
    plain.fast = policy.fast = fast
    for one in (plain, policy):
        stir(one)
    batch = texts(plain)
    kept = {}
    for name, one in (("plain", plain), ("again", policy)):
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x, sizes=sizes: sizes.append(x.numel()) or x, lambda x: x):
            one.logp(*batch)
        kept[name] = sum(sizes)
    assert kept["again"] < 0.6 * kept["plain"]
    a, b = gradient(plain, batch), gradient(policy, batch)
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], atol=1e-5, rtol=1e-4)


def test_checkpointing_works_with_any_model_and_leaves_dropout_off():
    config = GPT2Config(vocab_size=len(PROBLEM.tokenizer), n_embd=16, n_layer=2, n_head=2, n_positions=64)
    assert config.resid_pdrop > 0
    torch.manual_seed(0)
    network = AutoModelForCausalLM.from_config(config)
    made = partial(LanguageModel, eos=1, pad=0, max_new=8)
    plain, policy = made(network), made(copy.deepcopy(network))
    recompute(policy)
    batch = texts(plain)
    a, b = gradient(plain, batch), gradient(policy, batch)
    assert all(torch.allclose(a[name], b[name], atol=1e-6) for name in a)


# ------------------------------------------------------------------------------------ names


def test_the_command_line_says_how_a_model_is_trained():
    from steepest.app.options import coerce, options_of
    from steepest.app.plan import spoken

    said = {"model": "hf(path='some/model', lora=8, bf16=True)"}
    assert coerce(grpo, said) == {"model": Weights("some/model", 8, bf16=True)}
    assert coerce(grpo, {"model": "some/model"}) == {"model": "some/model"}
    assert coerce(grpo, {"model": None}) == {"model": None}
    assert "model" in {option.name for option in options_of(grpo, "grpo")}
    assert spoken(said, {"tokenizer_name": None}) == {"tokenizer_name": "some/model"}
    assert spoken({"model": "hf(lora=8)"}, {"tokenizer_name": None}) == {"tokenizer_name": None}
