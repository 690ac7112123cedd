"""Rows of a data set, wherever they lie: files, folders, the Hugging Face hub, any Python iterable; each with its place.

JSON and CSV go through Python's own readers, Parquet, saved folders and the hub through `datasets` (the extra `data`). That package
reads JSON and CSV too, but cannot name the line of a fault, and its CSV guesses types: an answer 007 becomes 7.0, NA none at all.
"""

from __future__ import annotations

import csv
import importlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ..core.near import nearest

Source = str | Path | Iterable[Any]  # a path, an id of the hub, or rows themselves
Placed = tuple[str, Any]  # where a row stands, and the row
OTHERS = ("test", "validation", "valid", "val", "dev", "eval")  # splits that are not for training


def read(data: Source, split: str = "train", config: str | None = None) -> Iterator[Placed]:
    """Where each row stands, and the row.

    data    a file (.jsonl, .json, .csv, .tsv, .parquet); a folder of such files, of which those are read whose names begin with
            the split's, or one that `datasets` saved; an id of the hub; or any iterable of rows
    split   of a folder or an id
    config  which of its parts an id of the hub is asked for

    Raises ValueError, with file and line, where something cannot be read.
    """
    if not isinstance(data, (str, Path)):
        return ((f"row {n}", row) for n, row in enumerate(data))
    path = Path(data).expanduser()
    if path.is_file():
        return file(path)
    if path.is_dir():
        return saved(path, split) if is_saved(path) else (row for part in parts(path, split) for row in file(part))
    if isinstance(data, Path) or path.suffix in READERS or len(path.parts) != 2 or data.startswith((".", "/", "~")):
        raise ValueError(f"there is no file {path.absolute()}: give a file, a folder, or OWNER/NAME of the Hugging Face hub")
    return hub(data, split, config)


def rows(data: Source, split: str = "train", config: str | None = None) -> tuple[Placed, ...]:
    """All of them; raises ValueError where there is none."""
    found = tuple(read(data, split, config))
    if not found:
        raise ValueError(f"{shown(data)} is empty: it should hold one row for each question")
    return found


def shown(data: Source) -> str:
    return str(data) if isinstance(data, (str, Path)) else f"the {type(data).__name__} of rows"


# ------------------------------------------------------------------------------------ files


def file(path: Path) -> Iterator[Placed]:
    if path.suffix not in READERS:
        raise ValueError(f"{path} is of no kind that can be read: give one of {', '.join(READERS)}")
    return READERS[path.suffix](path)


def json_lines(path: Path) -> Iterator[Placed]:
    with path.open("rb") as lines:
        for line, text in enumerate(lines, 1):
            if text.strip():
                try:
                    yield f"{path}:{line}", json.loads(text)
                except ValueError as error:
                    raise ValueError(f"{path}:{line}: no JSON ({error}): each line is one object, whole") from error


def json_array(path: Path) -> Iterator[Placed]:
    """One array of objects; or objects on lines, which many files of that name hold."""
    if not path.read_bytes().lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"["):
        yield from json_lines(path)
        return
    try:
        found = json.loads(path.read_bytes())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}:{error.lineno}: no JSON ({error.msg})") from error
    except ValueError as error:
        raise ValueError(f"{path}: no JSON ({error})") from error
    yield from ((f"{path}, item {n} (from 1)", row) for n, row in enumerate(found, 1))


def table(path: Path) -> Iterator[Placed]:
    """Columns by the names in the first line; every value stays the text that it is."""
    with path.open(encoding="utf-8-sig", newline="") as text:
        lines = csv.DictReader(text, delimiter="\t" if path.suffix == ".tsv" else ",", strict=True)
        line = 1
        try:
            for row in lines:
                line, first = lines.line_num, line + 1
                place = f"{path}:{first}" if first == line else f"{path}:{first}-{line}"
                if None in row or None in row.values():
                    width = len(lines.fieldnames or ())
                    has = width + len(row[None]) if None in row else sum(x is not None for x in row.values())  # type: ignore[call-overload]
                    raise ValueError(f"{place}: {has} values where the first line names {width} columns: quote what holds a comma")
                yield place, row
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{path}:{line + 1}: no CSV ({error})") from error


def parquet(path: Path) -> Iterator[Placed]:
    reader = needed("pyarrow.parquet", path)
    try:
        found = (row for batch in reader.ParquetFile(path).iter_batches() for row in batch.to_pylist())
        yield from ((f"{path}, row {n}", row) for n, row in enumerate(found))
    except (OSError, importlib.import_module("pyarrow").ArrowInvalid) as error:
        raise ValueError(f"{path}: no Parquet ({str(error).splitlines()[0]})") from error


READERS: Mapping[str, Callable[[Path], Iterator[Placed]]] = MappingProxyType({
    ".jsonl": json_lines, ".ndjson": json_lines, ".json": json_array, ".csv": table, ".tsv": table, ".parquet": parquet,
})  # fmt: skip


# ------------------------------------------------------------------------------------ folders and the hub


def parts(folder: Path, split: str) -> list[Path]:
    """The files of a split: those whose names begin with its name; for training all of them, where none is named for a split."""
    files = sorted(path for path in folder.iterdir() if path.suffix in READERS)
    found = [path for path in files if begins(path, split)]
    if not found and split == "train" and not any(begins(path, other) for path in files for other in OTHERS):
        found = files
    if not found:
        there = ", ".join(path.name for path in files[:6]) or "nothing that can be read"
        raise ValueError(
            f"{folder.absolute()} has no file of the split {split!r}; it holds {there}: choose another split, or one file"
        )
    return found


def begins(path: Path, split: str) -> bool:
    """train.jsonl, train-00000-of-00002.parquet, train_easy.csv; not training.csv"""
    rest = path.name.removeprefix(split)
    return rest != path.name and rest[:1] in (".", "-", "_")


def is_saved(folder: Path) -> bool:
    """Whether `datasets` wrote it: ``Dataset.save_to_disk`` or that of a DatasetDict."""
    return any((folder / name).is_file() for name in ("dataset_dict.json", "dataset_info.json"))


def saved(folder: Path, split: str) -> Iterator[Placed]:
    datasets = needed("datasets", folder)
    try:
        found = datasets.load_from_disk(str(folder))
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"{folder} is no whole data set that `datasets` saved: {error}") from error
    if isinstance(found, dict):
        if split not in found:
            raise ValueError(f"{folder} has no split {split!r}{nearest(split, found)}; it has {', '.join(found)}")
        found = found[split]
    return ((f"{folder}, row {n}", row) for n, row in enumerate(found))


def hub(name: str, split: str, config: str | None) -> Iterator[Placed]:
    datasets = needed("datasets", name)
    try:
        found = datasets.load_dataset(name, config, split=split)
    except (OSError, ValueError) as error:  # what is not there, cannot be reached, or has no such split or part
        why = str(error).splitlines()[0].removesuffix(".")
        raise ValueError(
            f"{name} could not be read from the Hugging Face hub: {why}. Check the name, the split {split!r}, "
            f"the part {config!r}, and that the hub can be reached; a file that lies here is given by its path"
        ) from error
    return ((f"{name}[{split}], row {n}", row) for n, row in enumerate(found))


def needed(module: str, what: object) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ValueError(
            f"{what} needs the package datasets, which cannot be imported ({error}): pip install 'steepest[data]'"
        ) from error


# ------------------------------------------------------------------------------------ what a row must hold


@dataclass(frozen=True)
class Row:
    """A question, a text or a list of chat messages; the answer that the reward compares with; further columns by name."""

    question: Any
    answer: Any = ""
    more: Mapping[str, Any] = field(default_factory=dict)


def row_of(placed: Placed, question: str, answer: str | None, more: Iterable[str]) -> Row:
    """The columns of those names; raises ValueError, with the row's place, where one is missing or is no question."""
    place, found = placed
    if isinstance(found, (tuple, list)) and len(found) == 2:  # from Python alone: no file's row is a pair
        found = dict(zip((question, answer), found, strict=True))
    if not isinstance(found, Mapping):
        raise ValueError(f"{place}: a row is an object of named values, not {cut(found)}")

    def column(name: str) -> Any:
        if found.get(name) is None:
            names = [str(other) for other in found]
            there = f"there are {', '.join(names)}{nearest(name, names)}" if names else "the row has no names"
            there = "it is empty" if name in found else there
            raise ValueError(f"{place}: nothing named {name!r}; {there}")
        return found[name]

    asked = column(question)
    if not is_question(asked):
        raise ValueError(
            f"{place}: {question!r} is neither a text nor a list of messages {{\"role\": ..., \"content\": ...}}, but {cut(asked)}"
        )
    return Row(asked, "" if answer is None else column(answer), {name: column(name) for name in more})


def is_question(asked: Any) -> bool:
    if isinstance(asked, str):
        return bool(asked.strip())
    texts = isinstance(asked, (list, tuple)) and all(isinstance(m, Mapping) for m in asked)
    return texts and bool(asked) and all(isinstance(m.get(name), str) for m in asked for name in ("role", "content"))


def cut(value: Any) -> str:
    return repr(value)[:80]
