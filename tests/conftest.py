"""One thread a process, warm-ups kept for the session, and slices of the slow tests."""

import multiprocessing
import os
import tempfile
import zlib
from importlib.util import find_spec
from pathlib import Path

import pytest

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):  # read when torch and NumPy load
    os.environ[name] = "1"
os.environ.setdefault("STEEPEST_CACHE", tempfile.mkdtemp(prefix="steepest-warmups-"))  # workers inherit it
# fresh processes of `check_system` are forked from a server that has imported these and nothing else: seconds less for each
PACKAGE = Path(find_spec("steepest").origin).parent
FILES = [path.relative_to(PACKAGE.parent).with_suffix("") for path in PACKAGE.rglob("*.py") if not path.stem.startswith("__")]
LIBRARY = [".".join(path.parts) for path in sorted(FILES)]
multiprocessing.set_forkserver_preload(["pytest", "transformers.models.llama.modeling_llama", *LIBRARY])


def pytest_addoption(parser):
    parser.addoption("--slice", metavar="K/N", help="run the K-th of N parts of the tests, chosen by their names (K from 0)")


def pytest_collection_modifyitems(config, items):
    if config.getoption("--slice"):
        k, n = map(int, config.getoption("--slice").split("/"))
        chosen = [item for item in items if zlib.crc32(item.nodeid.encode()) % n == k % n]
        config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
        items[:] = chosen


@pytest.fixture
def steepest(tmp_path, monkeypatch, capsys):
    """Run a command of the library in a folder of its own. -> exit status, stdout, stderr"""
    from steepest.app import cli

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def run(line):
        status = cli.main(line.split())
        said = capsys.readouterr()
        return status, said.out, said.err

    return run
