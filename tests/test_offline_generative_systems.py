import pytest
import torch

from steepest.core import Stream, begin, train
from steepest.problems.offline import PendulumData
from steepest.problems.reach import MultiReach2D
from steepest.systems.generative.chunk_ppo import chunk_ppo
from steepest.systems.generative.dppo import dppo
from steepest.systems.offline.bc import bc
from steepest.systems.offline.td3_bc import q_scale, td3_bc, td_target

SMALL = {"envs": 8, "horizon": 4, "demos": 20, "pretrain": 5, "hidden": 16}
SYSTEMS = [
    (bc(hidden=16, updates=4), PendulumData(steps=800)),
    (td3_bc(hidden=16, updates=4), PendulumData(steps=800)),
    (chunk_ppo(**SMALL), MultiReach2D()),
    (dppo(steps=5, tuned=3, **SMALL), MultiReach2D()),
]


def test_td_target_stops_at_terminal_states_only():
    ended = torch.tensor([True, False])
    assert torch.allclose(td_target(torch.ones(2), torch.tensor([5.0, 5.0]), ended, 0.9), torch.tensor([1.0, 5.5]))


def test_q_scale_makes_the_value_term_blind_to_reward_size():
    q = torch.tensor([1.0, -3.0], requires_grad=True)
    assert float(q_scale(q, 2.5)) == 1.25
    assert not q_scale(q, 2.5).requires_grad
    assert torch.allclose(q_scale(q, 2.5) * q, q_scale(10 * q, 2.5) * 10 * q)


def test_normalisation_is_saved_with_the_policy():
    problem = PendulumData(steps=800)
    policy = begin(td3_bc(hidden=16), problem).policy
    assert torch.allclose(policy.state_dict()["mean"], problem.data.obs.mean(0))


def test_first_ratios_are_one():
    system, problem = SYSTEMS[3]
    state = begin(system, problem)
    batch = system.collect(state, problem, Stream(1)).check()
    assert torch.equal(state.policy.logp(batch.obs, batch.action, batch.mask), batch.logp)


@pytest.mark.parametrize("case", range(4))
def test_training_moves_the_policy_and_resumes_bitwise(case):
    system, problem = SYSTEMS[case]
    start = {k: v.clone() for k, v in begin(system, problem).state_dict().items() if isinstance(v, torch.Tensor)}
    whole = [r for r in train(system, problem, steps=3)][-1].state
    half = [r for r in train(system, problem, steps=1)][-1].state
    again = begin(system, problem)
    again.load_state_dict(half.state_dict())
    rest = [r for r in train(system, problem, steps=3, state=again)][-1].state
    end, other = whole.state_dict(), rest.state_dict()
    assert any(not torch.equal(end[k], start[k]) for k in start if k.startswith("policy"))
    assert all(torch.equal(end[k], other[k]) for k in start)
    assert all(torch.equal(end[k], start[k]) for k in start if k.startswith("policy.base"))


def test_dppo_refuses_more_tuned_steps_than_steps():
    with pytest.raises(ValueError, match="cannot be tuned"):
        dppo(steps=3, tuned=4)
    with pytest.raises(ValueError, match="floor"):
        dppo(floor=0.0)
