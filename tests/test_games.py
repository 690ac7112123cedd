"""Games of preference: what an equilibrium is, and that the mixture with the reference makes the last policy reach it."""

from functools import partial

import pytest
import torch

from steepest.core import Stream, train
from steepest.core.check import check_system
from steepest.models.tabular import TabularDirect
from steepest.optimize.mirror import mirror_step
from steepest.problems.games import IntransGame, PreferenceGame, RockPaperScissors, exploitability, regularised_gap
from steepest.problems.tabular import simplex_noise
from steepest.systems.preferences.nash_md import nash_md


def equilibrium(game, tau):
    """The regularised equilibrium as the fixed point pi ~ reference exp(P(y > pi) / tau), by damped iteration in log space."""
    logp = game.log_reference
    for _ in range(20000):
        logp = (0.98 * logp + 0.02 * mirror_step(game.log_reference, game.wins @ logp.exp(), 1 / tau)).log_softmax(0)
    return logp.exp()


def some(answers, seed):
    return simplex_noise((answers,), Stream(seed, "policy").torch())


# ------------------------------------------------------------------------------------- what is measured


def test_exploitability_is_what_the_best_answer_wins():
    game = IntransGame(answers=4).model
    for seed in range(10):
        pi = some(4, seed)
        wins = [sum(float(game.wins[y, z] * pi[z]) for z in range(4)) for y in range(4)]
        assert exploitability(game.wins, pi) == pytest.approx(max(wins) - 0.5)
        assert exploitability(game.wins, pi) >= -1e-12  # pi ties with itself, so some answer wins half


def test_the_middle_of_rock_paper_scissors_cannot_be_exploited():
    game = RockPaperScissors(edge=0.4).model
    assert exploitability(game.wins, torch.full((3,), 1 / 3, dtype=torch.float64)) == pytest.approx(0, abs=1e-12)
    for y in range(3):
        sure = torch.eye(3).double()[y]
        assert exploitability(game.wins, sure) == pytest.approx(0.4)
        assert int((game.wins @ sure).argmax()) == (y + 1) % 3


def test_the_gap_is_what_the_best_reply_gains():
    """Against a grid of replies: none gains more than the formula says, and the closed form of the best one gains just that."""
    game, tau = IntransGame(answers=4, tau=0.2).model, 0.2
    for seed in range(5):
        pi = some(4, seed)

        def gain(q, pi=pi):
            kl = [(p * (p.log() - game.log_reference)).sum() for p in (q, pi)]
            return float(q @ game.wins @ pi - tau * kl[0]) - float(0.5 - tau * kl[1])

        gap = regularised_gap(game.wins, game.log_reference, tau, pi)
        best = mirror_step(game.log_reference, game.wins @ pi, 1 / tau).exp()
        assert gain(best) == pytest.approx(gap, abs=1e-12)
        assert max(gain(some(4, 100 + k)) for k in range(200)) <= gap + 1e-12
        assert gap > 0


@pytest.mark.parametrize("tau", [0.1, 0.5])
def test_the_gap_is_zero_at_the_regularised_equilibrium_alone(tau):
    for seed in range(3):
        game = IntransGame(answers=6, tau=tau, seed=seed).model
        star = equilibrium(game, tau)
        assert regularised_gap(game.wins, game.log_reference, tau, star) == pytest.approx(0, abs=1e-9)
        for k in range(5):
            assert regularised_gap(game.wins, game.log_reference, tau, 0.95 * star + 0.05 * some(6, k)) > 1e-6


def test_evaluation_reports_both_and_a_sure_policy_is_no_problem():
    game = RockPaperScissors(skew=0.5)
    got = game.evaluate(TabularDirect(torch.tensor([[1.0, 0.0, 0.0]]).double()), Stream(0))
    assert got["worst_win_rate"] == pytest.approx(0.0)
    pi = torch.tensor([1.0, 0.0, 0.0]).double()
    assert got["gap"] == pytest.approx(regularised_gap(game.model.wins, game.model.log_reference, 0.1, pi))


# ---------------------------------------------------------------------------------------------- nash_md


def test_a_step_is_the_papers_formula():
    game, tau, eta = IntransGame(answers=5, tau=0.3), 0.3, 0.7
    wins, ref = game.model.wins, game.model.log_reference.exp()
    pi = ref.clone()
    for record in train(nash_md(tau=tau, eta=eta), game, steps=4):
        mix = pi ** (1 - eta * tau) * ref ** (eta * tau)
        mix = mix / mix.sum()
        pi = mix * torch.exp(eta * wins @ mix)
        pi = pi / pi.sum()
        assert torch.allclose(record.state.policy.probs()[0], pi, atol=1e-12)


@pytest.mark.parametrize("eta", [None, 2.0])
def test_the_last_policy_is_the_equilibrium(eta):
    game = IntransGame(answers=6, tau=0.2, seed=1)
    record = list(train(nash_md(tau=0.2, eta=eta), game, steps=2000))[-1]
    star = equilibrium(game.model, 0.2)
    nearness = 1e-3 if eta is None else 2e-2  # with a constant step it ends beside it
    assert torch.allclose(record.state.policy.probs()[0], star, atol=nearness)
    assert record.metrics["gap"] < nearness


def test_where_self_play_circles_the_mixture_converges():
    """Rock, paper, scissors from a skewed start: multiplicative self-play is driven outwards, Nash-MD inwards."""
    game = RockPaperScissors(skew=0.3, tau=0.1)
    alone, mixed = ([r.metrics for r in train(nash_md(tau=tau, eta=0.5), game, steps=400)] for tau in (0.0, 0.1))
    assert alone[0] == pytest.approx(mixed[0])  # the reference is where both start, so their first mixture is the same
    assert mixed[0]["gap"] > 0.01
    assert all(step["gap"] < 1e-3 for step in mixed[200:])
    assert all(step["gap"] > 0.05 for step in alone[200:])
    assert min(step["worst_win_rate"] for step in mixed[200:]) > 0.45 > 0.35 > max(step["worst_win_rate"] for step in alone[200:])


def test_between_equal_answers_it_returns_to_the_reference():
    ref = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64)
    game = PreferenceGame(torch.full((3, 3), 0.5).double(), ref.log(), 0.5)
    for record in train(nash_md(tau=0.5), game, steps=20):
        assert torch.allclose(record.state.policy.probs()[0], ref)
        assert record.metrics["moved"] < 1e-12


def test_full_mixture_is_a_reply_to_the_reference():
    game = IntransGame(answers=4, tau=0.5)
    record = next(train(nash_md(tau=0.5, eta=2.0), game, steps=1))
    wins = game.model.wins @ game.model.log_reference.exp()
    assert torch.allclose(record.state.policy.probs()[0], mirror_step(game.model.log_reference, wins, 2.0).exp())


def test_it_conforms():
    assert any("resume is bitwise" in law for law in check_system(partial(nash_md), partial(IntransGame, answers=4), fresh=False))


# ------------------------------------------------------------------------------------------ what is refused


def test_options_without_meaning_are_refused():
    for options, said in (
        ({"tau": -0.1}, "tau must not be negative"),
        ({"tau": 0.0}, "give eta"),
        ({"tau": 0.5, "eta": 3.0}, r"eta \* tau at most 1, not eta = 3.0 with tau = 0.5"),
        ({"tau": 0.5, "eta": 0.0}, "eta must be positive"),
    ):
        with pytest.raises(ValueError, match=said):
            nash_md(**options)
    for make, said in (
        (partial(IntransGame, answers=1), "at least two answers"),
        (partial(RockPaperScissors, edge=0.6), "edge must lie in"),
        (lambda: IntransGame(tau=0.0).model, "tau must be positive"),
    ):
        with pytest.raises(ValueError, match=said):
            make()


def test_preferences_that_do_not_add_up_are_refused_by_entry():
    wins, ref = torch.full((2, 2), 0.5).double(), torch.full((2,), 0.5).double().log()
    bad = wins.clone()
    bad[0, 1] = 0.7
    with pytest.raises(ValueError, match=r"wins\[0\]\[1\] = 0.7 and wins\[1\]\[0\] = 0.5 must sum to 1"):
        PreferenceGame(bad, ref)
    bad[1, 1] = 0.6
    bad[0, 1] = 0.5
    with pytest.raises(ValueError, match=r"wins\[1\]\[1\].*ties with itself"):
        PreferenceGame(bad, ref)
    odd = torch.tensor([[0.5, 1.5], [-0.5, 0.5]]).double()
    with pytest.raises(ValueError, match="which is no probability"):
        PreferenceGame(odd, ref)
    with pytest.raises(ValueError, match="every answer needs some chance"):
        PreferenceGame(wins, torch.tensor([0.0, -torch.inf]).double())
    with pytest.raises(ValueError, match=r"wins must be \[Y, Y\]"):
        PreferenceGame(wins, ref[:1])
