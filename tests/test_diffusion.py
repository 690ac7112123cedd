import pytest
import torch

from steepest.core import Stream
from steepest.losses import Terms, clip
from steepest.models.diffusion import DiffusionPolicy, GaussianChunk, Schedule, normal_logp
from steepest.systems.generative.dppo import bounds, step_clip

RNG = Stream(0, "test")


def policy(steps=6, tuned=3):
    with RNG.fork():
        return DiffusionPolicy(2, 4, steps=steps, tuned=tuned, hidden=16, floor=0.1)


def test_alpha_and_sigma_are_variance_preserving_and_noise_grows():
    s = Schedule(20)
    assert torch.allclose(s.alpha**2 + s.sigma**2, torch.ones(20))
    assert bool((s.alpha.diff() < 0).all())
    assert float(s.std[0]) == 0
    assert float(s.on_x0[0]) == pytest.approx(1, abs=1e-5)


def test_eps_and_x0_round_trip():
    s, g = Schedule(20), RNG.torch()
    x0, eps, t = torch.randn(15, 4, generator=g), torch.randn(15, 4, generator=g), torch.arange(15)
    x = s.noised(x0, eps, t)
    assert torch.allclose(s.x0_of(x, eps, t), x0, atol=1e-4)
    assert torch.allclose(s.eps_of(x, x0, t), eps, atol=1e-4)


def test_posterior_mean_and_std_agree_with_the_marginal():
    s = Schedule(20)
    for t in range(1, 20):
        assert float(s.on_x0[t] + s.on_x[t] * s.alpha[t]) == pytest.approx(float(s.alpha[t - 1]), abs=1e-4)
        assert float((s.on_x[t] * s.sigma[t]) ** 2 + s.std[t] ** 2) == pytest.approx(float(s.sigma[t - 1] ** 2), abs=1e-4)


def test_base_gets_no_gradient_and_the_chain_is_re_evaluated():
    p = policy()
    obs, action, chunk = p.decide(torch.randn(5, 2, generator=RNG.torch()), RNG.torch())
    assert torch.equal(action[:, :-1], obs["x"][:, 1:])
    assert torch.equal(chunk, action[:, -1].clamp(-1, 1))
    logp = p.logp(obs, action, torch.ones(5, 3))
    assert logp.shape == (5, 3)
    logp.sum().backward()
    assert all(x.grad is None for x in p.base.parameters())
    assert any(float(x.grad.abs().sum()) > 0 for x in p.net.parameters())


def test_one_step_with_a_constant_bound_is_gaussian_ppo():
    p, g = policy(1, 1), RNG.torch()
    obs, action, _ = p.decide(torch.randn(5, 2, generator=g), g)
    t = torch.zeros(5, 1, dtype=torch.long)
    mean = p.mean(p.net, obs["x"], t, obs["cond"][:, None])
    new = p.logp(obs, action, torch.ones(5, 1))
    assert torch.equal(new, normal_logp(action, mean, 0.1))
    terms = Terms(new, new.detach() + 0.3 * torch.randn(5, 1, generator=g), torch.randn(5, 1, generator=g), torch.ones(5, 1))
    assert torch.allclose(step_clip(bound=bounds(1, 0.01, 0.2))(terms).loss, clip(low=0.2, high=0.2)(terms).loss)


def test_no_advantage_no_gradient():
    p, g = policy(), RNG.torch()
    obs, action, _ = p.decide(torch.randn(5, 2, generator=g), g)
    new = p.logp(obs, action, torch.ones(5, 3))
    step_clip(bound=bounds(3, 0.001, 0.01))(Terms(new, new.detach(), torch.zeros(5, 3), torch.ones(5, 3))).loss.sum().backward()
    assert all(not x.grad.any() for x in p.net.parameters())


def test_bounds_rise_from_base_to_last():
    b = bounds(10, 0.001, 0.01)
    assert bool((b.diff() > 0).all())
    assert float(b[0]) == pytest.approx(0.001)
    assert float(b[-1]) == pytest.approx(0.01)


def test_bad_options_are_refused():
    with pytest.raises(ValueError, match="cannot be tuned"):
        policy(3, 4)
    with pytest.raises(ValueError, match="floor"):
        DiffusionPolicy(2, 4, steps=3, tuned=2, hidden=8, floor=0.0)
    with pytest.raises(ValueError, match="floor"):
        GaussianChunk(2, 4, hidden=8, floor=0.0, std=0.1)
