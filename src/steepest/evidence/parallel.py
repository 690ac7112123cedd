"""Runs side by side: one process a core, one thread each, and a failure that names its run."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, NamedTuple, cast

import torch

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class RunFailed(RuntimeError):
    """A run raised, or its process died. The message names the run."""


class Progress(NamedTuple):
    """What a worker says while it runs."""

    job: Any
    step: int
    steps: int
    figure: float | None  # the number that matters, where the step reported it


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def scatter(
    work: Callable[[Any, Callable[[Progress], None]], Any],
    jobs: Sequence[Any],
    *,
    workers: int | None = None,
    tell: Callable[[Progress], None] | None = None,
) -> list[Any]:
    """`work(job, tell)` for every job, in processes of their own; results in the order of the jobs.

    work     a function of a module; what it takes and returns is pickled
    workers  processes; None: one for each core
    tell     is called here, in the parent, with what workers say

    Raises RunFailed at the first job that fails and ends the others.
    """
    if workers is not None and workers < 1:
        raise ValueError(f"workers must be at least 1, not {workers}")
    try:
        parcels = [pickle.dumps((work, job)) for job in jobs]
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ValueError(
            f"runs go to processes of their own, so all of a claim must be importable, and something is not: {error}. "
            "Define it at the top of a module (no lambda, nothing inside a function), or give the claim by its module's name"
        ) from error
    waiting = list(enumerate(parcels))[::-1]
    results: list[Any] = [None] * len(jobs)
    busy: dict[Connection, tuple[int, SpawnProcess]] = {}
    try:
        for _ in range(min(workers or cores(), len(jobs))):
            pipe, process = hire()
            index, parcel = waiting.pop()
            pipe.send_bytes(parcel)
            busy[pipe] = (index, process)
        while busy:
            for ready in wait(list(busy)):
                pipe = cast(Connection, ready)
                index, process = busy[pipe]
                try:
                    kind, value = pipe.recv()
                except (EOFError, OSError):
                    process.join(10)
                    raise RunFailed(
                        f"{jobs[index]}: its process ended with exit code {process.exitcode} and without a word; -9 is most often "
                        "too little memory: use fewer workers. Another code: run with `workers=1` and read its output"
                    ) from None
                if kind == "says":
                    if tell is not None:
                        tell(value)
                    continue
                if kind == "failed":
                    raise RunFailed(f"{jobs[index]} failed\n{value}")
                results[index] = value
                del busy[pipe]
                if waiting:
                    index, parcel = waiting.pop()
                    pipe.send_bytes(parcel)
                    busy[pipe] = (index, process)
                else:
                    pipe.close()
                    process.join()
    finally:
        for pipe, (_, process) in busy.items():
            process.terminate()
            process.join()
            pipe.close()
    return results


def hire() -> tuple[Connection, SpawnProcess]:
    """A fresh process that works with one thread, and the pipe to it."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=serve, args=(theirs,))
    with one_thread():
        process.start()
    theirs.close()
    return ours, process


@contextmanager
def one_thread() -> Iterator[None]:
    """NumPy's and torch's libraries read these when they load, so a child must be born with them."""
    before = {name: os.environ.get(name) for name in THREADS}
    os.environ.update(dict.fromkeys(THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def serve(pipe: Connection) -> None:
    """What a worker does: take a job, run it, answer, until the pipe is closed."""
    torch.set_num_threads(1)
    while True:
        try:
            parcel = pipe.recv_bytes()
        except (EOFError, KeyboardInterrupt):
            return
        try:
            work, job = pickle.loads(parcel)
            answer = ("done", work(job, lambda said: pipe.send(("says", said))))
        except KeyboardInterrupt:
            return
        except Exception:
            answer = ("failed", traceback.format_exc())
        pipe.send(answer)
