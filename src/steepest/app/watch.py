"""steepest watch: what a trained policy does, as a film."""

from __future__ import annotations

import json as js
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from . import film
from .plan import find_run


@dataclass(frozen=True)
class Watch:
    """Film a run's policy, without a screen.

    The first episode is the first of those that `steepest evaluate` averages.

    folder    the run, or a checkpoint of it: of a run the newest
    episodes  shown one after the other
    out       the film, .mp4 or .gif; default: watch-STEP in the run's folder, .mp4 where imageio-ffmpeg is installed, else .gif
    sample    actions are drawn from the policy; default: the likeliest is taken, as in an evaluation
    seed      of the episodes; default: the run's
    json      print JSON
    """

    folder: Path
    episodes: int = 1
    out: Path | None = None
    sample: bool = False
    seed: int | None = None
    json: bool = False

    def run(self) -> int:
        if self.episodes < 1:
            raise ValueError(f"episodes is at least 1, not {self.episodes}")
        if self.out is not None:
            film.check(self.out)
        plan, run, checkpoint = find_run(self.folder)
        if checkpoint is None:
            raise ValueError(f"{self.folder} has no checkpoint yet: `steepest resume {self.folder}` goes on until there is one")
        from ..core.save import restore
        from ..core.stream import Stream
        from .pictures import check

        check(plan.make()[1])
        console, seed = Console(stderr=self.json), plan.seed if self.seed is None else self.seed
        with console.status(f"building {plan.system} on {plan.problem}"):
            _, problem, state = plan.begin()
            restore(state, checkpoint, plan.json())
        suffix = ".mp4" if film.can_write_mp4() else ".gif"
        out = self.out or (run or Path()) / f"watch-{state.step}{suffix}"
        told = shoot(problem, state, Stream(seed, "evaluate"), out, self.episodes, not self.sample, console)
        if self.json:
            page = {"film": str(out), "checkpoint": str(checkpoint), "step": state.step, "seed": seed, "greedy": not self.sample}
            print(js.dumps({**page, "returns": [score for score, _ in told], "lengths": [length for _, length in told]}))
        returns = ", ".join(f"{score:.4g}" for score, _ in told)
        plural = "s" * (len(told) > 1)
        console.print(f"return{plural} {returns}  [bold]film[/] {escape(str(out))}", highlight=False, soft_wrap=True)
        return 0


def shoot(
    problem: Any, state: Any, rng: Any, out: Path, episodes: int, greedy: bool, console: Console
) -> list[tuple[float, int]]:
    """Film `episodes` episodes into `out`. -> return and length of each"""
    import torch

    from ..core.problem import flat_size
    from .pictures import stage

    if getattr(state, "policy", None) is None:
        raise ValueError("the system keeps no `policy` in State: there is nobody to watch")
    told: list[tuple[float, int]] = []
    met = state.policy.meets(problem) if hasattr(state.policy, "meets") else None  # with an internal state, for one
    with stage(problem) as scene, counted(episodes, console) as tell, torch.no_grad():
        if met is not None:
            seen, done = flat_size(problem.observation_space), max((1, *problem.action_space.shape))
            inner, look = scene.vector, scene.look
            scene = replace(
                scene, vector=met.around(inner),
                look=lambda obs, action: look(obs[:, :seen], action if action is None or action.dim() < 2 else action[:, :done]),
            )  # fmt: skip

        def frames() -> Generator[Any, None, None]:
            for number in range(episodes):
                told.append((yield from episode(scene, state.policy, rng / number if number else rng, greedy)))
                tell(number + 1)

        film.write(out, frames(), scene.fps)
    return told


def episode(scene: Any, policy: Any, rng: Any, greedy: bool) -> Generator[Any, None, tuple[float, int]]:
    """Play one episode; yield its frames. -> its return and length"""
    generator = (rng / "act").torch()
    policy = policy.begin(1) if hasattr(policy, "begin") else policy  # one that remembers
    obs = scene.vector.reset(rng / "reset")
    yield scene.look(obs, None)
    score, length = 0.0, 0
    while True:
        action = policy.act(obs, generator, greedy).cpu()
        step = scene.vector.step(action)
        score, length, obs = score + float(step.reward[0]), length + 1, step.obs
        over = bool(step.terminated[0] or step.truncated[0])
        if over or length % scene.every == 0:
            yield scene.look(step.next_obs, action)
        if over:
            return score, length


@contextmanager
def counted(episodes: int, console: Console) -> Iterator[Any]:
    """A bar of episodes; yields what takes how many are done."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("filming", total=episodes)
        yield lambda done: bar.update(task, completed=done)
