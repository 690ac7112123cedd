import dataclasses

import pytest
import torch

from steepest.core import Stream
from steepest.problems.offline import MinariData, PendulumData, Swings, from_minari, log, make_graded, to_minari

RNG = Stream(0, "test")


def test_the_grades_earn_what_they_should():
    means = {g: float(make_graded(g, 8000, RNG).returns().mean()) for g in ("expert", "medium", "random")}
    assert -200 < means["expert"] < -100
    assert -1400 < means["random"] < -1100
    assert means["random"] < means["medium"] < means["expert"]


def test_pendulum_is_gymnasiums():
    gymnasium = pytest.importorskip("gymnasium")
    env, mine = gymnasium.make("Pendulum-v1"), Swings(1)
    env.reset(seed=0)
    mine.reset(RNG)
    env.unwrapped.state = mine.state["x"][0].double().numpy()
    for t in range(50):
        action = torch.tensor([[((t * 7) % 11 - 5) / 5]])
        obs, reward, *_ = env.step(2 * action[0].numpy())
        out = mine.step(action)
        assert torch.allclose(out.next_obs[0], torch.as_tensor(obs), atol=1e-3)
        assert float(out.reward) == pytest.approx(reward, abs=1e-2)


def test_successors_follow_and_only_the_clock_ends():
    data = make_graded("random", 800, RNG)
    inside = ~data.truncated[:-1]
    assert torch.equal(data.next_obs[:-1][inside], data.obs[1:][inside])
    assert not data.terminated.any()
    assert int(data.truncated.sum()) == 4
    assert torch.bincount(data.episode).tolist() == [200] * 4


def test_unsound_data_are_refused_by_row():
    data = make_graded("random", 200, RNG)
    for field, value, message in (("rew", float("nan"), "row 3"), ("act", 1.5, "row 3")):
        x = getattr(data, field).clone()
        x[3] = value
        with pytest.raises(ValueError, match=message):
            dataclasses.replace(data, **{field: x})
    with pytest.raises(ValueError, match="empty"):
        data.rows(torch.arange(0))


def test_a_minari_round_trip_is_bitwise(tmp_path, monkeypatch):
    gymnasium = pytest.importorskip("gymnasium")
    pytest.importorskip("minari")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    data = make_graded("medium", 600, RNG)
    ended = data.terminated.clone()
    ended[199] = True
    data = dataclasses.replace(data, terminated=ended, truncated=data.truncated & ~ended)
    to_minari(data, "steepest/pendulum/medium-v0", gymnasium.make("Pendulum-v1"), algorithm="scripted")
    back = from_minari("steepest/pendulum/medium-v0")
    for field in dataclasses.fields(data):
        assert torch.equal(getattr(back, field.name), getattr(data, field.name)), field.name
    assert MinariData(id="steepest/pendulum/medium-v0").data.terminated.sum() == 1


def test_a_minari_id_needs_a_namespace():
    data = make_graded("random", 200, RNG)
    for name in ("x-v0", "t/x-v0"):
        with pytest.raises(ValueError, match="namespace"):
            to_minari(data, name, None, algorithm="x")


def test_state_can_be_taken_and_given_back():
    def zero(obs, generator):
        return torch.zeros(len(obs), 1)

    one, two = Swings(3), Swings(3)
    log(one, zero, 150, RNG)
    two.set_state(one.get_state())
    for _ in range(100):
        assert torch.equal(one.step(torch.ones(3, 1)).obs, two.step(torch.ones(3, 1)).obs)


def test_score_of_random_is_near_zero():
    from steepest.models.deterministic import DeterministicActor

    with RNG.fork():
        policy = DeterministicActor(torch.zeros(3), torch.ones(3), 1, 8)
    assert set(PendulumData().evaluate(policy, RNG)) == {"return", "score"}
