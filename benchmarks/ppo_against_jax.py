"""Environment steps per CPU second of PPO on CartPole: steepest against the peers on JAX, PureJaxRL and SBX, measured in one run.

    python benchmarks/ppo_against_jax.py --peer-python peer/bin/python --purejaxrl /path/to/a/clone/of/purejaxrl

All have the same settings, each in a process of its own with one thread, in turns; the order changes every round, and a round's
number is its seed. What a peer needs to compile is left out of its rate and told beside it. See README.md.
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
import types
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

COMMON: dict[str, Any] = dict(horizon=128, epochs=4, minibatches=4, lr=2.5e-4, entropy=0.01)
ROWS: dict[str, dict[str, Any]] = {
    "4 environments": dict(COMMON, envs=4, steps=512_000),
    "64 environments": dict(COMMON, envs=64, steps=1_024_000),
}  # fmt: skip
REQUIRED = {"4 environments": 0.0, "64 environments": 0.5}  # of PureJaxRL's steps per CPU second
LAST = 20  # the final return is the mean over the episodes that end in the last 1/20 of the training
SBX_STEPS = 51_200  # it takes a minute for more; its return is that of the last 100 episodes, after fewer steps than the others


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", help="a Python with jax, gymnax==0.0.9, flax, optax, distrax and sbx-rl")
    parser.add_argument("--purejaxrl", type=Path, help="a clone of github.com/luchris429/purejaxrl")
    parser.add_argument("--rounds", type=int, default=5, help="processes of each library and row; at least 2")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "ppo_against_jax.json")
    parser.add_argument("--side", choices=tuple(SIDES), help=argparse.SUPPRESS)
    parser.add_argument("--row", choices=tuple(ROWS), help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        print(json.dumps(SIDES[options.side](ROWS[options.row], options.seed, options.purejaxrl)))
        return
    if not (options.peer_python and options.purejaxrl):
        parser.error(
            "--peer-python and --purejaxrl are needed: python -m venv peer && peer/bin/pip install torch==2.13.0 jax==0.10.2 "
            "gymnax==0.0.9 flax optax distrax sbx-rl==0.28.0 && git clone https://github.com/luchris429/purejaxrl"
        )
    if options.rounds < 2:
        parser.error("--rounds must be at least 2: returns are compared over seeds")
    found: dict[str, Any] = {}
    for row in ROWS:
        runs: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
        for number in range(options.rounds):
            for side in tuple(SIDES) if number % 2 == 0 else tuple(SIDES)[::-1]:
                python = sys.executable if side == "steepest" else options.peer_python
                runs[side].append(measure(python, side, row, number, options.purejaxrl))
                print(row, f"{side:9s}", json.dumps({k: v for k, v in runs[side][-1].items() if k != "versions"}), flush=True)
        found[row] = summary(row, runs)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(found, indent=1) + "\n")
    for row, told in found.items():
        print(row, json.dumps({k: told[k] for k in ("steps_per_cpu_s", "ratio_to_purejaxrl", "return", "passed")}))
    sys.exit(0 if all(told["passed"] for told in found.values()) else 1)


def measure(python: str, side: str, row: str, seed: int, clone: Path) -> dict[str, Any]:
    one = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "JAX_PLATFORMS": "cpu"}
    command = [python, __file__, "--side", side, "--row", row, "--seed", str(seed), "--purejaxrl", str(clone)]
    core = sorted(os.sched_getaffinity(0))[-1]  # XLA takes as many threads as it may use processors
    done = subprocess.run(
        command, env={**os.environ, **one}, capture_output=True, text=True, preexec_fn=lambda: os.sched_setaffinity(0, {core})
    )
    if done.returncode:
        raise SystemExit(f"the {side} process failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def summary(row: str, runs: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    rates = {side: statistics.median(run["steps_per_cpu_s"] for run in found) for side, found in runs.items()}
    ratio = rates["steepest"] / rates["purejaxrl"]
    returns = {side: [run["final_return"] for run in found] for side, found in runs.items()}
    lacking = statistics.mean(returns["purejaxrl"]) - statistics.mean(returns["steepest"])
    error = math.sqrt(sum(statistics.variance(returns[side]) / len(returns[side]) for side in ("purejaxrl", "steepest")))
    return {
        "date": date.today().isoformat(),
        "setting": {**ROWS[row], "threads": 1},
        "steps_per_cpu_s": {side: round(rate, 1) for side, rate in rates.items()},
        "ratio_to_purejaxrl": round(ratio, 3),
        "ratio_to_sbx": round(rates["steepest"] / rates["sbx"], 3),
        "return": {side: round(statistics.mean(x), 1) for side, x in returns.items()},
        "return_difference_error": round(error, 1),
        "required": {"ratio": REQUIRED[row], "return": "no worse than PureJaxRL's by 2 standard errors of the difference"},
        "passed": ratio >= REQUIRED[row] and lacking <= 2 * error,
        "runs": runs,
    }


# -------------------------------------------------------------------------------------------------- the sides


def run_steepest(s: dict[str, Any], seed: int, clone: Path) -> dict[str, Any]:
    import torch

    from steepest.core import begin, train
    from steepest.problems.control import CartPole
    from steepest.systems.on_policy.ppo import ppo

    torch.set_num_threads(1)
    system, problem = ppo(
        envs=s["envs"], horizon=s["horizon"], epochs=s["epochs"], minibatches=s["minibatches"], lr=s["lr"],
        entropy_weight=s["entropy"], value_clip=0.2,
    ), CartPole()  # fmt: skip
    cpu = time.process_time()
    state = begin(system, problem, seed=seed)
    steps = s["steps"] // (s["envs"] * s["horizon"])
    rows = [record.metrics for record in train(system, problem, steps=steps, seed=seed, state=state)]
    cpu = time.process_time() - cpu
    last = [row for row in rows[-max(1, steps // LAST) :] if "return" in row]
    final = sum(row["return"] * row["episodes"] for row in last) / sum(row["episodes"] for row in last)
    return told(s["steps"] / cpu, 0.0, final, ("torch", "steepest"))


def run_purejaxrl(s: dict[str, Any], seed: int, clone: Path) -> dict[str, Any]:
    # its wrappers import two simulators that its CartPole does not need
    names = ("brax", "brax.envs", "brax.envs.wrappers", "brax.envs.wrappers.training", "navix")
    for name in names:
        sys.modules[name] = types.ModuleType(name)
    sys.modules["brax"].envs = sys.modules["brax.envs"]  # type: ignore[attr-defined]
    for name in ("EpisodeWrapper", "AutoResetWrapper"):
        setattr(sys.modules["brax.envs.wrappers.training"], name, object)
    sys.path.insert(0, str(clone / "purejaxrl"))
    import jax
    from ppo import make_train

    config = {
        "LR": s["lr"], "NUM_ENVS": s["envs"], "NUM_STEPS": s["horizon"], "TOTAL_TIMESTEPS": s["steps"],
        "UPDATE_EPOCHS": s["epochs"], "NUM_MINIBATCHES": s["minibatches"], "GAMMA": 0.99, "GAE_LAMBDA": 0.95, "CLIP_EPS": 0.2,
        "ENT_COEF": s["entropy"], "VF_COEF": 0.5, "MAX_GRAD_NORM": 0.5, "ACTIVATION": "tanh", "ENV_NAME": "CartPole-v1",
        "ANNEAL_LR": False,
    }  # fmt: skip
    rng, cpu = jax.random.PRNGKey(seed), time.process_time()
    run = jax.jit(make_train(config)).lower(rng).compile()
    compiled, cpu = time.process_time() - cpu, time.process_time()
    metrics = jax.block_until_ready(run(rng))["metrics"]
    cpu = time.process_time() - cpu
    last = max(1, len(metrics["timestep"]) // LAST)
    ended = metrics["returned_episode"][-last:]  # the other steps repeat the return of the episode before
    final = float(metrics["returned_episode_returns"][-last:][ended].mean())
    return told(s["steps"] / cpu, compiled, final, ("jax", "gymnax", "flax"))


def run_sbx(s: dict[str, Any], seed: int, clone: Path) -> dict[str, Any]:
    from sbx import PPO
    from stable_baselines3.common.env_util import make_vec_env

    model = PPO(
        "MlpPolicy", make_vec_env("CartPole-v1", n_envs=s["envs"], seed=seed), learning_rate=s["lr"], n_steps=s["horizon"],
        batch_size=s["envs"] * s["horizon"] // s["minibatches"], n_epochs=s["epochs"], ent_coef=s["entropy"], seed=seed,
    )  # fmt: skip
    batch, cpu = s["envs"] * s["horizon"], time.process_time()
    model.learn(2 * batch)  # compiles
    compiled, cpu = time.process_time() - cpu, time.process_time()
    steps = max(1, SBX_STEPS // batch) * batch
    model.learn(steps, reset_num_timesteps=False)
    cpu = time.process_time() - cpu
    last = statistics.mean(float(episode["r"]) for episode in model.ep_info_buffer)
    return told(steps / cpu, compiled, last, ("sbx-rl", "jax", "stable-baselines3"))


def told(rate: float, compiled: float, final: float, packages: tuple[str, ...]) -> dict[str, Any]:
    return {
        "steps_per_cpu_s": rate,
        "compile_cpu_s": compiled,
        "final_return": final,
        "versions": {name: version(name) for name in packages},
    }


SIDES = {"steepest": run_steepest, "purejaxrl": run_purejaxrl, "sbx": run_sbx}

if __name__ == "__main__":
    main()
