"""What is said and probed before the first step, and what is warned of while a run goes on: each with the fault that it catches."""

import re
from functools import partial

import pytest
import torch
from rich.console import Console

from steepest.app.loud import PATIENCE, Alarms, Unsound, probe, sizes
from steepest.core import Stream
from steepest.core.batch import Batch
from steepest.core.check import check_system
from steepest.engines.policy_gradient import PolicyObjective
from steepest.losses import clip, constant_norm, k3, sequence_mean, sequence_sum, squared_clip, token_mean
from steepest.models.build import actor_state
from steepest.optimize.epochs import epochs
from steepest.problems.language import AddCliff
from steepest.systems.reasoning.grpo import grpo

PROBLEM = AddCliff(warm=5)


@pytest.fixture(scope="module")
def state():
    return actor_state(PROBLEM, Stream(0), lr=1e-3, reference=True)


class Faulty:
    """A policy, one of whose methods is another one."""

    def __init__(self, policy, **other):
        self.policy, self.other = policy, other

    def __getattr__(self, name):
        return self.other[name] if name in self.other else getattr(self.policy, name)


class Holder:
    def __init__(self, policy):
        self.policy, self.device = policy, torch.device("cpu")


def probed(policy, problem=PROBLEM):
    console = Console(record=True, width=200, file=open("/dev/null", "w"))  # noqa: SIM115
    probe(problem, Holder(policy), 0, console)
    return console.export_text()


# ------------------------------------------------------------------------------------ before


def test_a_sound_model_passes_and_an_answer_is_shown_with_its_reward(state):
    before = torch.get_rng_state()
    weights = [p.clone() for p in state.policy.parameters()]
    text = probed(state.policy)
    assert [line.split()[0] for line in text.splitlines()] == ["prompt", "answer", "reward"]
    assert "=" in text.splitlines()[0]
    assert float(text.splitlines()[2].split()[1]) in (0.0, 1.0)
    assert probed(state.policy) == text
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(weights, state.policy.parameters(), strict=True))


def test_a_sampler_of_another_temperature_is_caught(state):
    def sample(obs, generator, greedy=False):
        tokens, mask, logp = state.policy.sample(obs, generator)
        return tokens, mask, 2 * logp

    with pytest.raises(Unsound, match=r"the sampler gave and the trainer computes differ by .* the ratio is not 1 before"):
        probed(Faulty(state.policy, sample=sample))


def test_rows_that_look_at_one_another_are_caught(state):
    def logp(obs, action, mask):
        return state.policy.logp(obs, action, mask) * (1 if len(mask) == 16 else 1.1)

    with pytest.raises(Unsound, match="half a batch and the whole one give differ"):
        probed(Faulty(state.policy, logp=logp))


def test_a_sampler_without_chance_is_caught_and_a_policy_that_is_sure_is_not(state):
    def sample(obs, generator, greedy=False):
        tokens, mask, logp = (x[::4].repeat_interleave(4, 0) for x in state.policy.sample(obs, generator))
        return tokens, mask, logp

    with pytest.raises(Unsound, match="the 4 answers to each of 4 prompts are the same, which has a chance of e"):
        probed(Faulty(state.policy, sample=sample))

    def sure(obs, generator, greedy=False):
        tokens, mask, logp = sample(obs, generator)
        return tokens, mask, 0 * logp

    probed(Faulty(state.policy, sample=sure, logp=lambda obs, action, mask: 0 * mask))


def test_a_tokenizer_that_loses_what_it_reads_is_caught(state):
    class Spaced:
        """Puts blanks between symbols, as tokenizers without a decoder do."""

        eos_token_id, pad_token_id = PROBLEM.tokenizer.eos_token_id, PROBLEM.tokenizer.pad_token_id

        def decode(self, ids):
            return " ".join(PROBLEM.tokenizer.decode([n]) for n in ids)

        def __call__(self, text, **options):
            return PROBLEM.tokenizer(text, **options)

    class Bad(AddCliff):
        tokenizer = Spaced()

    with pytest.raises(Unsound, match=r"the tokenizer reads back .* where the prompt is"):
        probed(state.policy, Bad(warm=5))


def test_a_step_is_told_in_numbers(state):
    options = {"prompts": 16, "group": 8, "minibatches": 2, "epochs": 3, "micro": 10}
    told = dict(sizes(options, PROBLEM, state))
    tokens = 128 * PROBLEM.max_new
    assert told["a step"] == (
        f"16 prompts x 8 answers = 128, at most {tokens:,} tokens; 6 updates of 64 answers in 7 micro-batches"
    )
    count = sum(p.numel() for p in state.policy.parameters())
    assert told["memory"].startswith(f"{2 * 4 * count / 2**20:,.1f} MiB for weights and memories, {3 * 4 * count / 2**20:,.1f} MiB")
    assert [name for name, _ in sizes({"envs": 8}, PROBLEM, state)] == ["memory"]


# ------------------------------------------------------------------------------------ while it runs


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"skipped": 1.0, "score": 0.0}, r"no learning signal: .* \(score 0\).* Try easier prompts"),
        ({"truncated": 0.75}, "75% of the answers are cut off .* Raise max_new"), ({"kl": 0.8}, "KL 0.8 nats .* Try a lower"),
        ({"clipped": 0.6}, "60% clipped"), ({"reward_failures": 3.0}, "3 calls of the reward failed"),
    ],
)  # fmt: skip
def test_a_fault_that_lasts_is_told_once_with_its_cause(row, said):
    alarms, fine = Alarms(), {"score": 0.5, "kl": 0.01, "clipped": 0.1, "truncated": 0.2, "reward_failures": 0.0}
    assert [alarms.look(fine | row) for _ in range(PATIENCE - 1)] == [[]] * (PATIENCE - 1)
    assert alarms.look(fine) == []  # it did not last
    told = [text for _ in range(3 * PATIENCE) for text in alarms.look(fine | row)]
    assert len(told) == 1
    assert re.search(said, told[0])


def test_entropy_is_compared_with_its_beginning():
    alarms = Alarms()
    assert not any(alarms.look({"entropy": x}) for x in (2.0, 1.0, 0.5, *[0.2] * 20))
    told = [text for _ in range(20) for text in alarms.look({"entropy": 0.01})]
    assert len(told) == 1
    assert "from 2 to 0.01 nats" in told[0]


# ------------------------------------------------------------------------------------ accumulation, resumption


@pytest.mark.parametrize("reduce", [token_mean, sequence_mean, sequence_sum, constant_norm(7.0)])
@pytest.mark.parametrize("micro", [1, 5])
def test_the_gradient_of_a_large_batch_is_that_of_its_parts(reduce, micro):
    """With the clipped ratio, a KL to the reference and a critic, on a language model."""
    grads = []
    for size in (None, micro):
        state = actor_state(PROBLEM, Stream(0), lr=1e-3, reference=True, critic=True)
        torch.nn.init.normal_(state.critic.head.weight, generator=Stream(1).torch())
        asked = PROBLEM.prompts(12, Stream(2).torch())
        obs = {"ids": asked.ids, "mask": asked.mask}
        action, mask, logp = state.policy.sample(obs, Stream(3).torch())
        draw = Stream(4).torch()
        old, advantage, value, target = (torch.randn(mask.shape, generator=draw) * mask for _ in range(4))
        batch = Batch(
            obs, action, logp + 0.3 * old, torch.zeros_like(mask), mask, asked.key, advantage=advantage, value=value, target=target
        )
        objective = PolicyObjective(clip() + 0.04 * k3() + 0.5 * squared_clip(width=0.2), reduce)
        with torch.no_grad():
            next(state.reference.parameters()).mul_(1.1)
        epochs(1, micro=size, max_norm=float("inf"))(state, objective, batch, Stream(0))
        grads.append([p.grad.clone() for p in (*state.policy.parameters(), *state.critic.parameters()) if p.grad is not None])
    assert len(grads[0]) == len(grads[1]) > 20
    scale = max(float(x.abs().max()) for x in grads[0])
    assert scale > 1e-3
    assert max(float((a - b).abs().max()) for a, b in zip(*grads, strict=True)) < 1e-6 * max(1.0, scale)


def test_a_run_resumes_bitwise_where_several_updates_share_an_answer():
    make = partial(grpo, prompts=3, group=4, lr=1e-3, epochs=2, minibatches=2, micro=4)
    assert any("resume is bitwise" in law for law in check_system(make, partial(AddCliff, warm=30), half=1, fresh=False))
