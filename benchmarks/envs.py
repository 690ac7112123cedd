"""Raw environment steps per second of every engine, under random actions: steepest's, Gymnasium's, EnvPool's, Stable-Baselines3's.

    python benchmarks/envs.py [--envpool-python venv/bin/python] [--sb3-python venv/bin/python] [--task HalfCheetah-v5]

Each measurement is a process of its own, in turns; the order changes every round. See README.md.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

TASKS = ("CartPole-v1", "HalfCheetah-v5", "Hopper-v5", "Ant-v5")
OURS = ("own", "gym", "workers", "mujoco")
GYMNASIUM = ("gymnasium-sync", "gymnasium-async")
SB3 = ("sb3-dummy", "sb3-subproc")
LIBRARIES = ("steepest", "gymnasium", "mujoco", "envpool", "stable-baselines3", "numpy", "torch")
GOAL = 1.0  # of EnvPool's rate on HalfCheetah-v5, 64 environments, 2 threads


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--envpool-python", help="a Python that can import envpool==1.2.5; left out without it")
    parser.add_argument("--sb3-python", help="a Python that can import stable-baselines3==2.9.2; left out without it")
    parser.add_argument("--task", choices=TASKS, help="this task alone; what is recorded of the others is kept")
    parser.add_argument("--envs", type=int, nargs="+", default=[8, 64], help="environments side by side")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="threads, or worker processes")
    parser.add_argument("--rounds", type=int, default=5, help="processes of each")
    parser.add_argument("--seconds", type=float, default=3.0, help="that each is measured for")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "envs.json")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        told = run(options.side, options.task, options.envs[0], options.threads[0], options.seconds)
        print(json.dumps(told))
        return
    pythons = dict.fromkeys((*OURS, *GYMNASIUM), sys.executable)
    pythons |= {"envpool": options.envpool_python} if options.envpool_python else {}
    pythons |= dict.fromkeys(SB3, options.sb3_python) if options.sb3_python else {}
    found: dict[str, Any] = json.loads(options.out.read_text()) if options.task and options.out.exists() else {}
    for task in [options.task] if options.task else TASKS:
        cells: dict[str, dict[str, list[dict[str, Any]]]] = {}
        for number in range(options.rounds):
            for envs in options.envs:
                for threads in options.threads:
                    sides = [side for side in pythons if fits(side, task, threads)]
                    for side in sides if number % 2 == 0 else sides[::-1]:
                        told = measure(pythons[side], side, task, envs, threads, options.seconds)
                        cells.setdefault(f"{envs} environments, {threads} threads", {}).setdefault(side, []).append(told)
                        print(f"{task:15s}{envs:4d} x {threads} {side:16s}{told['per_wall_s']:10.0f}/s", flush=True)
        found[task] = {name: summary(sides) for name, sides in cells.items()}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(found | {"date": date.today().isoformat(), "cores": os.cpu_count()}, indent=1) + "\n")
    cell = found.get("HalfCheetah-v5", {}).get("64 environments, 2 threads", {}).get("per_wall_s", {})
    if "envpool" in cell:
        ratio = cell["mujoco"] / cell["envpool"]
        print(f"HalfCheetah-v5, 64 environments, 2 threads: {ratio:.2f} of EnvPool's rate, required {GOAL}")
        sys.exit(0 if ratio >= GOAL else 1)


def fits(side: str, task: str, threads: int) -> bool:
    """Whether this engine steps this task, and with so many threads."""
    if side in ("own", "mujoco") and (side == "own") != (task == "CartPole-v1"):
        return False
    alone = side in ("own", "gym", "gymnasium-sync", "sb3-dummy")
    apart = side in ("workers", "gymnasium-async", "sb3-subproc")
    return threads == 1 if alone else threads > 1 if apart else True


def measure(python: str, side: str, task: str, envs: int, threads: int, seconds: float) -> dict[str, Any]:
    env = {**os.environ, **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")}
    words = {"side": side, "task": task, "envs": envs, "threads": threads, "seconds": seconds}
    command = [python, __file__, *(str(part) for name, value in words.items() for part in (f"--{name}", value))]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"the {side} process failed on {task}:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def summary(sides: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Medians over the rounds, and the runs."""
    rates = {
        name: {side: round(statistics.median(told[name] for told in runs), 1) for side, runs in sides.items()}
        for name in ("per_wall_s", "per_cpu_s")
    }
    return {**rates, "runs": sides}


# -------------------------------------------------------------------------------------------------- one measurement


def run(side: str, task: str, envs: int, threads: int, seconds: float) -> dict[str, Any]:
    """Steps per second of the clock, and of the processor time of this process and of its workers."""
    import numpy as np

    step = (ours if side in OURS else peers)(side, task, envs, threads)
    g, rows = np.random.default_rng(0), 100
    if task == "CartPole-v1":
        actions = g.integers(2, size=(rows, envs))
    else:
        size = {"HalfCheetah-v5": 6, "Hopper-v5": 3, "Ant-v5": 8}[task]
        actions = g.uniform(-1, 1, (rows, envs, size)).astype(np.float32)
    for action in actions[:10]:
        step(action)
    count, cpu, wall = 0, processor(), time.perf_counter()
    while time.perf_counter() - wall < seconds:
        for action in actions:
            step(action)
        count += rows
    wall, cpu = time.perf_counter() - wall, processor() - cpu
    return {"per_wall_s": count * envs / wall, "per_cpu_s": count * envs / cpu, "versions": dict(versions())}


def processor() -> float:
    """Processor seconds of this process and of the workers that it has now."""
    seconds = time.process_time()
    for child in multiprocessing.active_children():
        stat = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
        seconds += (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")
    return seconds


def versions() -> list[tuple[str, str]]:
    found = []
    for name in LIBRARIES:
        with contextlib.suppress(PackageNotFoundError):
            found.append((name, version(name)))
    return found


def ours(side: str, task: str, envs: int, threads: int) -> Callable[[Any], Any]:
    import torch

    from steepest.core import Stream
    from steepest.problems.control import CartPole
    from steepest.problems.gym import Gym
    from steepest.problems.robots import Mujoco

    torch.set_num_threads(1)
    made = {
        "own": CartPole, "gym": lambda: Gym(task), "workers": lambda: Gym(task, workers=threads),
        "mujoco": lambda: Mujoco(task, threads=threads),
    }  # fmt: skip
    vector = made[side]().make(envs)
    vector.reset(Stream(0))
    return lambda action: vector.step(torch.from_numpy(action))


def peers(side: str, task: str, envs: int, threads: int) -> Callable[[Any], Any]:
    if side == "envpool":
        import envpool

        pool = envpool.make(task, env_type="gymnasium", num_envs=envs, num_threads=threads, seed=0)
        pool.reset()
        return pool.step
    import gymnasium

    makers = [lambda: gymnasium.make(task)] * envs
    if side in SB3:
        from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv

        several = DummyVecEnv(makers) if side == "sb3-dummy" else SubprocVecEnv(makers)
        several.reset()
        return several.step
    vector = gymnasium.vector.SyncVectorEnv(makers) if side == "gymnasium-sync" else gymnasium.vector.AsyncVectorEnv(makers)
    vector.reset(seed=0)
    return vector.step


if __name__ == "__main__":
    main()
