"""Where metrics go: JSON lines always; TensorBoard, Weights & Biases and MLflow when asked and installed."""

from __future__ import annotations

import importlib.util
import json
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

from .plan import write_text

Row = dict[str, float]


class Tracker(Protocol):
    def log(self, step: int, row: Row) -> None: ...
    def close(self) -> None: ...


def numbers(metrics: dict[str, Any]) -> Row:
    """Metrics as floats: one-element tensors count, anything else that is not a number does not."""
    found: Row = {}
    for name, x in metrics.items():
        try:
            found[name] = float(x)
        except (TypeError, ValueError, RuntimeError):
            continue
    return found


class JsonLines:
    """`metrics.jsonl`: one row a step. Rows beyond `step`, and a last one cut short by a kill, are removed at the start."""

    def __init__(self, path: Path, step: int):
        self.path, self.seconds = path, 0.0
        kept = [line for line in read_lines(path) if json.loads(line)["step"] <= step]
        if kept:
            self.seconds = json.loads(kept[-1])["seconds"]
        write_text(path, "".join(line + "\n" for line in kept))
        self.file = open(path, "a", encoding="utf-8")  # noqa: SIM115  closed by `close`

    def log(self, step: int, row: Row) -> None:
        sound = {name: x if math.isfinite(x) else None for name, x in row.items()}  # JSON has no NaN
        self.file.write(json.dumps({"step": step, **sound}) + "\n")
        self.file.flush()

    def sync(self) -> None:
        """On the disk: a checkpoint is never ahead of its metrics."""
        if not self.file.closed:
            os.fsync(self.file.fileno())

    def close(self) -> None:
        self.sync()
        self.file.close()


def read_lines(path: Path) -> list[str]:
    """The whole rows of a file that a killed process may have left."""
    if not path.exists():
        return []
    *lines, _torn = path.read_text(encoding="utf-8").split("\n")
    return lines


def tensorboard(out: Path, step: int, config: dict[str, Any]) -> Tracker:
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(out / "tensorboard"), purge_step=step + 1 if step else None)

    class TensorBoard:
        def log(self, step: int, row: Row) -> None:
            for name, x in row.items():
                writer.add_scalar(name, x, step)

        def close(self) -> None:
            writer.close()

    return TensorBoard()


def wandb(out: Path, step: int, config: dict[str, Any]) -> Tracker:
    wandb: Any = importlib.import_module("wandb")
    number = f"{config['started']:x}"  # the same for a resumed run
    run = wandb.init(project="steepest", name=out.name, id=number, dir=str(out), config=config, resume="allow")

    class WeightsAndBiases:
        def log(self, step: int, row: Row) -> None:
            run.log(row, step=step)

        def close(self) -> None:
            run.finish()

    return WeightsAndBiases()


def mlflow(out: Path, step: int, config: dict[str, Any]) -> Tracker:
    mlflow: Any = importlib.import_module("mlflow")
    mlflow.set_experiment("steepest")
    known = out / "mlflow.id"
    run = mlflow.start_run(run_id=known.read_text() if known.exists() else None, run_name=out.name)
    if not known.exists():
        known.write_text(run.info.run_id)
        mlflow.log_params({k: v for k, v in config.items() if k not in ("options", "problem_options")})
        mlflow.log_params({**config["options"], **{f"problem.{k}": v for k, v in config["problem_options"].items()}})

    class MLflow:
        def log(self, step: int, row: Row) -> None:
            mlflow.log_metrics({name.replace("@", "_at_"): x for name, x in row.items()}, step=step)

        def close(self) -> None:
            mlflow.end_run()

    return MLflow()


TRACKERS: MappingProxyType[str, Callable[[Path, int, dict[str, Any]], Tracker]] = MappingProxyType(
    {"tensorboard": tensorboard, "wandb": wandb, "mlflow": mlflow}
)


def trackers(names: Sequence[str]) -> list[Callable[[Path, int, dict[str, Any]], Tracker]]:
    """What opens each; raises ValueError, before anything is opened, where one is unknown or not installed."""
    from ..core.near import nearest

    for name in names:
        if name not in TRACKERS:
            raise ValueError(f"no tracker is called {name!r}{nearest(name, TRACKERS)}: choose of {', '.join(TRACKERS)}")
        if importlib.util.find_spec(name) is None:
            raise ValueError(f"--tracker {name} needs the package {name}, which is not installed: pip install {name}")
    return [TRACKERS[name] for name in names]
