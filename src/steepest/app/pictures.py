"""What an environment looks like, drawn without a screen."""

from __future__ import annotations

import ctypes.util
import dataclasses
import math
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import singledispatch
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.classic_control import CartPoleEnv, PendulumEnv
from PIL import Image, ImageDraw
from torch import Tensor

from ..core.problem import Control, Vector
from ..problems.control import CartPole, Pendulum, PointMass
from ..problems.gym import Gym, OneByOne
from ..problems.hidden import HiddenCartPole
from ..problems.pools import Atari, EnvPool
from ..problems.registered import build
from ..problems.robots import Mujoco
from .film import FASTEST, Frame

FILMED = "steepest/Filmed-v0"
USUAL_FPS = 30.0
Look = Callable[[Tensor, Tensor | None], Frame]


@dataclass(frozen=True)
class Stage:
    """One environment and the way to look at it.

    vector  the environment, `count` 1
    look    (obs [1, O], the action before it [1, ...] or None) -> what it looks like now: at the start of an episode, after
            every `every` steps, and at the end
    every   steps from one frame to the next
    fps     frames a second at which it is watched at its own pace
    """

    vector: Vector
    look: Look
    every: int
    fps: float

    @classmethod
    def paced(cls, vector: Vector, look: Look, rate: float) -> Stage:
        """With as many of `rate` steps a second as a film can show."""
        every = math.ceil(rate / FASTEST)
        return cls(vector, look, every, rate / every)


def check(problem: Any) -> None:
    """Raises ValueError, before any work, where the problem cannot be drawn."""
    if not isinstance(problem, Control):
        raise ValueError(
            f"{type(problem).__name__} has no environment that could be watched: `steepest evaluate` judges the policy, "
            "and on texts prints answers"
        )
    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # pygame would look for a screen
    if not isinstance(problem, (OneByOne, Mujoco)):
        drawer(problem)
    elif "mujoco" in str(gymnasium.spec(problem.id).entry_point):
        without_a_screen()


@contextmanager
def stage(problem: Any) -> Iterator[Stage]:
    """A stage for the problem; raises ValueError where it cannot be drawn."""
    check(problem)
    if isinstance(problem, Mujoco):
        problem = Gym(problem.id, problem.options)  # whose trajectories are the same to the bit, and which can draw
    if isinstance(problem, OneByOne):
        with filmed(problem) as found:
            yield found
    else:
        yield Stage.paced(problem.make(1), *drawer(problem))


# ------------------------------------------------------------------------------------ problems of our own


@singledispatch
def drawer(problem: Any) -> tuple[Look, float]:
    """How a problem is drawn from an observation, and frames a second. A problem of the user's own draws itself: `frame`."""
    if not callable(getattr(problem, "frame", None)):
        raise ValueError(
            f"{type(problem).__name__} cannot be drawn: give it a method frame(obs, action) -> array [H, W, 3] of uint8, where "
            "action is None at the start of an episode"
        )
    return lambda obs, action: problem.frame(obs[0], None if action is None else action[0]), USUAL_FPS


@drawer.register
def _(problem: CartPole) -> tuple[Look, float]:
    env: Any = CartPoleEnv(render_mode="rgb_array")

    def look(obs: Tensor, action: Tensor | None) -> Frame:
        hides = isinstance(problem, HiddenCartPole)  # place and angle, all that is drawn, are all that it shows
        env.state = [float(obs[0, 0]), 0.0, float(obs[0, 1 if hides else 2]), 0.0]
        return env.render()

    return look, env.metadata["render_fps"]


@drawer.register
def _(problem: Pendulum) -> tuple[Look, float]:
    env: Any = PendulumEnv(render_mode="rgb_array")

    def look(obs: Tensor, action: Tensor | None) -> Frame:
        cos, sin, *_ = obs[0].tolist()
        env.state = np.array([math.atan2(sin, cos), 0.0])
        env.last_u = None if action is None else float(action.clamp(-2, 2))  # drawn as an arrow
        return env.render()

    return look, env.metadata["render_fps"]


@drawer.register
def _(problem: PointMass) -> tuple[Look, float]:
    side, reach, fine = 400, 1.5, 2  # pixels; half the width that is seen; drawn larger by this, for smooth edges
    full = side * fine

    def at(x: float, y: float) -> tuple[float, float]:
        return full * (0.5 + x / reach / 2), full * (0.5 - y / reach / 2)

    def disc(draw: ImageDraw.ImageDraw, place: tuple[float, float], radius: float, **style: Any) -> None:
        (x, y), r = place, radius * full
        draw.ellipse((x - r, y - r, x + r, y + r), **style)

    def look(obs: Tensor, action: Tensor | None) -> Frame:
        x, y, *_ = obs[0].tolist()
        image = Image.new("RGB", (full, full), "white")
        draw = ImageDraw.Draw(image)
        for line in (at(-reach, 0) + at(reach, 0), at(0, -reach) + at(0, reach)):
            draw.line(line, fill="#d8dbe0", width=fine)
        for r in (0.04, 0.02):
            disc(draw, at(0, 0), r, outline="#009e73", width=2 * fine)
        if action is not None:
            u, v = action.clamp(-1, 1).flatten().tolist()
            draw.line(at(x, y) + at(x + 0.4 * u, y + 0.4 * v), fill="#d55e00", width=3 * fine)
        disc(draw, at(x, y), 0.022, fill="#0072b2")
        return np.asarray(image.resize((side, side), Image.Resampling.LANCZOS))

    return look, USUAL_FPS


@drawer.register
def _(problem: Atari) -> tuple[Look, float]:
    def look(obs: Tensor, action: Tensor | None) -> Frame:
        side = math.isqrt(obs.shape[1] // problem.frames)  # what the policy saw last, in grey
        grey = Image.fromarray(obs[0].view(problem.frames, side, side)[-1].numpy())
        return np.asarray(grey.resize((5 * side, 5 * side), Image.Resampling.NEAREST).convert("RGB"))

    return look, 60 / problem.skip


@drawer.register
def _(problem: EnvPool) -> tuple[Look, float]:
    raise ValueError(f"EnvPool draws nothing: train on {problem.id} as a Gym problem and watch that")


# ------------------------------------------------------------------------------------ Gymnasium


class Camera(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Puts a picture into `shots` at every reset, after every `every` steps, and at the end, before a vector resets it."""

    def __init__(self, env: Any, name: str, every: int, shots: list[Frame]):
        super().__init__(env)
        self.name, self.every, self.shots, self.steps = name, every, shots, 0

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        found = self.env.reset(**options)
        self.steps = 0
        self.shots.append(picture(self.env, self.name))
        return found

    def step(self, action: Any) -> Any:
        found = self.env.step(action)
        self.steps += 1
        if self.steps % self.every == 0 or found[2] or found[3]:
            self.shots.append(picture(self.env, self.name))
        return found


def picture(env: Any, name: str) -> Frame:
    """Its frame; raises ValueError with the way out where it draws none."""
    try:
        frame = env.render()
    except Exception as error:  # of whatever draws: OpenGL, pygame or the environment's own
        robot = type(env.unwrapped).__module__.startswith("gymnasium.envs.mujoco")
        way = f". MUJOCO_GL is {os.environ.get('MUJOCO_GL')!r}; {WAY}" if robot else ""
        raise ValueError(f"{name} could not draw itself ({type(error).__name__}: {error}){way}") from error
    if not isinstance(frame, np.ndarray) or frame.ndim != 3 or frame.shape[2] != 3:
        raise ValueError(f"{name} drew {getattr(frame, 'shape', type(frame).__name__)}, not an array [H, W, 3]")
    return frame


@contextmanager
def filmed(problem: OneByOne) -> Iterator[Stage]:
    """The problem itself, on environments that stand before a camera.

    They are registered under a name of their own for as long as they are needed: then the problem makes them, and reads
    their observations, as it always does.
    """
    shots: list[Frame] = []
    made: list[Any] = []

    def make(**_: Any) -> Any:
        env = build(problem.id, {**problem.options, "render_mode": "rgb_array"})
        made.append(env)
        if "rgb_array" not in env.metadata.get("render_modes", ()):
            raise ValueError(f"{problem.id} has no render mode rgb_array: it has {env.metadata.get('render_modes', [])}")
        if hasattr(env.unwrapped, "mujoco_renderer"):  # without a graphics card these two are six sevenths of the time
            quality = env.unwrapped.model.vis.quality
            quality.shadowsize, quality.offsamples = 1024, 0
        return Camera(env, problem.id, math.ceil(rate(env) / FASTEST), shots)

    def rate(env: Any) -> float:
        return float(env.metadata.get("render_fps") or USUAL_FPS)

    def look(obs: Tensor, action: Tensor | None) -> Frame:
        shown = shots[0]  # a later one is of the next episode
        shots.clear()
        return shown

    gymnasium.register(FILMED, entry_point=make)
    try:
        stand_in: Any = problem
        vector = dataclasses.replace(stand_in, id=FILMED, options={}, workers=0).make(1)
        yield Stage.paced(vector, look, rate(made[-1]))
    finally:
        gymnasium.registry.pop(FILMED, None)
        for env in made:
            env.close()


WAY = (
    "install EGL (Debian: apt-get install libegl1 libgl1-mesa-dri) or OSMesa (apt-get install libosmesa6 and MUJOCO_GL=osmesa), "
    "or run where there is a screen, with MUJOCO_GL=glfw"
)


def without_a_screen() -> None:
    """Let MuJoCo draw through EGL, or else OSMesa, unless MUJOCO_GL says what. Raises ValueError where that is not there."""
    asked = os.environ.get("MUJOCO_GL", "").lower()
    if sys.platform != "linux":
        return
    there = [name for name, library in (("egl", "EGL"), ("osmesa", "OSMesa")) if ctypes.util.find_library(library)]
    if asked in ("egl", "osmesa") and asked not in there:
        others = ", ".join(there) or "none"
        raise ValueError(f"MUJOCO_GL asks for {asked}, which is not installed here (installed: {others}); {WAY}")
    if not asked and there:
        os.environ["MUJOCO_GL"] = there[0]
    elif not asked and not os.environ.get("DISPLAY"):
        raise ValueError(f"MuJoCo cannot draw here: there is no screen, no EGL and no OSMesa; {WAY}")
