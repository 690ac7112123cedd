"""How much faster PPO on HalfCheetah-v5 is on two cores than on one, by the clock: steepest against itself, in turns.

    python benchmarks/two_cores.py

Each run is a process of its own that times every training step; the order changes every round, and a round's number is its seed.
See README.md.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import time
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

SETTING = dict(envs=8, horizon=256, epochs=10, minibatches=32, lr=3e-4)
REQUIRED, GOAL = 1.5, 1.8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="processes of each")
    parser.add_argument("--steps", type=int, default=60, help="training steps of a process, of 2,048 environment steps each")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "two_cores.json")
    parser.add_argument("--threads", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.threads:
        print(json.dumps(run(options.threads, options.seed, options.steps)))
        return
    runs: dict[int, list[dict[str, Any]]] = {1: [], 2: []}
    for number in range(options.rounds):
        for threads in (1, 2) if number % 2 == 0 else (2, 1):
            command = [sys.executable, __file__, "--threads", str(threads), "--seed", str(number), "--steps", str(options.steps)]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                raise SystemExit(f"the process with {threads} threads failed:\n{done.stderr[-3000:]}")
            runs[threads].append(json.loads(done.stdout.strip().splitlines()[-1]))
            print(threads, json.dumps({k: v for k, v in runs[threads][-1].items() if k not in ("versions", "result")}), flush=True)
    found = summary(runs)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps({k: v for k, v in found.items() if k != "runs"}))
    sys.exit(0 if found["passed"] else 1)


def summary(runs: dict[int, list[dict[str, Any]]]) -> dict[str, Any]:
    """Of the fastest tenth of all steps of a side, the slowest: other processes only ever make a step slower."""
    seconds = {threads: sorted(s for told in found for s in told["wall_s"]) for threads, found in runs.items()}
    quick = {threads: x[len(x) // 10] for threads, x in seconds.items()}
    medians = {threads: statistics.median(x) for threads, x in seconds.items()}
    same = all(a["result"] == b["result"] for a, b in zip(*runs.values(), strict=True))
    ratio = quick[1] / quick[2]
    return {
        "date": date.today().isoformat(),
        "setting": SETTING,
        "cores": os.cpu_count(),
        "wall_s_of_the_fastest_tenth": {str(threads): round(x, 5) for threads, x in quick.items()},
        "ratio": round(ratio, 3),
        "wall_s_median": {str(threads): round(x, 5) for threads, x in medians.items()},
        "ratio_of_medians": round(medians[1] / medians[2], 3),
        "cpu_s_a_step": {str(k): round(statistics.median(told["cpu_s"] for told in found), 5) for k, found in runs.items()},
        "same_result": same,
        "required": REQUIRED,
        "goal": GOAL,
        "passed": same and ratio >= REQUIRED,
        "runs": {str(threads): found for threads, found in runs.items()},
    }


def run(threads: int, seed: int, steps: int) -> dict[str, Any]:
    import torch

    from steepest.core import begin, train
    from steepest.problems.robots import Mujoco
    from steepest.systems.on_policy.ppo import ppo

    torch.set_num_threads(threads)
    system, problem = ppo(**SETTING, normalize=True, value_weight=1.0), Mujoco("HalfCheetah-v5")
    state = begin(system, problem, seed=seed)
    load, wall = os.getloadavg()[0], []
    records = train(system, problem, steps=steps, seed=seed, state=state)
    next(records)  # imports, and the first episodes
    cpu, before = time.process_time(), time.perf_counter()
    for _ in records:
        wall.append(time.perf_counter() - before)
        before = time.perf_counter()
    cpu = time.process_time() - cpu
    numbers = hashlib.sha256(b"".join(p.detach().numpy().tobytes() for p in state.parameters())).hexdigest()
    packages = ("torch", "numpy", "gymnasium", "mujoco", "steepest")
    told = {"load_before": load, "cpu_s": cpu / len(wall), "wall_s": [round(x, 5) for x in wall], "result": numbers}
    return told | {"versions": {name: version(name) for name in packages}}


if __name__ == "__main__":
    main()
