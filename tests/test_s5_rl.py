"""S5-RL and its meta-tasks: contexts of several episodes under one projection."""

from functools import partial

import pytest
import torch

from steepest.core import Stream, begin
from steepest.core.check import check_problem, check_system
from steepest.models.networks import s5
from steepest.problems.control import CartPole, Pendulum
from steepest.problems.projected import Projected
from steepest.systems.on_policy.ppo import ppo
from steepest.systems.on_policy.s5_rl import s5_rl

TINY = {"width": 8, "size": 8, "layers": 1, "envs": 2, "horizon": 16, "epochs": 1, "minibatches": 2}


def test_s5_rl_conforms_in_a_fresh_process():
    problem = partial(Projected, CartPole(limit=6), episodes=2)
    assert check_system(partial(s5_rl, **TINY), problem, half=1)[-1] == "resume is bitwise in a fresh process"


def test_it_is_ppo_with_s5():
    ours = begin(s5_rl(**TINY), CartPole()).policy.state_dict()
    same = ppo(model=s5(width=8, size=8, depth=1), envs=2, horizon=16)
    theirs = begin(same, CartPole()).policy.state_dict()
    assert all(torch.equal(x, theirs[name]) for name, x in ours.items() if isinstance(x, torch.Tensor))


@pytest.mark.parametrize("problem", [Projected(CartPole(limit=6), episodes=2), Projected(Pendulum(limit=5), seen=4)], ids=str)
def test_meta_tasks_obey_the_laws_of_problems(problem):
    check_problem(problem)


def test_a_context_is_its_episodes_under_one_projection():
    """The environment inside, stepped by hand with the permuted action, shows the same through the projection."""
    problem = Projected(CartPole(limit=4), episodes=3, seen=5)
    env, plain = problem.make(2), CartPole(limit=4).make(2)
    shown = env.reset(Stream(0))
    inner = plain.reset(Stream(0))
    eye, hand = env.eye.clone(), env.hand.clone()
    ends = 0
    for _ in range(30):
        assert torch.allclose(shown[:, :5], (inner[:, None] @ env.eye)[:, 0], atol=1e-6)
        action = torch.tensor([0, 1])
        step, own = env.step(action), plain.step((torch.eye(2)[action][:, None] @ env.hand)[:, 0].argmax(1))
        over = own.terminated | own.truncated
        last = step.terminated | step.truncated
        ends += int(over[0])
        assert bool(last[0]) == bool(over[0] and ends % 3 == 0)
        assert not (last & ~over).any()
        inside = over & ~last
        assert torch.equal(step.next_obs[:, 5:7], torch.eye(2)[action])
        assert torch.equal(step.next_obs[:, 7], own.reward)
        assert torch.equal(step.next_obs[:, 8], inside.float())
        assert torch.equal(step.obs[:, 8], over.float())
        if not last.any():
            assert torch.equal(env.eye, eye)
            assert torch.equal(env.hand, hand)
        for n in last.nonzero()[:, 0].tolist():
            assert not torch.equal(env.eye[n], eye[n])
        eye, hand = env.eye.clone(), env.hand.clone()
        shown, inner = step.obs, own.obs
    assert ends > 3


def test_what_makes_no_meta_task():
    with pytest.raises(ValueError, match="episodes must be at least 1, not 0"):
        Projected(episodes=0)
