"""Checkpoints: folders that are whole or not there, hold every bit of a State, and run no code when they are read."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import shutil
import time
import uuid
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .. import __version__
from .state import State

FORMAT = 1  # of the folder; another one is refused
TENSORS, NOTES = "state.safetensors", "steepest.json"
IDENTITY = ("system", "options", "problem", "problem_options")  # what two runs must share to go on from one another
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


class Unsound(ValueError):
    """A folder that is no whole checkpoint: half-written, cut short or altered."""


# ------------------------------------------------------------------------------------ one checkpoint


def save(folder: str | Path, state: State, meta: dict[str, Any]) -> Path:
    """Write `state` to `folder`, whole or not at all; an older checkpoint there is replaced only once the new one is durable.

    folder  gets `state.safetensors` (every tensor, bitwise), `steepest.json` (everything else) and, where the policy
            has ``export(folder)``, what that writes
    meta    plain values, saved along: names and options of system and problem, seed

    Raises OSError where there is no room (nothing is left behind) and TypeError where the State holds what is
    neither a tensor nor plain.
    """
    folder = Path(folder)
    tensors: dict[str, Tensor] = {}
    tree = encode(state.state_dict(), "", tensors, {})
    told = {"version": __version__, "torch": torch.__version__, "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "step": state.step}
    notes: dict[str, Any] = {"format": FORMAT, **told, **meta, "state": tree}
    draft = hidden(folder, "draft")
    try:
        draft.mkdir(parents=True)
        try:
            save_file(tensors, draft / TENSORS)
        except KeyError as error:
            raise TypeError(f"State holds a tensor of {error}, which a checkpoint cannot hold: keep whole bytes") from error
        if hasattr(getattr(state, "policy", None), "export"):
            state.policy.export(draft)
        written = [path for path in sorted(draft.rglob("*")) if path.is_file()]
        notes["files"] = {str(path.relative_to(draft)): [path.stat().st_size, digest(path)] for path in written}
        notes["digest"] = digest(notes)
        (draft / NOTES).write_text(json.dumps(notes), encoding="utf-8")
        for path in written:  # safetensors lets nobody else read what it writes
            path.chmod((draft / NOTES).stat().st_mode)
        for path in (*written, draft / NOTES, *(p for p in draft.rglob("*") if p.is_dir()), draft):
            flush(path)
        put(draft, folder)
    except BaseException as error:
        shutil.rmtree(draft, ignore_errors=True)
        if full(error):
            size = sum(x.numel() * x.element_size() for x in tensors.values()) / 2**20
            raise OSError(
                errno.ENOSPC,
                f"no room for a checkpoint of about {size:.0f} MiB and what the policy exports; earlier checkpoints are "
                "untouched: free some room, or choose a folder on another disk",
                str(folder),
            ) from error
        raise
    return folder


def load(folder: str | Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The tree that ``state.state_dict()`` gave, tensors on the CPU, and the meta data.

    Raises Unsound where the folder is no whole checkpoint, ValueError where a newer format wrote it.
    """
    folder = standing(Path(folder))
    notes = read_notes(folder)
    try:
        with safe_open(folder / TENSORS, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it is no dict
        return decode(notes.pop("state"), tensors), notes
    except (OSError, SafetensorError, KeyError, TypeError) as error:
        raise Unsound(f"{folder / TENSORS} cannot be read ({error}): it is damaged; take an earlier checkpoint") from error


def restore(state: State, folder: str | Path, meta: dict[str, Any] | None = None) -> dict[str, Any]:
    """Put a checkpoint's numbers into `state`, bitwise, and return its meta data.

    state  as `begin` made it, for the same system, problem and options
    meta   names and options of that system and problem: refused where the checkpoint names others

    Raises ValueError, before anything is changed, where the checkpoint does not fit.
    """
    tree, notes = load(folder)
    for name in IDENTITY:
        if meta is not None and name in meta and notes.get(name) != meta[name]:
            raise ValueError(
                f"{folder} was written with {name} {show(notes.get(name), meta[name])}, this run has "
                f"{show(meta[name], notes.get(name))}: it cannot go on from there"
            )
    own = state.state_dict()
    wrong = [f"{name} {what(tree.get(name))}, here {what(own.get(name))}" for name in {**own, **tree} if not alike(own, tree, name)]
    if (theirs := trained(tree)) != (here := trained(own)):
        wrong.append(f"its optimizers train {theirs}, here {here} (tensors by group)")
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise ValueError(
            f"{folder}, written by {notes.get('system', 'a system')} with {notes.get('options', 'other options')}, does not fit "
            f"this State: {'; '.join(wrong[:3])}{more}. It belongs to another system or to other options"
        )
    put_back(state, tree)
    return notes


def trained(tree: dict[str, Any]) -> dict[str, list[int]]:
    """How many tensors each optimizer of a State's tree has in its groups."""
    optimizers = tree.get("_extra_state", {}).get("optimizers", {})
    return {name: [len(group["params"]) for group in saved["param_groups"]] for name, saved in optimizers.items()}


def put_back(state: State, tree: dict[str, Any]) -> None:
    """``state.load_state_dict(tree)``, and optimizers' numbers in their own dtype: torch casts them to the parameter's."""
    state.load_state_dict(tree)
    for name, optimizer in state.optimizers.items():
        saved = tree["_extra_state"]["optimizers"].get(name, {}).get("state", {})
        params = [p for group in optimizer.param_groups for p in group["params"]]
        for index, entries in saved.items():
            held = optimizer.state[params[index]]
            for entry, x in entries.items():
                if isinstance(x, Tensor) and held[entry].dtype != x.dtype:
                    held[entry] = x.to(held[entry].device, copy=True)


def read_notes(folder: Path) -> dict[str, Any]:
    """`steepest.json`, once it and every file that it names are as they were written."""
    try:
        notes = json.loads((folder / NOTES).read_text(encoding="utf-8"))
        form, files = notes["format"], notes["files"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Unsound(f"{folder} is no checkpoint: {NOTES} is missing or cannot be read ({error})") from error
    if form != FORMAT:
        raise ValueError(
            f"{folder} was written by steepest {notes.get('version')} in format {form}; this is steepest {__version__}, "
            f"which reads format {FORMAT}: use the version that wrote it"
        )
    if notes.pop("digest", None) != digest(notes):
        raise Unsound(f"{folder} is damaged: {NOTES} is not as it was written")
    for name, (size, wanted) in files.items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != size:
            there = f"has {path.stat().st_size} bytes" if path.is_file() else "is missing"
            raise Unsound(f"{folder} is damaged: {name} {there}, {size} bytes were written")
        if digest(path) != wanted:
            raise Unsound(f"{folder} is damaged: {name} is not as it was written")
    return notes


def digest(what: Path | dict[str, Any]) -> str:
    """SHA-256 of a file's bytes, or of a tree as JSON."""
    if isinstance(what, dict):
        return hashlib.sha256(json.dumps(what).encode()).hexdigest()
    with open(what, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# ------------------------------------------------------------------------------------ several of them


@dataclass(frozen=True)
class Checkpoints:
    """Folders `step-000000123` below `root`: the last ones and the best.

    root  the folder of the folders
    keep  how many of the latest are kept
    best  the metric, of those given to `save`, whose highest is kept too; None: no best
    """

    root: Path
    keep: int = 3
    best: str | None = None

    def __post_init__(self) -> None:
        if self.keep < 1:
            raise ValueError(f"at least one checkpoint is kept, not {self.keep}")

    def save(self, state: State, meta: dict[str, Any], metrics: dict[str, float] | None = None) -> Path:
        """Write `state`; then, and only then, remove what need not be kept. Unsound folders are left alone and do not count."""
        for folder in folders(self.root):
            if standing(folder) != folder:  # a process died while it replaced this one
                os.rename(standing(folder), folder)
        path = save(self.root / f"step-{state.step:09d}", state, {**meta, "metrics": metrics or {}})
        sound = {folder: notes for folder, notes in ((f, attempt(f)) for f in folders(self.root)) if isinstance(notes, dict)}
        kept = set(list(sound)[-self.keep :])
        rated = {f: notes["metrics"][self.best] for f, notes in sound.items() if self.best in notes.get("metrics", {})}
        rated = {folder: x for folder, x in rated.items() if math.isfinite(x)}
        if rated:
            kept.add(max(rated, key=lambda folder: rated[folder]))
        for folder in sound.keys() - kept - {path}:
            trash = hidden(folder, "trash")
            os.rename(folder, trash)  # so that a folder is never half removed under its own name
            shutil.rmtree(trash, ignore_errors=True)
        for leftover in self.root.glob(".step-*"):  # of processes that were killed; this run is the folder's only writer
            shutil.rmtree(leftover, ignore_errors=True)
        return path


def latest(root: str | Path) -> Path | None:
    """The newest whole checkpoint below `root`, or None; warns of newer ones that are not whole."""
    for folder in reversed(folders(Path(root))):
        notes = attempt(folder)
        if isinstance(notes, dict):
            return folder
        warnings.warn(f"ignored: {notes}", stacklevel=2)
    return None


def folders(root: Path) -> list[Path]:
    """By step, oldest first."""
    names = {path.name for path in root.glob("step-*")} | {path.name[1:-4] for path in root.glob(".step-*.old")}
    return [root / name for name in sorted(names)]


def attempt(folder: Path) -> dict[str, Any] | Unsound:
    """What the checkpoint notes, or why it is none."""
    try:
        folder = standing(folder)
        notes = read_notes(folder)
        with safe_open(folder / TENSORS, "pt"):  # compares the header with the file's length
            return notes
    except Unsound as error:
        return error
    except (OSError, SafetensorError) as error:
        return Unsound(f"{folder / TENSORS} cannot be read ({error})")


# ------------------------------------------------------------------------------------ files


def hidden(folder: Path, role: str) -> Path:
    """A sibling that `latest` does not take for a checkpoint. Drafts of different writers never meet."""
    return folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.{role}" if role != "old" else f".{folder.name}.old")


def standing(folder: Path) -> Path:
    """`folder`, or what it replaced where the process died between the two renames of `put`."""
    old = hidden(folder, "old")
    return old if not folder.exists() and old.exists() else folder


def put(draft: Path, folder: Path) -> None:
    """Rename `draft` to `folder`, durably. At every moment the old or the new one can be loaded."""
    old = hidden(folder, "old")
    if folder.exists():
        shutil.rmtree(old, ignore_errors=True)
        os.rename(folder, old)
    os.rename(draft, folder)
    flush(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def flush(path: Path) -> None:
    """Force what was written to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if not (path.is_dir() and error.errno in (errno.EINVAL, errno.EACCES)):  # some file systems cannot flush a folder
            raise
    finally:
        os.close(handle)


def full(error: BaseException) -> bool:
    if isinstance(error, OSError) and error.errno in NO_ROOM:
        return True
    return any(f"os error {number}" in str(error) or f"code: {number}," in str(error) for number in NO_ROOM)


# ------------------------------------------------------------------------------------ trees as JSON


def encode(tree: Any, path: str, tensors: dict[str, Tensor], seen: dict[Any, str]) -> Any:
    """`tree` as JSON that gives it back exactly; its tensors go to `tensors`, those that share all their memory once."""
    if tree is None or isinstance(tree, (bool, str)) or type(tree) is int:
        return tree
    if type(tree) is float:
        return tree if math.isfinite(tree) else {"float": repr(tree)}
    if isinstance(tree, Tensor) and tree.is_complex():
        return {"complex": keep(torch.view_as_real(tree.resolve_conj()), path, tensors, seen)}
    if isinstance(tree, Tensor):
        return {"tensor": keep(tree.resolve_neg(), path, tensors, seen)}
    if isinstance(tree, dict):
        return {"dict": [[key(k, path), encode(v, f"{path}.{k}" if path else str(k), tensors, seen)] for k, v in tree.items()]}
    if isinstance(tree, (list, tuple)):
        parts = [encode(part, f"{path}.{i}", tensors, seen) for i, part in enumerate(tree)]
        return parts if isinstance(tree, list) else {"tuple": parts}
    if isinstance(tree, (np.ndarray, np.generic)) and tree.dtype.kind in "biuf":
        array = np.ascontiguousarray(tree) if isinstance(tree, np.ndarray) else np.array(tree)
        kind = "array" if isinstance(tree, np.ndarray) else "scalar"
        return {kind: keep(torch.from_numpy(array.copy().reshape(np.shape(tree))), path, tensors, seen)}
    raise TypeError(
        f"State holds a {type(tree).__qualname__} at {path!r}, which a checkpoint cannot hold: keep tensors (buffers) and plain "
        "numbers, strings, lists, tuples and dicts"
    )


def key(name: Any, path: str) -> Any:
    if isinstance(name, str) or type(name) is int:
        return name
    raise TypeError(f"State holds a dict at {path!r} with the key {name!r}: use strings or integers")


def keep(x: Tensor, path: str, tensors: dict[str, Tensor], seen: dict[Any, str]) -> str:
    if x.layout is not torch.strided or x.is_quantized:
        raise TypeError(f"State holds a {x.layout} tensor at {path!r}: keep dense ones")
    while path in tensors:  # the keys 0 and "0" of one dict
        path += "'"
    same = (x.device, x.data_ptr(), x.dtype, x.shape, x.stride()) if x.numel() else (path,)
    if same not in seen:
        seen[same] = path
        value = x.detach().cpu().contiguous()
        storage = value.untyped_storage()
        # safetensors refuses names that share memory in part: those that do, or may, get memory of their own
        tensors[path] = value.clone() if storage.nbytes() != value.nbytes or storage.data_ptr() in seen else value
        seen[storage.data_ptr()] = path
    return seen[same]


def decode(tree: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(tree, list):
        return [decode(part, tensors) for part in tree]
    if not isinstance(tree, dict):
        return tree
    ((kind, value),) = tree.items()
    if kind == "dict":
        return {name: decode(part, tensors) for name, part in value}
    if kind == "tuple":
        return tuple(decode(part, tensors) for part in value)
    if kind == "float":
        return float(value)
    if kind == "complex":
        return torch.view_as_complex(tensors[value])
    if kind in ("array", "scalar"):
        array = tensors[value].numpy()
        return array if kind == "array" else array[()]
    return tensors[value]


def alike(one: dict[str, Any], two: dict[str, Any], name: str) -> bool:
    """Whether both hold the entry, and it has one shape and dtype."""
    if name not in one or name not in two:
        return False
    a, b = one[name], two[name]
    return not isinstance(a, Tensor) or (isinstance(b, Tensor) and a.shape == b.shape and a.dtype == b.dtype)


def what(x: Any) -> str:
    if isinstance(x, Tensor):
        return f"is {list(x.shape)} {str(x.dtype).removeprefix('torch.')}"
    return "is absent" if x is None else f"is a {type(x).__name__}"


def show(mine: Any, other: Any) -> str:
    """What differs: of two dicts only the entries that do."""
    if isinstance(mine, dict) and isinstance(other, dict):
        return ", ".join(f"{k}={mine.get(k)!r}" for k in {**mine, **other} if mine.get(k) != other.get(k))
    return repr(mine)
