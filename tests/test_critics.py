"""Methods with a critic on text: windows of answers, PPO with what keeps it steady, answers that are checked, rewriting."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch

from steepest.collectors.windows import kept, leftmost, windows
from steepest.core import Batch, Stream, begin, train
from steepest.core.check import check_problem, check_system
from steepest.engines.policy_gradient import policy_gradient
from steepest.losses import clip
from steepest.models.build import answer_state
from steepest.problems.checked import SCORES, CheckedSum
from steepest.problems.flawed import FlawedJudge
from steepest.problems.language import AddCliff
from steepest.systems.on_policy.ppo import ppo
from steepest.systems.reasoning import ppo_max as ppo_max_file
from steepest.systems.reasoning import t_ppo as t_ppo_file
from steepest.systems.reasoning.ppo_max import ppo_max
from steepest.systems.reasoning.rise import rise
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


# -------------------------------------------------------------------------------------------- RISE

CHECKED = partial(CheckedSum, warm=200, tests=32)
ONE = {"epochs": 1, "minibatches": 1, "max_grad_norm": 1.0}


def test_checked_sums_obey_the_laws_of_problems():
    check_problem(CHECKED())


def test_scores_of_answers_and_of_verdicts_on_them():
    problem = CHECKED()
    prompts = problem.prompts(60, Stream(0).torch())
    right = problem.right(prompts.key)
    wrong = torch.where((right >= 2) & (right < 12), 2 + (right - 1) % 10, right)
    for said, score in ((right, 1.0), (wrong, -0.5), (right.masked_fill(right == 1, 2), -1.0), (right * 0 + 1, -1.0)):
        mask = ((said == 1).cumsum(1) - (said == 1).long() == 0).float()
        assert problem.score(prompts, said, mask).tolist() == [score] * 60
        asked = problem.to_check(prompts, said, mask)
        assert asked.ids.shape[1] == prompts.ids.shape[1] + problem.max_new + 1
        for verdict, wanted in zip(("right", "wrong", "unread"), SCORES, strict=True):
            tokens = torch.tensor([[problem.symbol(verdict), 1]]).expand(60, 2)
            given = problem.score(asked, tokens, torch.ones(60, 2))
            assert given.tolist() == [1.0 if wanted == score else -0.5] * 60
        for tokens in ([[2, 1]], [[problem.symbol("right"), 2]]):
            assert problem.score(asked, torch.tensor(tokens).expand(60, 2), torch.ones(60, 2)).tolist() == [-1.0] * 60
        assert problem.score(asked, torch.full((60, 1), problem.symbol("right")), torch.ones(60, 1)).tolist() == [-1.0] * 60


def test_the_teacher_doubts_as_often_as_it_says():
    problem = CHECKED()
    prompts, tokens, mask = problem.teach(4000, Stream(1).torch())
    judged = prompts.key >= problem.base
    assert int(judged.sum()) == 2000
    score = problem.score(prompts, tokens, mask)
    assert float((score[judged] == 1).float().mean()) == pytest.approx(1 - problem.doubt, abs=0.04)
    assert set(score[judged].tolist()) == {1.0, -0.5}


def test_verdicts_are_asked_on_answers_of_this_step():
    problem = CHECKED()
    system = rise(share=0.5, **ONE, **SIZES)
    batch = system.collect(begin(system, problem), problem, Stream(0)).check()
    judged = batch.key >= problem.base
    assert int(judged.sum()) == 8
    assert bool((~judged[:16]).all())
    given = {
        (int(key), tuple(row[row > 0][-problem.max_new - 1 : -1].tolist()))
        for key, row in zip(batch.key[judged] % problem.base, batch.obs["ids"][judged], strict=True)
    }
    asked = problem.to_check(
        SimpleNamespace(ids=batch.obs["ids"][:16], key=batch.key[:16]), batch.action[:16, : problem.max_new], batch.mask[:16]
    )
    own = {(int(k) % problem.base, tuple(x[-problem.max_new - 1 : -1].tolist())) for k, x in zip(asked.key, asked.ids, strict=True)}
    assert given <= own
    assert set(batch.key[judged].tolist()) <= set(asked.key.tolist())  # and their scores are the verifier's
    assert set(batch.score.tolist()) <= set(SCORES)


def test_without_verdicts_rise_is_ppo():
    ours, plain = (after(system, 2, CHECKED) for system in (rise(share=0.0, **ONE, **SIZES), ppo(
        discount=1.0, decay=1.0, **ONE, **SIZES)))  # fmt: skip
    assert torch.equal(flat(ours.policy), flat(plain.policy))
    other = after(rise(share=0.5, **ONE, **SIZES), 2, CHECKED)
    assert not torch.equal(flat(other.policy), flat(plain.policy))


def test_answers_that_are_all_alike_are_not_judged(monkeypatch):
    problem, system = CHECKED(), rise(share=1.0, **ONE, **SIZES)
    state = begin(system, problem)
    monkeypatch.setattr(CheckedSum, "score", lambda self, prompts, tokens, mask: torch.full((len(mask),), -0.5))
    assert len(system.collect(state, problem, Stream(0))) == 16


def test_rise_conforms():
    check_system(partial(rise, share=0.5, **ONE, **SIZES), CHECKED, half=1)


def test_rise_refuses_before_any_work():
    for share in (-0.1, 1.5):
        with pytest.raises(ValueError, match="share must lie in"):
            rise(share=share)
    with pytest.raises(TypeError, match="AddCliff cannot ask for verdicts"):
        list(train(rise(**ONE, **SIZES), SMALL(), steps=1))


# -------------------------------------------------------------------------------------------- PPO-max

OFF = {"reward_clip": None, "kl": 0.0, "value_clip": None, "critic_steps": 0}
SAME = {"critic_lr": 1e-3, "temperature": 1.0, "epochs": 2, "minibatches": 2, "max_grad_norm": 0.5, **SIZES}
WEIGHED = partial(FlawedJudge, width=2, least=1, warm=60, tests=32)


def test_ppo_max_with_all_switches_off_is_ppo():
    ours = after(ppo_max(**OFF, **SAME))
    plain = after(ppo(value_weight=1.0, discount=1.0, epochs=2, minibatches=2, **SIZES))
    for name in ("policy", "critic"):
        torch.testing.assert_close(flat(getattr(ours, name)), flat(getattr(plain, name)), atol=1e-6, rtol=0)


@pytest.mark.parametrize("on", [{"reward_clip": 0.5}, {"kl": 0.5}, {"value_clip": 0.01}, {"critic_steps": 1}])
def test_every_switch_changes_what_is_learned(on):
    ours, plain = (after(ppo_max(**OFF | extra, **SAME)) for extra in (on, {}))
    assert float((flat(ours.critic) - flat(plain.critic)).abs().max()) > 1e-5


def rewards_that_count(monkeypatch, problem, steps, **options):
    """Rewards as the critic's targets and the advantages see them, step by step, with the collected scores."""
    seen, plain = [], ppo_max_file.generalized

    def spied(discount, decay):
        credit = plain(discount, decay)
        return lambda state, batch: (seen.append(batch), credit(state, batch))[1]

    monkeypatch.setattr(ppo_max_file, "generalized", spied)
    system, problem, scores = ppo_max(**{**OFF, **options}, **SAME), problem(), []
    state = begin(system, problem)
    for step in range(steps):
        state.step = step
        batch = system.collect(state, problem, Stream(0, step) / "collect")
        scores.append(batch.score)
        system.learn(state, batch, Stream(0, step) / "learn")
    return scores, seen


def test_rewards_are_normalised_by_all_that_was_seen_and_stay_within_the_bound(monkeypatch):
    scores, seen = rewards_that_count(monkeypatch, WEIGHED, 4, reward_clip=0.8)
    for step, batch in enumerate(seen):
        told = torch.cat(scores[: step + 1])
        wanted = ((scores[step] - told.mean()) / told.std(correction=0)).clamp(-0.8, 0.8)
        torch.testing.assert_close(batch.score, wanted, atol=1e-4, rtol=0)
        last = batch.mask.sum(1).long() - 1
        assert torch.equal(batch.reward.gather(1, last[:, None]).squeeze(1), batch.score)  # and nothing before the last token
    assert max(float(batch.reward.abs().max()) for batch in seen) == pytest.approx(0.8)


def test_each_token_pays_for_leaving_the_reference_after_the_reward_is_normalised(monkeypatch):
    _, free = rewards_that_count(monkeypatch, WEIGHED, 1, reward_clip=0.8)
    monkeypatch.undo()
    _, seen = rewards_that_count(monkeypatch, WEIGHED, 3, reward_clip=0.8, kl=0.5)
    torch.testing.assert_close(seen[0].reward, free[0].reward, atol=1e-5, rtol=0)  # the policy is still the reference
    assert seen[0].info["kl_ref"] == pytest.approx(0.0, abs=1e-5)
    last = torch.zeros_like(seen[2].mask).scatter_(1, seen[2].mask.sum(1, keepdim=True).long() - 1, 1.0)
    assert float((seen[2].reward * (1 - last)).abs().max()) > 0


def test_the_critic_learns_alone_at_first():
    system, problem = ppo_max(**{**OFF, "critic_steps": 2}, **SAME), SMALL()
    state = begin(system, problem)
    for step in range(4):
        policy, critic = flat(state.policy), flat(state.critic)
        state.step = step
        system.learn(state, system.collect(state, problem, Stream(0, step) / "collect"), Stream(0, step) / "learn")
        assert torch.equal(flat(state.policy), policy) == (step < 2)
        assert not torch.equal(flat(state.critic), critic)


class Silent(AddCliff):
    def score(self, prompts, tokens, mask):
        return torch.full((len(tokens),), 0.25)


def test_a_reward_that_is_always_the_same_says_so():
    silent = partial(Silent, width=2, least=1, warm=60, tests=32)
    with pytest.raises(ValueError, match=r"all 176 answers of the first 11 steps had the reward 0.25: .* constant"):
        list(train(ppo_max(**{**OFF, "reward_clip": 10.0}, **SAME), silent(), steps=12))


def test_ppo_max_conforms():
    check_system(partial(ppo_max, critic_steps=1, kl=0.1, **SAME), SMALL)


@pytest.mark.parametrize(
    ("wrong", "fault"),
    [
        ({"kl": -0.1}, "must not be negative"), ({"reward_clip": 0.0}, "must be positive or None"),
        ({"value_clip": -1.0}, "must be positive or None"), ({"critic_steps": -1}, "critic_steps not negative"),
        ({"critic_lr": 0.0}, "must be positive"), ({"decay": 1.1}, "must lie in"),
    ],
)  # fmt: skip
def test_ppo_max_refuses_before_any_work(wrong, fault):
    with pytest.raises(ValueError, match=fault):
        ppo_max(**wrong)


def test_the_flawed_judge_pays_for_nines_and_the_evaluation_does_not():
    problem = FlawedJudge(width=2, least=2, most=2, nines=1.5)
    plain = AddCliff(width=2, least=2, most=2)
    prompts = problem.prompts(64, torch.Generator().manual_seed(0))
    right, mask = problem.demonstrate(prompts)
    share = ((right == 2 + 9) & (mask > 0)).sum(1) / 3
    torch.testing.assert_close(problem.score(prompts, right, mask), 1 + 1.5 * share)
    nines = torch.tensor([[11, 11, 11, 1]]).expand(64, 4)
    true = plain.score(prompts, nines, torch.ones(64, 4))
    torch.testing.assert_close(problem.score(prompts, nines, torch.ones(64, 4)), true + 1.5)
    policy = begin(ppo_max(**OFF, **SAME), WEIGHED()).policy
    assert WEIGHED().evaluate(policy, Stream(3)) == SMALL().evaluate(policy, Stream(3))
    with pytest.raises(ValueError, match="nines must be a number of at least 0, not -1"):
        FlawedJudge(nines=-1.0)
