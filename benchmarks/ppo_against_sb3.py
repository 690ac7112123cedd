"""Environment steps per CPU second of PPO, and CPU seconds until it is good: steepest against Stable-Baselines3, in one run.

    python benchmarks/ppo_against_sb3.py --peer-python /path/to/venv-with-sb3/bin/python

Both have the same settings, environments and number of steps, each in a process of its own with one thread, in turns;
the order changes every round, and a round's number is its seed. See README.md.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from contextlib import suppress
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

# id, environments, steps in each, passes, minibatches, learning rate, entropy bonus, running normalisation, steps in all,
# episodes that the final return is the mean of
TASKS: dict[str, dict[str, Any]] = {
    "CartPole-v1": dict(
        envs=4, horizon=128, epochs=4, minibatches=4, lr=2.5e-4, entropy=0.01, normalize=False, steps=102_400, window=250
    ),
    "HalfCheetah-v5": dict(
        envs=8, horizon=256, epochs=10, minibatches=32, lr=3e-4, entropy=0.0, normalize=True, steps=102_400, window=20
    ),
    "HalfCheetah-v5 alone": dict(
        id="HalfCheetah-v5", envs=1, horizon=2048, epochs=10, minibatches=32, lr=3e-4, entropy=0.0, normalize=True, steps=51_200,
        window=20,
    ),
    # the settings that rl-zoo3 found for Stable-Baselines3, whose clip range falls with the learning rate; ours stays
    "CartPole-v1 to 475": dict(
        id="CartPole-v1", envs=8, horizon=32, epochs=20, minibatches=1, lr=1e-3, entropy=0.0, normalize=False, steps=102_400,
        window=20, target=475.0, discount=0.98, decay=0.8,
    ),
}  # fmt: skip
# times the peer's steps per CPU second; with a target, times fewer CPU seconds until the last `window` episodes reach it
REQUIRED = {"CartPole-v1": 10.0, "HalfCheetah-v5": 3.0, "HalfCheetah-v5 alone": 3.0, "CartPole-v1 to 475": 5.0}
GOAL = {"CartPole-v1": 24.0, "HalfCheetah-v5": 5.0, "HalfCheetah-v5 alone": 5.0, "CartPole-v1 to 475": 18.0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", help="a Python that can import stable-baselines3==2.9.2")
    parser.add_argument("--rounds", type=int, default=5, help="processes of each library and task; at least 2")
    parser.add_argument("--task", choices=tuple(TASKS), help="this task alone; what is recorded of the other is kept")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "ppo_against_sb3.json")
    parser.add_argument("--side", choices=("steepest", "gym", "sb3"), help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        run = run_sb3 if options.side == "sb3" else run_steepest
        print(json.dumps(run(options.task, options.seed, options.side)))
        return
    if not options.peer_python:
        parser.error(
            "--peer-python is needed: python -m venv peer && "
            "peer/bin/pip install torch==2.13.0 stable-baselines3==2.9.2 'gymnasium[mujoco]==1.4.0'"
        )
    if options.rounds < 2:
        parser.error("--rounds must be at least 2: returns are compared over seeds")
    found: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for task in [options.task] if options.task else TASKS:
        # `steepest` on its own engine, and beside it on Gymnasium's environments, which Stable-Baselines3 steps
        sides = ("steepest", "gym", "sb3")
        found[task] = {side: [] for side in sides}
        for number in range(options.rounds):
            for side in sides if number % 2 == 0 else sides[::-1]:
                python = options.peer_python if side == "sb3" else sys.executable
                found[task][side].append(measure(python, side, task, number))
                shown = (f"{k} {v:.5g}" for k, v in found[task][side][-1].items() if isinstance(v, float))
                print(f"{task} {side:9s}", *shown, flush=True)
    tasks = {task: summary(task, runs) for task, runs in found.items()}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    kept = json.loads(options.out.read_text()) if options.task and options.out.exists() else {}
    options.out.write_text(json.dumps({**kept, **tasks}, indent=1) + "\n")
    for task, told in tasks.items():
        print(task, json.dumps({k: told[k] for k in ("ratio", "return", "passed")}))
    sys.exit(0 if all(told["passed"] for told in tasks.values()) else 1)


def measure(python: str, side: str, task: str, seed: int) -> dict[str, Any]:
    env = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [python, __file__, "--side", side, "--task", task, "--seed", str(seed)]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"the {side} process failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def summary(task: str, found: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Ratios of medians; returns are no worse where ours lack no more than twice the standard error of the difference."""
    aimed = "target" in TASKS[task]
    figure = "cpu_s" if aimed else "steps_per_cpu_s"
    medians = {side: statistics.median(run[figure] for run in runs) for side, runs in found.items()}
    ratio = {side: x / medians["sb3"] for side, x in medians.items() if side != "sb3"}
    ratio = {side: round(1 / x if aimed else x, 3) for side, x in ratio.items()}
    returns = {side: [run["final_return"] for run in runs] for side, runs in found.items()}
    lacking = statistics.mean(returns["sb3"]) - statistics.mean(returns["steepest"])
    error = math.sqrt(sum(statistics.variance(returns[side]) / len(returns[side]) for side in ("sb3", "steepest")))
    good = all(run["reached"] for run in found["steepest"]) if aimed else lacking <= 2 * error
    return {
        "date": date.today().isoformat(),
        "setting": {**TASKS[task], "threads": 1},
        figure: {side: round(x, 3) for side, x in medians.items()},
        "ratio": ratio,
        "return": {side: round(statistics.mean(x), 2) for side, x in returns.items()},
        "return_difference_error": round(error, 2),
        "goal": GOAL[task],
        "required": {
            "ratio": REQUIRED[task],
            "return": "the target, in every run" if aimed else "no worse than the peer's by 2 standard errors of the difference",
        },
        "passed": ratio["steepest"] >= REQUIRED[task] and good,
        "runs": found,
    }


def told(task: str, steps: int, cpu: float, wall: float, episodes: list[float], packages: tuple[str, ...]) -> dict[str, Any]:
    mean = statistics.mean(episodes)
    return {
        "steps": steps,
        "cpu_s": cpu,
        "steps_per_cpu_s": steps / cpu,
        "steps_per_wall_s": steps / wall,
        "final_return": mean,
        "reached": mean >= TASKS[task].get("target", -math.inf),
        "versions": {name: version(name) for name in packages},
    }


# -------------------------------------------------------------------------------------------------- the sides


def run_steepest(task: str, seed: int, side: str) -> dict[str, Any]:
    import torch

    from steepest.core import begin, train
    from steepest.problems.control import CartPole
    from steepest.problems.gym import Gym
    from steepest.problems.robots import Mujoco
    from steepest.systems.on_policy.ppo import ppo

    torch.set_num_threads(1)
    s = TASKS[task]
    name = s.get("id", task)
    problem = Gym(name) if side == "gym" else CartPole() if name == "CartPole-v1" else Mujoco(name)
    steps = s["steps"] // (s["envs"] * s["horizon"])
    system = ppo(
        envs=s["envs"], horizon=s["horizon"], epochs=s["epochs"], minibatches=s["minibatches"], lr=s["lr"],
        entropy_weight=s["entropy"], normalize=s["normalize"], value_weight=1.0,  # their 0.5 is of the square, ours of its half
        discount=s.get("discount", 0.99), decay=s.get("decay", 0.95), anneal=steps if "target" in s else None,
    )  # fmt: skip
    torch.optim.Adam([torch.zeros(1)])  # the first optimizer imports torch's compiler, seconds that belong to neither side
    cpu, wall = time.process_time(), time.perf_counter()
    state = begin(system, problem, seed=seed)
    last: list[float] = []
    for record in train(system, problem, steps=steps, seed=seed, state=state):
        row = record.metrics
        last += [row["return"]] * int(row["episodes"]) if "return" in row else []
        last = last[-s["window"] :]
        if len(last) == s["window"] and statistics.mean(last) >= s.get("target", math.inf):
            break
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    packages = ("torch", "numpy", "gymnasium", "mujoco", "steepest")
    return told(task, state.step * s["envs"] * s["horizon"], cpu, wall, last, packages)


def run_sb3(task: str, seed: int, side: str) -> dict[str, Any]:
    import torch
    from stable_baselines3 import PPO
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.vec_env import VecNormalize

    torch.set_num_threads(1)
    s = TASKS[task]

    class Enough(BaseCallback):
        def _on_step(self) -> bool:
            return True

        def _on_rollout_end(self) -> None:
            last = [episode["r"] for episode in self.model.ep_info_buffer]
            if len(last) == s["window"] and statistics.mean(last) >= s.get("target", math.inf):
                raise StopIteration

    torch.optim.Adam([torch.zeros(1)])  # as above
    cpu, wall = time.process_time(), time.perf_counter()
    envs: Any = make_vec_env(s.get("id", task), n_envs=s["envs"], seed=seed)
    if s["normalize"]:
        envs = VecNormalize(envs)
    falls = (lambda left: left * s["lr"]), (lambda left: left * 0.2)
    rate, band = falls if "target" in s else (s["lr"], 0.2)
    model = PPO(
        "MlpPolicy", envs, learning_rate=rate, clip_range=band, n_steps=s["horizon"],
        batch_size=s["envs"] * s["horizon"] // s["minibatches"], n_epochs=s["epochs"], ent_coef=s["entropy"],
        gamma=s.get("discount", 0.99), gae_lambda=s.get("decay", 0.95), seed=seed, device="cpu", stats_window_size=s["window"],
    )  # fmt: skip
    with suppress(StopIteration):
        model.learn(s["steps"], callback=Enough())
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    last = [float(episode["r"]) for episode in model.ep_info_buffer]
    packages = ("torch", "numpy", "gymnasium", "mujoco", "stable-baselines3")
    return told(task, model.num_timesteps, cpu, wall, last, packages)


if __name__ == "__main__":
    main()
