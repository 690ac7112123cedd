"""Environments in processes of their own, which may die or hang without ending the run."""

from __future__ import annotations

import dataclasses
import multiprocessing
import signal
import time
import weakref
from itertools import pairwise
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..core.problem import Step, Vector, flat_size, is_bytes
from ..core.stream import Stream

if TYPE_CHECKING:
    from .gym import OneByOne

Array = NDArray[Any]
STARTING = 60.0  # seconds that a process may take to start, besides what its environments take
IN_A_ROW = 3  # failures of one worker, with no step between them, that end the run


class Workers(Vector):
    """`count` environments of a problem, shared out to processes; observations, actions and rewards go through shared memory.

    A worker that dies, raises or takes longer than the problem's patience is started again. The episodes that were running in it
    end there as truncated, at the last observations they showed and with a reward of 0 for the step that was lost; `metrics`
    counts how often. After `IN_A_ROW` failures with no step between them the run ends with RuntimeError. Numbers that are none
    are no failure of a worker: they end the run as they do in this process.
    """

    def __init__(self, problem: OneByOne, count: int):
        if count < 1:
            raise ValueError(f"at least one environment is needed, not {count}")
        self.problem, self.count, self.seed, self.restarts = problem, count, 0, 0
        workers = min(problem.workers, count)
        cuts = [count * k // workers for k in range(workers + 1)]
        self.parts = [slice(*cut) for cut in pairwise(cuts)]
        ways = multiprocessing.get_all_start_methods()
        self.context: Any = multiprocessing.get_context("forkserver" if "forkserver" in ways else "spawn")
        if "forkserver" in ways:
            self.context.set_forkserver_preload(["steepest.problems.gym"])  # imported once for all workers
        self.layout = layout(problem, count)
        self.memory = self.context.RawArray("b", sum(size for *_, size in self.layout))
        self.shared = views(self.memory, self.layout)
        self.episode, self.seen = np.zeros(count, np.int64), self.shared["obs"].copy()
        self.failed = [0] * workers
        self.pipes: list[Any] = [None] * workers
        self.processes: list[Any] = [None] * workers
        weakref.finalize(self, stop, self.pipes, self.processes)
        for k in range(workers):
            self.start(k)
        self.mend(self.ask(dict.fromkeys(range(workers), ("ready",)), STARTING), anew=False)
        self.resumes = problem.local(1).resumes

    # ------------------------------------------------------------------------------------ talking

    def start(self, k: int) -> None:
        """A process for part k, whatever became of the one before."""
        stop(self.pipes[k : k + 1], self.processes[k : k + 1])
        ours, theirs = self.context.Pipe()
        import gymnasium

        spec = gymnasium.spec(self.problem.id)  # ids that were registered by hand are known in this process alone
        problem = dataclasses.replace(self.problem)  # type: ignore[type-var]  # without what it has cached
        args = (theirs, problem, spec, self.memory, self.layout, self.parts[k])
        process = self.context.Process(target=serve, args=args, daemon=True)
        process.start()
        theirs.close()
        self.pipes[k], self.processes[k] = ours, process

    def ask(self, questions: dict[int, tuple[Any, ...]], grace: float = 0.0) -> dict[int, tuple[str, Any]]:
        """Questions by worker -> ("done", answer), or ("failed", the reason), by worker; raises what ends the run."""
        told: dict[int, tuple[str, Any]] = {}
        for k, question in questions.items():
            try:
                self.pipes[k].send(question)
            except OSError:
                told[k] = ("failed", self.death(k))
        left = {self.pipes[k]: k for k in questions if k not in told}
        patience = self.problem.patience + grace
        end = time.monotonic() + patience
        while left:
            ready = wait(list(left), max(0.0, end - time.monotonic()))
            if not ready:
                told |= {k: ("failed", f"it gave no answer for {patience:g} seconds") for k in left.values()}
                break
            for pipe in ready:
                k = left.pop(pipe)  # type: ignore[arg-type]
                try:
                    told[k] = self.pipes[k].recv()
                except (EOFError, OSError):
                    told[k] = ("failed", self.death(k))
        for kind, answer in told.values():
            if kind == "undefined":
                raise ValueError(answer)
        return told

    def death(self, k: int) -> str:
        self.processes[k].join(1.0)
        return f"it died (exit code {self.processes[k].exitcode})"

    def mend(self, told: dict[int, tuple[str, Any]], *, anew: bool = True) -> list[int]:
        """Start the workers that failed again, with new episodes if `anew`, and say which they were."""
        lost = [k for k, (kind, _) in told.items() if kind == "failed"]
        todo = {k: told[k][1] for k in lost}
        while todo:
            for k, reason in todo.items():
                self.restarts += 1
                self.failed[k] += 1
                if self.failed[k] >= IN_A_ROW:
                    part = self.parts[k]
                    raise RuntimeError(
                        f"{self.problem.id}: the worker of environments {part.start} to {part.stop - 1} failed {IN_A_ROW} times in "
                        f"a row, the last time because {reason}. workers=0 shows the environment's own error; a slow one needs "
                        f"more patience (now {self.problem.patience:g} seconds)"
                    )
                self.start(k)
            ask = ("renew", self.seed) if anew else ("ready",)
            for k in todo:
                self.shared["episode"][self.parts[k]] = self.episode[self.parts[k]]
            again = self.ask(dict.fromkeys(todo, ask), STARTING)
            todo = {k: reason for k, (kind, reason) in again.items() if kind == "failed"}
        return lost

    # ------------------------------------------------------------------------------------ stepping

    def reset(self, rng: Stream) -> Tensor:
        self.seed = rng.seed
        self.episode[:] = self.shared["episode"][:] = 0
        self.mend(self.ask(dict.fromkeys(range(len(self.parts)), ("renew", self.seed))))
        return self.keep()

    def keep(self) -> Tensor:
        self.seen, self.episode = self.shared["obs"].copy(), self.shared["episode"].copy()
        return torch.from_numpy(self.seen.copy())

    def step(self, action: Tensor) -> Step:
        np.copyto(self.shared["action"], action.numpy().reshape(self.shared["action"].shape), "unsafe")
        told = self.ask(dict.fromkeys(range(len(self.parts)), ("step",)))
        lost = self.mend(told)
        for k in told.keys() - set(lost):
            self.failed[k] = 0
        shared = self.shared
        for k in lost:
            part = self.parts[k]
            shared["next_obs"][part] = self.seen[part]
            shared["reward"][part] = 0
            shared["terminated"][part], shared["truncated"][part] = False, True
        rest = [torch.from_numpy(shared[name].copy()) for name in ("next_obs", "reward", "terminated", "truncated")]
        return Step(self.keep(), *rest)

    def get_state(self) -> dict[str, Tensor]:
        told = self.ask(dict.fromkeys(range(len(self.parts)), ("get",)))
        for kind, answer in told.values():
            if kind == "failed":
                raise RuntimeError(f"{self.problem.id}: a worker's state is lost, because {answer}. Go on from the last checkpoint")
        rows = [told[k][1] for k in range(len(self.parts))]
        parts = {name: torch.from_numpy(np.concatenate([row[name] for row in rows])) for name in rows[0] if name != "seed"}
        return parts | {"seed": torch.tensor([self.seed]), "seen": torch.from_numpy(self.seen.copy())}

    def set_state(self, state: dict[str, Tensor]) -> None:
        self.seed, self.episode = int(state["seed"][0]), state["episode"].numpy().copy()
        self.seen = state["seen"].numpy().copy()
        rows = {name: x.numpy() for name, x in state.items() if name not in ("seed", "seen")}
        todo = {}
        for k, part in enumerate(self.parts):
            todo[k] = ("set", {name: x[part] for name, x in rows.items()} | {"seed": state["seed"].numpy()})
        while lost := self.mend(self.ask(todo), anew=False):
            todo = {k: todo[k] for k in lost}

    def metrics(self) -> dict[str, float]:
        restarts, self.restarts = self.restarts, 0
        return {"worker_restarts": float(restarts)}


def layout(problem: OneByOne, count: int) -> list[tuple[str, tuple[int, ...], Any, int]]:
    """Name, shape, type and bytes of what is shared."""
    seen, takes = problem.observation_space, problem.action_space
    row = ((count, flat_size(seen)), np.dtype(np.uint8 if is_bytes(seen) else np.float32))
    taken = ((count, *takes.shape), np.dtype(np.float32 if hasattr(takes, "low") else np.int64))
    one = {"reward": np.float32, "terminated": np.bool_, "truncated": np.bool_, "episode": np.int64}
    found = {"obs": row, "next_obs": row, "action": taken} | {name: ((count,), np.dtype(kind)) for name, kind in one.items()}
    return [(name, shape, kind, -(-int(np.prod(shape)) * kind.itemsize // 64) * 64) for name, (shape, kind) in found.items()]


def views(memory: Any, parts: list[tuple[str, tuple[int, ...], Any, int]]) -> dict[str, Array]:
    found, at = {}, 0
    for name, shape, kind, size in parts:
        found[name] = np.frombuffer(memory, kind, int(np.prod(shape)), at).reshape(shape)
        at += size
    return found


def stop(pipes: list[Any], processes: list[Any]) -> None:
    for pipe in pipes:
        if pipe is not None:
            pipe.close()
    for process in processes:
        if process is not None:
            process.kill()
            process.join()


def serve(pipe: Any, problem: OneByOne, spec: Any, memory: Any, parts: Any, part: slice) -> None:
    """The worker: its part of the environments, until nobody asks any more."""
    import gymnasium

    from .registered import Undefined

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who is interrupted is the run
    torch.set_num_threads(1)
    gymnasium.registry.setdefault(spec.id, spec)
    shared = {name: x[part] for name, x in views(memory, parts).items()}
    action = torch.from_numpy(shared["action"])
    vector = None
    while True:
        try:
            what, *told = pipe.recv()
        except (EOFError, OSError):
            return
        answer: tuple[str, Any] = ("done", None)
        try:
            if vector is None:
                vector = problem.local(part.stop - part.start, part.start)
            if what == "step":
                step = vector.step(action)
                for name in ("obs", "next_obs", "reward", "terminated", "truncated"):
                    shared[name][:] = getattr(step, name).numpy()
            elif what == "renew":
                (vector.seed,) = told
                vector.episode[:] = shared["episode"]
                vector.renew(np.arange(vector.count), shared["obs"])
            elif what == "get":
                answer = ("done", {name: x.numpy() for name, x in vector.get_state().items()})
            elif what == "set":
                vector.set_state({name: torch.from_numpy(x) for name, x in told[0].items()})
            shared["episode"][:] = vector.episode
        except Undefined as error:
            answer = ("undefined", str(error))
        except Exception as error:  # whatever an environment raises, the run is told
            answer = ("failed", f"it raised {type(error).__name__}: {error}")
        pipe.send(answer)
