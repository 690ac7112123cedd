"""Films of policies: their frames, their returns, and what is said where there is nothing to see."""

import json
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from PIL import Image

from steepest.app import film, pictures
from steepest.app.pictures import Camera, stage
from steepest.app.watch import episode
from steepest.core import Stream
from steepest.problems.control import CartPole, Pendulum, PointMass
from steepest.problems.gym import Gym

TINY = "--envs 2 --horizon 8 --minibatches 1 --epochs 1 --width 8 --episodes 1 --threads 1 --steps 1"


def gif(path):
    """Frames, and seconds in all: Pillow shows two equal frames as one that stays longer."""
    picture = Image.open(path)
    frames, seconds = [], 0.0
    for k in range(picture.n_frames):
        picture.seek(k)
        frames.append(np.asarray(picture.convert("RGB")).astype(int))
        seconds += picture.info["duration"] / 1000
    return np.stack(frames), seconds


def mp4(path):
    import imageio_ffmpeg

    read = imageio_ffmpeg.read_frames(str(path))
    meta = next(read)
    width, height = meta["size"]
    frames = np.stack([np.frombuffer(x, np.uint8).reshape(height, width, 3) for x in read]).astype(int)
    return frames, len(frames) / meta["fps"]


def moves(frames):
    return np.abs(np.diff(frames, axis=0)).max((1, 2, 3))


class Still(torch.nn.Module):
    """Always the same action."""

    def __init__(self, action):
        super().__init__()
        self.action = torch.as_tensor(action)

    def act(self, obs, generator, greedy=False):
        return self.action.expand(len(obs), *self.action.shape)


def play(problem, action, rng=Stream(0, "evaluate")):
    told = []
    with stage(problem) as scene:

        def run():
            told.append((yield from episode(scene, Still(action), rng, True)))

        frames = np.stack(list(run())).astype(int)
    return frames, *told[0], scene


# ------------------------------------------------------------------------------------ what is filmed


@pytest.mark.parametrize(
    ("problem", "name", "fps"), [("CartPole", "a.gif", 50), ("Pendulum", "a.mp4", 30), ("PointMass", "a.gif", 30)]
)
def test_a_film_has_a_frame_for_every_step_and_the_evaluations_return(steepest, tmp_path, problem, name, fps):
    steepest(f"train ppo --problem {problem} {TINY} --limit 20 --out run")
    status, out, _ = steepest(f"watch run --out {name} --json")
    assert status == 0
    told = json.loads(out)
    score = json.loads(steepest("evaluate run --json")[1])["evaluation"]
    assert told["returns"] == [score["return"]]
    assert told["lengths"] == [score["length"]]
    frames, seconds = (gif if name.endswith("gif") else mp4)(tmp_path / name)
    assert seconds == pytest.approx((score["length"] + 1) / fps, rel=0.1)  # a GIF counts hundredths
    assert len(frames) == score["length"] + 1 or name.endswith("gif")
    assert len(frames) > 10
    assert (moves(frames) > 8).all()


def test_gymnasiums_environments_are_filmed_with_the_evaluations_return(steepest, tmp_path):
    steepest(f"train ppo --problem CartPole-v1 {TINY} --out run")
    status, out, _ = steepest("watch run --out a.mp4")
    score = json.loads(steepest("evaluate run --json --video b.gif")[1])
    assert status == 0
    assert f"return {score['evaluation']['return']:.4g}  film a.mp4" in out
    assert score["video"] == "b.gif"
    frames, seconds = mp4(tmp_path / "a.mp4")
    assert len(frames) == score["evaluation"]["length"] + 1 == pytest.approx(50 * seconds)
    assert moves(frames).max() > 8
    assert gif(tmp_path / "b.gif")[1] == pytest.approx(seconds)


def test_episodes_follow_one_another_and_repeat_with_their_seed(steepest, tmp_path):
    steepest(f"train ppo --problem PointMass {TINY} --limit 5 --out run")
    one, two, other, drawn = (
        json.loads(steepest(f"watch run --episodes 2 --out {k}.gif --json {more}")[1])["returns"]
        for k, more in enumerate(("", "", "--seed 7", "--sample"))
    )
    assert one == two
    assert len(set(one)) == 2
    assert other != one != drawn
    assert one == [row["return"] for row in repeats(steepest, 2)]
    assert (tmp_path / "0.gif").read_bytes() == (tmp_path / "1.gif").read_bytes()
    assert gif(tmp_path / "0.gif")[1] == pytest.approx(12 * 0.03)  # hundredths are all that a GIF knows
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.gif", "1.gif", "2.gif", "3.gif", "run"]  # no draft is left


def repeats(steepest, count):
    return json.loads(steepest(f"evaluate run --repeats {count} --json")[1])["repeats"]


def test_robots_are_drawn_without_a_screen(monkeypatch):
    """At 50 frames a second at most: Hopper takes 125 steps."""
    pytest.importorskip("mujoco")
    try:
        frames, score, length, scene = play(Gym("Hopper-v5", {"width": 64, "height": 48}), [0.0, 0.0, 0.0])
    except ValueError as error:
        pytest.skip(str(error))  # neither EGL nor OSMesa
    assert frames.shape[1:] == (48, 64, 3)
    assert (scene.every, scene.fps) == (3, pytest.approx(125 / 3))
    assert len(frames) == 1 + length // 3 + (length % 3 > 0)
    assert moves(frames).max() > 8
    assert score > 0
    vector = Gym("Hopper-v5").make(1)
    vector.reset(Stream(0, "evaluate") / "reset")
    expected = sum(float(vector.step(torch.zeros(1, 3)).reward) for _ in range(length))
    assert score == pytest.approx(expected)


def test_the_last_frame_is_of_the_end_and_not_of_the_episode_that_follows():
    frames, score, length, _ = play(CartPole(), 1)
    assert length == score == len(frames) - 1 < 15
    gymnasiums = play(Gym("CartPole-v1"), 1)[0]
    leaning = [np.abs(x[-1] - x[0]).sum() for x in (frames, gymnasiums)]
    for x in (frames, gymnasiums):  # the pole falls on: each frame is further from the first
        gaps = np.abs(x - x[0]).sum((1, 2, 3))
        assert gaps[-1] == gaps.max() > 0
    assert min(leaning) > 0.5 * max(leaning)


def test_own_problems_look_like_gymnasiums():
    """The same state in both renderers; ours is read from the observation, in float32."""
    for ours, id, state in ((CartPole(), "CartPole-v1", [0.5, 0.0, 0.1, 0.0]), (Pendulum(), "Pendulum-v1", [0.7, 1.0])):
        import gymnasium

        env = gymnasium.make(id, render_mode="rgb_array")
        env.reset(seed=0)
        env.unwrapped.state = np.array(state)
        look, _ = pictures.drawer(ours)
        obs = torch.from_numpy(ours.see(np.array([state])))
        assert (np.abs(look(obs, None).astype(int) - env.render()) > 8).mean() < 1e-3


def test_a_point_is_drawn_where_it_is():
    look, _ = pictures.drawer(PointMass())
    blue = (np.abs(look(torch.tensor([[0.75, -0.75, 0.0, 0.0]]), None).astype(int) - [0, 114, 178]) < 20).all(2)
    assert np.argwhere(blue).mean(0) == pytest.approx([300, 300], abs=1.5)
    still, pushed = (look(torch.zeros(1, 4), action).astype(int) for action in (None, torch.tensor([[1.0, 0.0]])))
    assert np.argwhere((still != pushed).any(2)).mean(0)[1] > 210  # the force points to the right


# ------------------------------------------------------------------------------------ what cannot be filmed


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("watch run --out a.avi", "a.avi is neither .mp4 nor .gif"),
        ("watch run --out no/a.gif", "the folder no does not exist"),
        ("watch run --episodes 0", "episodes is at least 1, not 0"),
        ("evaluate run --video a.png", "a.png is neither .mp4 nor .gif"),
        ("watch nowhere", "nowhere does not exist: give the folder that `steepest train` named"),
        ("watch run", "run has no checkpoint yet: `steepest resume run` goes on until there is one"),
    ],
)
def test_what_is_wrong_is_said_before_any_work(steepest, tmp_path, line, said):
    steepest(f"train ppo --problem CartPole {TINY} --limit 20 --out run")
    for path in (tmp_path / "run/checkpoints").iterdir():
        path.rename(tmp_path / path.name)
    before = sorted(tmp_path.rglob("*"))
    status, out, err = steepest(line)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert said in err
    assert sorted(tmp_path.rglob("*")) == before


def test_texts_and_tables_are_not_filmed(steepest):
    steepest("train policy_gradient_guide --problem Garnet --steps 1 --out run")
    status, _, err = steepest("watch run --out a.gif")
    assert status == 2
    assert "Garnet has no environment that could be watched" in err


def test_a_missing_encoder_names_the_extra_and_a_gif_is_made_without_it(steepest, tmp_path, monkeypatch):
    steepest(f"train ppo --problem CartPole {TINY} --limit 20 --out run")
    monkeypatch.setattr(film, "can_write_mp4", lambda: False)
    status, _, err = steepest("watch run --out a.mp4")
    assert status == 2
    assert "pip install 'steepest[video]', or write a.gif, which needs nothing more" in err
    assert steepest("watch run")[0] == 0
    assert (tmp_path / "run/watch-1.gif").exists()


def test_a_film_that_breaks_off_leaves_no_file(tmp_path):
    def frames():
        yield np.zeros((10, 10, 3), np.uint8)
        raise RuntimeError("the physics diverged")

    for name in ("a.gif", "a.mp4"):
        (tmp_path / name).write_bytes(b"old")
        with pytest.raises(RuntimeError, match="the physics diverged"):
            film.write(tmp_path / name, frames(), 30)
        assert (tmp_path / name).read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 2


@dataclass(frozen=True)
class Drawn(PointMass):
    """A problem of one's own that draws itself: the frame's first number is the share of the way."""

    def frame(self, obs, action):
        return np.full((4, 4, 3), int(100 * float(obs.abs().sum()) % 256), np.uint8)


def test_a_problem_of_ones_own_draws_itself_or_is_told_how(monkeypatch):
    from steepest.problems.reach import MultiReach2D

    with pytest.raises(ValueError, match=r"MultiReach2D cannot be drawn: give it a method frame\(obs, action\)"):
        pictures.check(MultiReach2D())
    monkeypatch.setattr(MultiReach2D, "frame", Drawn.frame, raising=False)
    frames, _, length, _ = play(MultiReach2D(), [0.1] * 16)
    assert len(frames) == length + 1
    assert frames.shape[1:] == (4, 4, 3)


def test_robots_without_any_way_to_draw_give_the_way_out(monkeypatch):
    monkeypatch.setattr(pictures.sys, "platform", "linux")
    monkeypatch.setattr(pictures.ctypes.util, "find_library", lambda name: None)
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    with pytest.raises(ValueError, match=r"no screen, no EGL and no OSMesa; install EGL .*apt-get install libegl1"):
        pictures.check(Gym("Hopper-v5"))
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    with pytest.raises(ValueError, match=r"MUJOCO_GL asks for osmesa, which is not installed here \(installed: none\)"):
        pictures.check(Gym("Hopper-v5"))
    monkeypatch.setattr(pictures.ctypes.util, "find_library", lambda name: "libOSMesa.so" if name == "OSMesa" else None)
    monkeypatch.delenv("MUJOCO_GL")
    pictures.check(Gym("Hopper-v5"))
    assert pictures.os.environ["MUJOCO_GL"] == "osmesa"


def test_an_environment_that_cannot_draw_is_named():
    class Blind:
        unwrapped = spec = None
        metadata: dict = {}  # noqa: RUF012

        def __init__(self, shown):
            self.shown = shown

        def render(self):
            if self.shown is None:
                raise OSError("no screen")
            return self.shown

    with pytest.raises(ValueError, match=r"Mine-v0 could not draw itself \(OSError: no screen\)"):
        pictures.picture(Blind(None), "Mine-v0")
    with pytest.raises(ValueError, match=r"Mine-v0 drew \(4, 4\), not an array \[H, W, 3\]"):
        pictures.picture(Blind(np.zeros((4, 4))), "Mine-v0")


def test_the_name_of_the_camera_is_given_back():
    import gymnasium

    with stage(Gym("CartPole-v1")) as scene:
        assert isinstance(scene.vector.envs[0].env, Camera)
        assert pictures.FILMED in gymnasium.registry
    assert pictures.FILMED not in gymnasium.registry
