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


def test_log_probabilities_are_those_of_the_normal_distribution():
    p, g = policy(), RNG.torch()
    obs, action, _ = p.decide(torch.randn(5, 2, generator=g), g)
    logp, entropy = p.logp_entropy(obs, action, torch.ones(5, 3))
    for decision, t in enumerate((2, 1, 0)):  # noisiest first
        step = torch.full((5,), t)
        mean = p.mean(p.net, obs["x"][:, decision], step, obs["cond"])
        normal = torch.distributions.Normal(mean, max(float(p.schedule.std[t]), 0.1))
        assert torch.allclose(logp[:, decision], normal.log_prob(action[:, decision]).clamp(-5, 2).mean(-1), atol=1e-5)
        assert torch.allclose(entropy[:, decision], normal.entropy().mean(-1), atol=1e-6)


def test_a_gaussian_chunk_has_the_entropy_of_its_deviation():
    with RNG.fork():
        p = GaussianChunk(2, 4, hidden=8, floor=0.1, std=0.3)
    obs, action, _ = p.decide(torch.randn(5, 2, generator=RNG.torch()), RNG.torch())
    logp, entropy = p.logp_entropy(obs, action, torch.ones(5, 1))
    normal = torch.distributions.Normal(p.net(obs["cond"])[:, None], 0.3)
    assert torch.allclose(logp, normal.log_prob(action).clamp(-5, 2).mean(-1), atol=1e-5)
    assert torch.allclose(entropy, normal.entropy().mean(-1))
    entropy.sum().backward()
    assert float(p.log_std.grad.abs().min()) > 0


def test_steps_before_the_tuned_ones_are_the_bases():
    """What the tuned network says of the early steps changes nothing; where all steps are tuned there are none."""
    for tuned, same in ((3, True), (6, False)):
        p = policy(6, tuned)
        cond = torch.randn(4, 2, generator=RNG.torch())
        first = p.decide(cond, RNG.torch())[0]["x"][:, 0]
        with torch.no_grad():
            for x in p.base.parameters():
                x.mul_(3)
        after = p.decide(cond, RNG.torch())[0]["x"][:, 0]
        assert torch.equal(first, after) != same
        with torch.no_grad():
            for x in p.net.parameters():
                x.mul_(3)
        assert torch.equal(p.decide(cond, RNG.torch())[0]["x"][:, 0], after)


def test_greedy_actions_have_no_noise_in_the_last_step():
    p = policy()
    cond = torch.randn(4, 2, generator=RNG.torch())
    x = p.chain(cond, RNG.torch(), greedy=True)
    mean = p.mean(p.net, x[:, -2], torch.zeros(4, dtype=torch.long), cond)
    assert torch.allclose(x[:, -1], mean)
    assert torch.equal(p.act(cond, RNG.torch(), greedy=True), x[:, -1].clamp(-1, 1))


def test_cloning_lowers_the_denoising_loss_to_the_data():
    """Two points as data: after cloning, actions lie at them."""
    with RNG.fork():
        p = DiffusionPolicy(1, 2, steps=10, tuned=5, hidden=64, floor=0.01)
    optimizer, g = torch.optim.Adam(p.parameters(), 3e-3), RNG.torch()
    points = torch.tensor([[0.6, -0.6], [-0.6, 0.6]])
    for _ in range(1200):
        x0 = points[torch.randint(2, (128,), generator=g)]
        optimizer.zero_grad()
        p.loss(x0, torch.zeros(128, 1), g).backward()
        optimizer.step()
    p.freeze()
    made = p.act(torch.zeros(200, 1), RNG.torch(), greedy=True)
    away, which = torch.cdist(made, points).min(1)
    assert float((away < 0.25).float().mean()) > 0.9
    assert 0.25 < float(which.float().mean()) < 0.75  # both, which no single Gaussian can
