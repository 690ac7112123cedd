"""Answers by whoever writes them: rows that come and go change nothing, prompts are read once, another engine is corrected for."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from steepest.collectors.generate import generate, mismatch, weights
from steepest.core import State, Stream, native
from steepest.core.generator import Answers
from steepest.engines.policy_gradient import policy_gradient
from steepest.losses import clip
from steepest.models import decoding, vllm
from steepest.models.generation import Own, write
from steepest.models.language import LanguageModel
from steepest.models.vllm import Receiver, Vllm, checksum

from .test_language_model import CONFIGS, EOS, PAD, Echo, plain, policy_of, texts

WAYS = {"kernels": "llama grouped tied", "heads' norms": "qwen3", "torch": "llama grouped tied", "plain": "qwen2", "gpt2": "gpt2"}
NATIVE, CACHED, PLAIN = decoding.Native, decoding.Cached, decoding.Plain
KINDS = {"kernels": NATIVE, "heads' norms": NATIVE, "torch": CACHED, "plain": PLAIN, "gpt2": PLAIN}


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[LanguageModel, type[Any]]:
    """A policy, and how it writes."""
    if KINDS[request.param] is decoding.Native and native.library is None:
        pytest.skip("the kernels were not built")
    if request.param == "torch":
        monkeypatch.setattr(native, "library", None)
    policy = policy_of(CONFIGS[WAYS[request.param]](), temperature=2.0, max_new=12)
    return plain(policy) if request.param == "plain" else policy, KINDS[request.param]


def prompts(times: int = 2, equal: bool = False) -> dict[str, torch.Tensor]:
    return {name: x.repeat(times, 1) for name, x in texts(equal)[0].items()}


def seed(number: int) -> torch.Generator:
    return torch.Generator().manual_seed(number)


@pytest.mark.parametrize("equal", [True, False])
def test_how_many_are_written_at_once_changes_no_answer(
    way: tuple[LanguageModel, type[Any]], equal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy, kind = way
    obs, at_once, step = prompts(equal=equal), [], kind.step
    monkeypatch.setattr(kind, "step", lambda self, token: (at_once.append(len(token)), step(self, token))[1])
    for greedy in (True, False):
        whole = Own()(policy, obs, seed(4), greedy)
        for rows in (1, 4, 7, 18):
            at_once.clear()
            some = Own(rows)(policy, obs, seed(4), greedy)
            assert max(at_once) <= rows
            assert torch.equal(some.tokens, whole.tokens)
            assert torch.equal(some.mask, whole.mask)
            torch.testing.assert_close(some.logp, whole.logp, atol=5e-6, rtol=0)
    assert whole.mask.sum(1).unique().numel() > 2


def test_places_are_filled_as_they_become_free(way: tuple[LanguageModel, type[Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    policy, kind = way
    obs, steps, step = prompts(4), [], kind.step
    monkeypatch.setattr(kind, "step", lambda self, token: (steps.append(len(token)), step(self, token))[1])
    tokens = int(Own(6)(policy, obs, seed(1)).mask.sum())
    taken = len(steps)
    assert taken < 1.7 * tokens / 6
    lots = sum(int(policy.sample({k: v[i : i + 6] for k, v in obs.items()}, seed(1))[1].shape[1]) for i in range(0, 36, 6))
    assert taken < lots  # what waiting for the longest of every six takes


def test_a_prompt_is_read_once_for_its_group(way: tuple[LanguageModel, type[Any]]) -> None:
    policy, kind = way
    if kind is decoding.Plain:
        policy = policy_of(CONFIGS["gpt2"](), max_new=5)
    ids = torch.tensor([[PAD, 2, 3], [4, 5, 6]]).repeat_interleave(8, 0)
    obs, read = {"ids": ids, "mask": (ids != PAD).long()}, []
    embedding = policy.model.get_input_embeddings()
    embedding.register_forward_hook(lambda module, inputs, out: read.append(inputs[0].shape))
    Own()(policy, obs, seed(0))
    assert read[0] in ((5,), (2, 3))  # both prompts, without padding or with it, once
    if kind is not decoding.Plain:
        read.clear()
        Own(3)(policy, obs, seed(0))  # groups are cut by the bound, and still
        lengths = sorted(len(x.flatten()) for x in map(torch.empty, read))
        assert sum(int(n in (2, 3)) for n in lengths) >= 2


def test_a_row_does_not_depend_on_its_neighbours_and_runs_repeat_bitwise(way: tuple[LanguageModel, type[Any]]) -> None:
    policy, _ = way
    obs = prompts()
    for rows in (None, 5):
        one, two = (Own(rows)(policy, obs, seed(2)) for _ in range(2))
        assert all(torch.equal(x, y) for x, y in zip(one, two, strict=True))
    order = torch.tensor([0, *reversed(range(1, 18))])
    other = policy.sample({name: x[order] for name, x in obs.items()}, seed(2))
    length = int(one.mask[0].sum())
    assert torch.equal(other[0][0, :length], one.tokens[0, :length])
    assert int(other[1][0].sum()) == length
    assert not torch.equal(policy.sample(obs, seed(3))[0], one.tokens)


def test_a_row_ends_at_its_own_limit(way: tuple[LanguageModel, type[Any]]) -> None:
    policy, _ = way
    obs = prompts()
    whole = policy.sample(obs, seed(4))
    limit = torch.arange(18) % 5 + 1
    for most in (None, 4):
        tokens, mask, logp = write(policy, obs, seed(4), most=most, limit=limit)
        assert tokens.shape[1] == 5
        cut = torch.arange(5) < limit[:, None]
        assert torch.equal(mask, whole[1][:, :5] * cut)
        assert torch.equal(tokens[mask > 0], whole[0][:, :5][mask > 0])
        torch.testing.assert_close(logp, whole[2][:, :5] * cut, atol=5e-6, rtol=0)
    for wrong in (torch.zeros(18, dtype=torch.long), torch.ones(3, dtype=torch.long)):
        with pytest.raises(ValueError, match="at least one token for each of 18 rows"):
            policy.sample(obs, seed(4), limit=wrong)


def test_a_cache_of_another_kind_is_never_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = plain(policy_of(CONFIGS["llama"](), temperature=2.0, max_new=8))
    whole = policy.sample(prompts(), seed(0))
    monkeypatch.setattr(decoding, "usual", lambda cache: False)
    for found in (policy.sample(prompts(), seed(0)), Own(4)(policy, prompts(), seed(0))):
        assert torch.equal(found[0], whole[0])
        torch.testing.assert_close(found[2], whole[2], atol=5e-6, rtol=0)


def test_no_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="rows must be at least 1, not 0"):
        Own(0)
    for cap in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="cap must be positive"):
            generate(cap=cap)


# ------------------------------------------------------------------------------------------ another engine


class Scripted:
    """What `Vllm` uses of ``vllm.LLM``, with a worker that answers by a policy of its own; temperature of its logits `off` the
    one that is asked for, to be another engine."""

    class Worker(Receiver):
        def __init__(self, policy: LanguageModel, lose: str):
            self.policy, self.lose = policy, lose
            self.model_runner = SimpleNamespace(model=self)

        def named_parameters(self) -> Iterator[tuple[str, torch.Tensor]]:
            return iter(self.policy.model.named_parameters())

        def load_weights(self, weights: Iterator[tuple[str, torch.Tensor]]) -> set[str]:
            mine = dict(self.named_parameters())
            with torch.no_grad():
                found = {name: mine[name].copy_(x) for name, x in weights if not self.lose or self.lose not in name}
            return set(found)

    def __init__(self, policy: LanguageModel, off: float = 1.0, lose: str = "", bits: int = 0):
        self.off, self.bits, self.asked, self.resets = off, bits, [], 0
        other = copy.deepcopy(policy)
        with torch.no_grad():
            for p in other.parameters():
                p.zero_()
        self.worker = self.Worker(other, lose)

    def collective_rpc(self, method: str, args: tuple[Any, ...]) -> list[int]:
        return [getattr(self.worker, method)(*args) ^ self.bits]

    def reset_prefix_cache(self) -> None:
        self.resets += 1

    def generate(self, asked: list[dict[str, Any]], sampling: list[dict[str, Any]], use_tqdm: bool) -> list[Any]:
        self.asked = list(zip(asked, sampling, strict=True))
        return [self.answer(torch.tensor([one["prompt_token_ids"]]), said) for one, said in self.asked]

    def answer(self, ids: torch.Tensor, said: dict[str, Any]) -> Any:
        policy = self.worker.policy
        policy.temperature = self.off * (said["temperature"] or 1.0)
        draw = {"obs": {"ids": ids, "mask": torch.ones_like(ids)}, "generator": seed(said["seed"])}
        tokens, _, logp = policy.sample(**draw, greedy=said["temperature"] == 0)
        assert said["stop_token_ids"] == [policy.eos]
        told = [{t: SimpleNamespace(logprob=p)} for t, p in zip(tokens[0].tolist(), logp[0].tolist(), strict=True)]
        return SimpleNamespace(outputs=[SimpleNamespace(token_ids=tuple(tokens[0].tolist()), logprobs=told)])


def test_the_engine_writes_with_the_policys_weights() -> None:
    policy = policy_of(CONFIGS["qwen2"](), temperature=1.5)
    engine, obs = Scripted(policy), prompts(1)
    writer = Vllm(engine, dict)
    for step in range(2):
        answers = writer(policy, obs, seed(step))
        torch.testing.assert_close(answers.logp, policy.logp(obs, answers.tokens, answers.mask), atol=5e-6, rtol=0)
        assert engine.resets == step + 1
        assert (answers.tokens[answers.mask == 0] == PAD).all()
        with torch.no_grad():  # a step of training: the next sync must bring it over
            for p in policy.parameters():
                p.mul_(1.1)
    assert [one["prompt_token_ids"] for one, _ in engine.asked] == [
        ids[real > 0].tolist() for ids, real in zip(obs["ids"], obs["mask"], strict=True)
    ]
    assert len({said["seed"] for _, said in engine.asked}) == len(obs["ids"])
    again = Vllm(Scripted(policy), dict)
    assert torch.equal(again(policy, obs, seed(7)).tokens, writer(policy, obs, seed(7)).tokens)
    greedy = writer(policy, obs, seed(7), greedy=True)
    assert torch.equal(greedy.tokens, policy.sample(obs, seed(0), greedy=True)[0])


def test_an_engine_with_other_weights_stops_the_run() -> None:
    policy = policy_of(CONFIGS["qwen2"]())
    with pytest.raises(RuntimeError, match=r"1 of 1 vLLM workers have other weights"):
        Vllm(Scripted(policy, bits=1), dict)(policy, prompts(1), seed(0))
    with pytest.raises(RuntimeError, match=r"no weights for 2 of the engine's, such as .*q_proj.weight"):
        Vllm(Scripted(policy, lose="q_proj.weight"), dict)(policy, prompts(1), seed(0))


def test_the_checksum_sees_one_bit_a_name_and_a_shape() -> None:
    held = {"a": torch.randn(3, 4, generator=seed(0)), "b": torch.ones(2, dtype=torch.bfloat16)}
    one = {name: x.clone() for name, x in held.items()}
    assert checksum(dict(reversed(one.items()))) == checksum(held)
    one["a"].view(torch.int32)[1, 2] ^= 1
    assert checksum(one) != checksum(held)
    assert checksum({"a": held["a"].view(4, 3), "b": held["b"]}) != checksum(held) != checksum({"c": held["a"], "b": held["b"]})


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (SimpleNamespace(token_ids=[3, 4], logprobs=None), "2 tokens and None log-probabilities"),
        (SimpleNamespace(token_ids=[], logprobs=[]), "0 tokens and 0 log-probabilities"),
        (SimpleNamespace(token_ids=[3, EOS, 4], logprobs=[{}, {}, {}]), "goes on after its end token 1"),
    ],
)
def test_what_the_engine_returns_is_checked(output: Any, message: str) -> None:
    policy = policy_of(CONFIGS["qwen2"]())
    engine = Scripted(policy)
    engine.answer = lambda ids, said: SimpleNamespace(outputs=[output])  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match=message):
        Vllm(engine, dict)(policy, prompts(1), seed(0))


def test_without_vllm_the_way_out_is_told() -> None:
    with pytest.raises(ImportError, match=r"pip install 'steepest\[vllm\]'"):
        vllm.start("nowhere")


def test_the_correction_makes_the_other_engines_answers_unbiased() -> None:
    """E_q[w f] = E_p[f] where nothing is cut, by enumeration; and it is cut where it should be."""
    p, q = torch.tensor([0.7, 0.2, 0.1]), torch.tensor([0.5, 0.3, 0.2])
    f = torch.tensor([1.0, -2.0, 5.0])
    every = Answers(torch.arange(3)[:, None], torch.ones(3, 1), q.log()[:, None])
    told, weight = mismatch(p.log()[:, None], every, 2.0), weights(p.log()[:, None], every, 2.0)
    torch.testing.assert_close((q * weight[:, 0] * f).sum(), (p * f).sum())
    assert not told["generator_truncated"]
    torch.testing.assert_close(weights(p.log()[:, None], every, 1.0)[:, 0], torch.tensor([1.0, 2 / 3, 0.5]))
    cut = mismatch(p.log()[:, None], every, 1.0)
    assert cut["generator_truncated"] == pytest.approx(1 / 3)
    assert cut["generator_ratio_max"] == pytest.approx(1.4)
    assert cut["generator_ratio"] == pytest.approx((1.4 + 2 / 3 + 0.5) / 3)
    assert "generator_truncated" not in mismatch(p.log()[:, None], every, None)
    absurd = weights(torch.full((1, 1), -1e4), Answers(torch.zeros(1, 1), torch.ones(1, 1), torch.zeros(1, 1)), 2.0)
    assert 0 <= float(absurd) < 1e-6


def run(generator: Any, **options: Any) -> tuple[Any, dict[str, Any]]:
    """The batch that the update sees, and the metrics, of one step of an engine."""
    problem, seen = Echo(), []
    policy = policy_of(CONFIGS["qwen2"](), max_new=3)
    state = State(policy=policy)

    def update(state: Any, objective: Any, batch: Any, rng: Any) -> dict[str, Any]:
        seen.append(batch)
        return {}

    system = policy_gradient(
        init=lambda problem, rng: state, collect=generate(prompts=3, group=4, generator=generator, **options),
        credit=lambda state, batch: torch.arange(1.0, 1.0 + len(batch))[:, None], loss=clip(), update=update,
    )  # fmt: skip
    return seen, system.learn(state, system.collect(state, problem, Stream(1, 0)).check(), Stream(1, 1))


def test_advantages_are_corrected_for_another_engine_and_left_alone_for_the_policy() -> None:
    (own,), told = run(None)
    assert own.logp is not None or "generator_ratio" not in told
    (bounded,), _ = run(Own(2))
    assert torch.equal(bounded.action, own.action)
    assert torch.equal(bounded.advantage, own.advantage)
    policy = policy_of(CONFIGS["qwen2"](), max_new=3)
    (same,), told = run(Vllm(Scripted(policy), dict))
    torch.testing.assert_close(same.advantage, torch.arange(1.0, 13.0)[:, None] * same.mask, atol=1e-4, rtol=0)
    assert told["generator_ratio"] == pytest.approx(1, abs=1e-5)
    assert not told["generator_truncated"]
    (off,), told = run(Vllm(Scripted(policy, off=3.0), dict), cap=1.5)
    policy.temperature = 3.0
    engine = policy.logp(off.obs, off.action, off.mask)
    policy.temperature = 1.0
    assert torch.equal(off.logp, policy.logp(off.obs, off.action, off.mask).detach())
    weight = (off.logp - engine).exp().clamp(max=1.5) * off.mask
    torch.testing.assert_close(off.advantage, torch.arange(1.0, 13.0)[:, None] * weight, atol=1e-3, rtol=1e-4)
    assert told["generator_truncated"] > 0
    assert told["generator_ratio_max"] > 1.5
    (left,), told = run(Vllm(Scripted(policy, off=3.0), dict), cap=None)
    assert torch.equal(left.advantage, torch.arange(1.0, 13.0)[:, None] * left.mask)
    assert "generator_truncated" not in told
