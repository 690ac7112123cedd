"""Methods with a critic on text: windows of answers, PPO with what keeps it steady, answers that are checked, rewriting."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch

from steepest.collectors.windows import kept, leftmost, windows
from steepest.core import Batch, Stream, begin, train
from steepest.core.check import check_system
from steepest.engines.policy_gradient import policy_gradient
from steepest.losses import clip
from steepest.models.build import answer_state
from steepest.problems.language import AddCliff
from steepest.systems.on_policy.ppo import ppo
from steepest.systems.reasoning import t_ppo as t_ppo_file
from steepest.systems.reasoning.t_ppo import t_ppo

SMALL = partial(AddCliff, width=2, least=1, warm=60, tests=32)
SIZES = {"prompts": 4, "group": 4, "lr": 1e-3}
PLAIN = {"discount": 1.0, "epochs": 1, "minibatches": 1, "max_grad_norm": float("inf")}


def after(system, steps=3, problem=SMALL):
    *_, last = train(system, problem(), steps=steps)
    return last.state


def flat(module):
    return torch.cat([p.detach().flatten() for p in module.parameters()])


# -------------------------------------------------------------------------------------------- T-PPO


def test_a_window_as_long_as_every_answer_is_ppo():
    ours = after(t_ppo(window=4, critic_lr=1e-3, decay=1.0, room=8, **PLAIN, **SIZES))
    plain = after(ppo(decay=1.0, value_weight=1.0, **PLAIN, **SIZES))
    for name in ("policy", "critic"):
        torch.testing.assert_close(flat(getattr(ours, name)), flat(getattr(plain, name)), atol=1e-6, rtol=0)
    shorter = after(t_ppo(window=2, critic_lr=1e-3, decay=1.0, room=8, **PLAIN, **SIZES))
    assert float((flat(shorter.policy) - flat(plain.policy)).abs().max()) > 1e-4


def followed(window, steps=9):
    """Batches of the collector under a policy that does not change, and the State."""
    system = kept(
        policy_gradient(
            init=partial(answer_state, lr=1e-3, temperature=2.0), collect=windows(window=window, prompts=3, group=3),
            credit=lambda state, batch: torch.zeros_like(batch.mask), loss=clip(),
        ), rows=9, room=8,
    )  # fmt: skip
    problem = SMALL()
    state = begin(system, problem)
    return problem, state, [system.collect(state, problem, Stream(0, step)).check() for step in range(steps)]


@pytest.mark.parametrize("window", [1, 2, 3])
def test_windows_join_to_whole_answers_and_no_token_stands_in_two(window):
    problem, state, batches = followed(window)
    written, ended = [[] for _ in range(9)], 0
    for batch in batches:
        assert int(batch.length.max()) <= window
        finished = batch.info["finished"]
        for row, said in enumerate(written):
            said += batch.action[row][batch.mask[row] > 0].tolist()
            whole = batch.action[row][batch.info["answered"][row] > 0]
            assert whole.tolist() == said
            if finished[row]:
                assert said[-1] == 1 or len(said) == problem.max_new
                said.clear()
            else:
                assert 1 not in said
                assert len(said) < problem.max_new
                assert not batch.reward[row].any()
        ended += int(finished.sum())
        if bool(finished.any()):
            asked = SimpleNamespace(key=batch.key[finished])
            score = problem.score(asked, batch.action[finished], batch.info["answered"][finished])
            last = batch.info["answered"][finished].sum(1).long() - 1
            assert torch.equal(batch.reward[finished].gather(1, last[:, None]).squeeze(1), score)
            assert torch.equal(batch.score[finished], score)
    assert ended > 9
    assert torch.equal(state.unfinished.mask[:, 0] == 0, batches[-1].info["finished"])


def test_an_answer_goes_on_from_what_was_written_of_it(monkeypatch):
    """The prompt that the policy is given is the question and what it said, with nothing between."""
    problem = SMALL()
    seen, made = [], followed(1, steps=1)
    state, first = made[1], made[2][0]
    sample = type(state.policy).sample
    monkeypatch.setattr(type(state.policy), "sample", lambda self, obs, *a, **k: (seen.append(obs), sample(self, obs, *a, **k))[1])
    windows(window=2, prompts=3, group=3)(state, problem, Stream(0, "next"))
    going = (~first.info["finished"]).nonzero().squeeze(1).tolist()
    assert len(going) > 3
    for row in going:
        text = seen[0]["ids"][row][seen[0]["mask"][row] > 0].tolist()
        assert text == [*first.obs["ids"][row].tolist(), int(first.action[row, 0])]


def test_padding_goes_to_the_left_wherever_it_stood():
    ids, mask = leftmost(torch.tensor([[0, 5, 0, 7], [1, 2, 3, 4]]), torch.tensor([[0, 1, 0, 1], [1, 1, 1, 1]]))
    assert ids.tolist() == [[0, 0, 5, 7], [1, 2, 3, 4]]
    assert mask.tolist() == [[0, 0, 1, 1], [1, 1, 1, 1]]


def window_batch(value, finished):
    """Two answers of five tokens, of which the last three were written now; the critic says `value`."""
    mask = torch.tensor([[0.0, 0, 1, 1, 1], [0, 0, 1, 1, 0]])
    last = mask.shape[1] - 1 - mask.flip(1).argmax(1)
    reward = torch.zeros(2, 5).scatter_(1, last[:, None], finished[:, None].float())
    critic = SimpleNamespace(value=lambda obs, action, mask: value * (mask > 0))
    state = SimpleNamespace(critic=critic)
    return state, Batch(None, mask.long(), None, reward, mask, torch.arange(2), info={"finished": finished}), last


def test_an_unfinished_answer_without_reward_under_a_constant_critic_has_no_advantage():
    state, batch, _ = window_batch(torch.full((2, 5), 0.7), torch.tensor([False, False]))
    assert not t_ppo_file.extended(1.0, 0.95)(state, batch).any()
    state, batch, _ = window_batch(torch.full((2, 5), 0.7), torch.tensor([True, False]))
    assert t_ppo_file.extended(1.0, 0.95)(state, batch).any()


@pytest.mark.parametrize(("discount", "decay"), [(1.0, 0.95), (0.9, 0.5)])
def test_advantages_of_a_window_by_a_plain_loop(discount, decay):
    value = torch.rand(2, 5, generator=torch.Generator().manual_seed(0))
    finished = torch.tensor([True, False])
    state, batch, last = window_batch(value, finished)
    wanted = torch.zeros(2, 5)
    for n in range(2):
        trace = 0.0
        for t in reversed(range(2, int(last[n]) + 1)):
            at_end = t == int(last[n])
            after = (0.0 if finished[n] else float(value[n, t])) if at_end else float(value[n, t + 1])
            trace = float(batch.reward[n, t]) + discount * after - float(value[n, t]) + discount * decay * trace
            wanted[n, t] = trace
    real = batch.mask > 0
    wanted = (wanted - wanted[real].mean()) / wanted[real].std(correction=0)
    got = t_ppo_file.extended(discount, decay)(state, batch)
    torch.testing.assert_close(got[real], wanted[real], atol=1e-5, rtol=0)


def test_the_critic_learns_from_ended_answers_alone():
    system = t_ppo(window=1, critic_lr=1e-2, room=8, **SIZES)
    problem, moved = SMALL(), []
    state = begin(system, problem)
    for step in range(5):
        rng, before = Stream(0, step), flat(state.critic)
        batch = system.collect(state, problem, rng / "collect")
        metrics = system.learn(state, batch, rng / "learn")
        moved.append(not torch.equal(flat(state.critic), before))
        ended = bool(batch.info["finished"].any())
        assert moved[-1] == ended == ("value_loss" in metrics)
    assert True in moved
    assert False in moved


def test_t_ppo_conforms():
    check_system(partial(t_ppo, window=2, critic_lr=1e-3, room=8, epochs=2, minibatches=2, **SIZES), SMALL)


@pytest.mark.parametrize(
    ("wrong", "fault"),
    [
        ({"window": 0}, "window must be at least 1, not 0"), ({"clip_range": 0.0}, "must be positive"),
        ({"critic_lr": 0.0}, "must be positive"), ({"decay": 1.1}, "must lie in"),
    ],
)  # fmt: skip
def test_t_ppo_refuses_before_any_work(wrong, fault):
    with pytest.raises(ValueError, match=fault):
        t_ppo(**wrong)


def test_a_prompt_without_room_says_so():
    with pytest.raises(ValueError, match=r"a prompt of 5 tokens does not fit the memory, which has room for 3: raise `room`"):
        list(train(t_ppo(window=2, room=3, **SIZES), SMALL(), steps=1))
