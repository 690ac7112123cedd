"""Programs that try to leave the sandbox, each of which must fail; and honest ones, which must not."""

import functools
import os
import resource
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from steepest.problems.sandbox import Limits, Sandbox, SandboxError, candidates, choice, sandbox, tried
from steepest.problems.sandbox.seccomp import ARCHITECTURES, AUDIT, seccomp_filter

from . import escapes
from .escapes import BEFORE, by_name

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="programs are held on Linux only")

LIMITS = Limits(seconds=1.5, cpu=1, memory=256 * 2**20, output=2**16, disk=2**20)
SECRET = "the-secret-of-the-parent"


def holds(box):
    try:
        return not tried(box)[0]
    except (SandboxError, OSError):
        return False


def tiers():
    """What a user gets first; what is left where namespaces are forbidden; and mounts without the kernel's rules for paths."""
    names = [box.name for box in candidates(weak=False)] if sys.platform.startswith("linux") else []
    other = ("seccomp + Landlock", "namespaces + seccomp")
    first = next((box.name for box in candidates(weak=False) if holds(box)), None) if names else None
    return [first, *(name for name in other if name in names and name != first)] if first else []


ESCAPES = by_name(escapes.ESCAPES)
TIERS = tiers()


# ------------------------------------------------------------------------------------ escapes

X86 = os.uname().machine == "x86_64" if hasattr(os, "uname") else False
NUMBERS = {
    name: x86 if X86 else arm
    for name, x86, arm in (
        ("fork", 57, 1079), ("clone", 56, 220), ("socket", 41, 198), ("shmget", 29, 194), ("tgkill", 234, 131), ("tkill", 200, 130),
        ("queue", 129, 138), ("prctl", 157, 167), ("mount", 165, 40), ("unshare", 272, 97), ("pivot", 155, 41), ("capset", 126, 91),
        ("ptrace", 101, 117), ("readv", 310, 270), ("execveat", 322, 281), ("handle", 304, 265), ("bpf", 321, 280),
        ("perf", 298, 241), ("keyctl", 250, 219), ("userfault", 323, 282),
    )
}  # fmt: skip


class World:
    """What the parent has to lose, and whether it has lost anything."""

    def __init__(self, folder):
        self.folder, self.secret = folder, folder / "secret"
        self.secret.write_text(SECRET)
        self.secret.chmod(0o644)
        self.victim = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(1000)"])
        self.tcp = socket.create_server(("127.0.0.1", 0))
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind(("127.0.0.1", 0))
        kinds = (socket.SOCK_STREAM, socket.SOCK_STREAM, socket.SOCK_DGRAM)
        self.near = tuple(socket.socket(socket.AF_UNIX, kind) for kind in kinds)
        self.unix, self.abstract = f"/tmp/steepest-{os.getpid()}", f"steepest-{os.getpid()}"
        for end, name in zip(self.near, (self.unix, f"\0{self.abstract}", f"{self.unix}d"), strict=True):
            end.bind(name)
            if end.type == socket.SOCK_STREAM:
                end.listen()
        for path in (self.unix, f"{self.unix}d"):
            os.chmod(path, 0o777)
        for end in (self.tcp, self.udp, *self.near):
            end.setblocking(False)

    def names(self):
        paths = [str(self.secret), str(Path.home() / ".bashrc"), __file__, str(Path.cwd() / "pyproject.toml")]
        return {
            "secret": self.secret, "folder": self.folder, "secrets": paths, "parent": os.getpid(), "victim": self.victim.pid,
            "group": os.getpgrp(), "port": self.tcp.getsockname()[1], "udp": self.udp.getsockname()[1], "unix": self.unix,
            "abstract": self.abstract, "datagram": f"{self.unix}d", "paths": [*sys.path, str(Path("src").absolute())],
            "root_stays": False, **NUMBERS,
        }  # fmt: skip

    def unharmed(self):
        assert self.victim.poll() is None
        assert Path(f"/proc/{self.victim.pid}/stat").read_text().rsplit(") ", 1)[1][0] in "SR"  # not stopped either
        assert self.secret.read_text() == SECRET
        assert self.secret.stat().st_mode & 0o777 == 0o644
        assert sorted(os.listdir(self.folder)) == ["secret"]
        for end in (self.tcp, *self.near[:2]):
            with pytest.raises(BlockingIOError):
                end.accept()
        for end in (self.udp, self.near[2]):
            with pytest.raises(BlockingIOError):
                end.recv(1)

    def close(self):
        self.victim.kill()
        self.victim.wait()
        for end in (self.tcp, self.udp, *self.near):
            end.close()
        for path in (self.unix, f"{self.unix}d"):
            os.unlink(path)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    folder.chmod(0o755)
    made = World(folder)
    yield made
    made.close()


# These last until a limit: against the strongest sandbox always, against others with `pytest -m slow`.
LASTING = frozenset({
    "endless output", "endless errors", "a full disk", "files without end", "infinite recursion", "recursion in C",
    "an infinite loop",
    "sleep", "a loop in C, deaf to signals", "huge numbers", "exceptions swallowed", "closing what is open", "last words",
    "threads that do not end", "all memory", "all memory by maps", "a thread bomb",
})  # fmt: skip
# what these ask for may be refused, and then they end
MAY_END = ("a full disk", "all memory", "all memory by maps", "a thread bomb", "threads that do not end")
CASES = [
    pytest.param(tier, name, marks=[pytest.mark.slow] * (n > 1 or (n == 1 and name in LASTING)), id=f"{tier}: {name}")
    for n, tier in enumerate(TIERS) for name in ESCAPES
]  # fmt: skip


def left(folder):
    """Processes that were told to work for a sandbox in a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            found += [path.parent.name] if str(folder).encode() in path.read_bytes() else []
    return found


@functools.cache
def named(name):
    box = next(box for box in candidates(weak=False) if box.name == name)
    if not holds(box):
        pytest.skip(f"{name} does not hold on this machine")
    return replace(box, threads=tried(box)[1])


@pytest.mark.parametrize(("tier", "name"), CASES)
def test_a_program_cannot_leave(tier, name, world, monkeypatch, tmp_path):
    box = named(tier)
    monkeypatch.setenv("STEEPEST_SECRET", SECRET)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    names = world.names() | {"root_stays": not box.threads}
    before = (resource.getrlimit(resource.RLIMIT_NOFILE), os.nice(0), len(os.listdir("/proc/self/fd")))
    began = time.monotonic()
    found = box.run(BEFORE + ESCAPES[name].format(**names), "given", LIMITS)
    assert time.monotonic() - began < LIMITS.seconds + 10
    assert "ESCAPED" not in found.stdout, found
    assert SECRET not in found.stdout + found.stderr
    assert len(found.stdout) <= LIMITS.output
    assert len(found.stderr) <= LIMITS.output
    world.unharmed()
    assert (resource.getrlimit(resource.RLIMIT_NOFILE), os.nice(0), len(os.listdir("/proc/self/fd"))) == before
    assert not list(tmp_path.iterdir())
    assert not left(tmp_path)
    assert found.status != "ok" or name not in LASTING or name in MAY_END


def test_more_than_thirty_are_tried():
    assert len(ESCAPES) >= 30


# ------------------------------------------------------------------------------------ the tests themselves can fail


@pytest.mark.parametrize(
    ("name", "lacks"),
    [
        ("reading the parent's files", {"landlock": False}), ("the parent's environment", {"landlock": False}),
        ("UDP", {"seccomp": False}), ("a unix socket", {"seccomp": False}),
    ],
)  # fmt: skip
def test_what_is_not_enforced_is_seen_to_escape(name, lacks, world):
    whole = Sandbox("seccomp + Landlock", landlock=True, seccomp=True)
    if not holds(whole):
        pytest.skip("needs Landlock")
    found = replace(whole, **lacks).run(BEFORE + ESCAPES[name].format(**world.names()), "given", LIMITS)
    assert "ESCAPED" in found.stdout
    with suppress(BlockingIOError):
        world.udp.recv(1)
    with suppress(BlockingIOError):
        world.near[0].accept()[0].close()


# ------------------------------------------------------------------------------------ honest programs

HONEST = {
    "prints": ("print('ä', 1 / 3)", "ä 0.3333333333333333\n"),
    "reads": ("import sys\nprint(sum(map(int, sys.stdin.read().split())))", "6\n"),
    "computes": ("import decimal, fractions, itertools, json, math, re, statistics\nprint(math.comb(50, 25))", "126410606437752\n"),
    "uses files": ("import tempfile\nopen('a', 'w').write('x')\nwith tempfile.NamedTemporaryFile() as f: f.write(b'y')\nimport os\n"
                   "os.mkdir('b'); os.rename('a', 'b/a'); print(os.listdir('b')); os.remove('b/a'); os.rmdir('b')", "['a']\n"),
    "has a main": ("if __name__ == '__main__':\n    print('main')", "main\n"),
    "recurses": ("import sys\nsys.setrecursionlimit(20000)\ndef f(n): return n and 1 + f(n - 1)\nprint(f(15000))", "15000\n"),
    "waits": ("import asyncio\nasync def f(): await asyncio.sleep(0.01); return 3\nprint(asyncio.run(f()))", "3\n"),
    "has classes": ("from dataclasses import dataclass\n@dataclass\nclass A:\n    x: int = 1\nprint(A())", "A(x=1)\n"),
    "hashes": ("print(sorted({'a', 'b', 'c'}), hash('a') == hash('a'))", "['a', 'b', 'c'] True\n"),
    "is told nothing": ("import os, sys\nprint(sys.argv, [x for x in os.environ if 'PATH' in x])", "['program.py'] []\n"),
}  # fmt: skip


@pytest.mark.parametrize("name", HONEST)
def test_an_honest_program_runs(name):
    program, said = HONEST[name]
    found = sandbox().run(program, "1 2\n3")
    assert (found.status, found.code, found.stdout, found.stderr) == ("ok", 0, said, "")
    assert 0 < found.seconds < 30


def test_threads_run_where_they_are_counted():
    found = sandbox().run("import threading\nt = threading.Thread(target=print, args=(1,))\nt.start()\nt.join()")
    assert (found.stdout == "1\n") is sandbox().threads
    found = sandbox().run("import threading\nthreading.Thread(target=print).start()", limits=Limits(threads=1))
    assert "can't start new thread" in found.stderr


@pytest.mark.parametrize(
    ("program", "status", "code"),
    [
        ("1 / 0", "failed", 1), ("import sys; sys.exit(3)", "failed", 3), ("x = (", "failed", 1),
        ("import os; os._exit(0)", "ok", 0),
        ("import ctypes; ctypes.string_at(0)", "failed", 139), ("while True: print('x' * 100)", "output", None),
        ("while True: pass", "time", None), ("import time; time.sleep(100)", "time", None), ("x = bytearray(2**29)", "failed", 1),
    ],
)  # fmt: skip
def test_it_is_said_how_a_program_ended(program, status, code):
    found = sandbox().run(program, limits=LIMITS)
    assert (found.status, found.code) == (status, code)


def test_equal_programs_say_equal_things():
    """The order of a set of texts is that of their hashes, which an interpreter draws anew unless it is told."""
    program = "print({str(n) for n in range(100)})"
    assert sandbox().run(program).stdout == sandbox().run(program).stdout


def test_several_run_side_by_side_in_order():
    wait = "import time, sys\ntime.sleep(0.7)\nprint(sys.stdin.read())"
    began = time.monotonic()
    found = sandbox().run_all([(wait, str(n)) for n in range(8)], workers=8)
    assert [x.stdout for x in found] == [f"{n}\n" for n in range(8)]
    assert time.monotonic() - began < 8 * 0.7
    assert sandbox().run_all([]) == []
    with pytest.raises(ValueError, match="workers must be at least 1"):
        sandbox().run_all([], workers=0)


def test_a_killed_parent_takes_its_programs_along(tmp_path):
    program = (
        "import sys, tempfile\nfrom steepest.problems.sandbox import Limits, sandbox\ntempfile.tempdir = sys.argv[1]\n"
        "print('ready', flush=True)\nsandbox().run('while True: pass', limits=Limits(seconds=100, cpu=100))\n"
    )
    run = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE)
    try:
        run.stdout.readline()
        wait_for(lambda: left(tmp_path) != [str(run.pid)])
    finally:
        run.kill()
        run.wait()
        run.stdout.close()
    wait_for(lambda: not left(tmp_path))


LATE = """
import os, sys, time
ready, first = map(int, sys.argv[1:])
child = os.fork()
if not child:
    os.setsid()
    os.closerange(0, 100)
    time.sleep(0.7)
    os._exit(0)
os.write(first, b'{"child-pid": %d, ' % child)
os.write(ready, b"!")
print(child)
"""


def test_a_namespace_that_ends_after_what_made_it_is_waited_for(monkeypatch):
    """As with bubblewrap, which tells the program's status before the namespace's first process has gone."""
    late = lambda box, folder, program, ready, first, limits: [sys.executable, "-c", LATE, str(ready), str(first)]  # noqa: E731
    monkeypatch.setattr(choice.Sandbox, "command", late)
    child = Sandbox("late", space=True).run("").stdout.strip()
    state = Path(f"/proc/{child}/stat")
    assert not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z"  # whoever adopted it has to collect it


def wait_for(what, seconds=30.0):
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until
        time.sleep(0.02)


# ------------------------------------------------------------------------------------ the choice, and other machines


def test_the_choice_says_what_it_is_and_what_it_cannot_do():
    box = sandbox()
    assert box is sandbox()
    assert "seccomp" in box.name
    assert box.cannot


def test_as_an_ordinary_user_it_holds_too(tmp_path):
    """Where the tests run as root, as in containers, an ordinary user of this machine is tried as well."""
    python = next((p for p in (sys._base_executable, "/usr/bin/python3") if readable(p)), None)
    if os.geteuid() != 0 or python is None:
        pytest.skip("the other tests are of an ordinary user, or no interpreter is open to one")
    program = (
        "from steepest.problems.sandbox import *\nfor box in candidates(False):\n    try:\n        print(box.name, tried(box)[0])\n"
        "    except SandboxError as error:\n        print(error, [])\nprint(sandbox().run('print(1)').stdout)"
    )
    source = Path(tmp_path, "source")
    shutil.copytree(Path(choice.__file__).parents[2], source / "steepest", ignore=shutil.ignore_patterns("__pycache__"))
    root = Path(tempfile.gettempdir())
    for path in (source, *(above for above in source.parents if root in above.parents)):
        path.chmod(0o755)
    found = subprocess.run(
        [python, "-c", program], env={"PYTHONPATH": str(source)}, user=65534, group=65534, extra_groups=[], cwd="/",
        capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    *said, last, _ = found.stdout.split("\n")
    assert found.returncode == 0, found.stderr
    assert all(line.endswith("[]") for line in said[:-1])
    assert "1" in (last, said[-1])


def readable(python):
    """Whether a user without rights may run it."""
    path = Path(os.path.realpath(python))
    return path.exists() and all(p.stat().st_mode & 0o1 for p in (path, *path.parents))


def test_where_nothing_holds_it_refuses(monkeypatch):
    monkeypatch.setattr(choice, "tried", lambda box: (["open a socket"], True))
    sandbox.cache_clear()
    try:
        with pytest.raises(SandboxError, match=r"nothing on this machine holds a program \(.*could open a socket.*`weak`"):
            sandbox()
        assert sandbox(weak=True).name == "limits of resources only"
        monkeypatch.setattr(sys, "platform", "darwin")
        sandbox.cache_clear()
        with pytest.raises(SandboxError, match="on Linux only, not on darwin"):
            sandbox(weak=True)
    finally:
        sandbox.cache_clear()


def test_a_sandbox_that_cannot_be_set_up_runs_nothing(monkeypatch):
    monkeypatch.setattr(choice.Sandbox, "command", lambda *_: [sys.executable, "-c", "import sys; sys.exit('no such luck')"])
    with pytest.raises(SandboxError, match="could not be set up: 'no such luck'"):
        Sandbox("none").run("print(1)")


@pytest.mark.parametrize("wrong", [{"seconds": 0}, {"cpu": -1}, {"threads": 0}, {"files": 4}, {"memory": 2**20}])
def test_limits_that_allow_nothing_are_refused(wrong):
    with pytest.raises(ValueError, match=r"must be positive|Python itself needs"):
        Limits(**wrong)


def obeyed(code, number, arguments=(), machine="x86_64"):
    """What a filter says to a call: the classic BPF machine, as far as the filter uses it."""
    data = struct.pack("<IIQ6Q", number, AUDIT[ARCHITECTURES.index(machine)], 0, *arguments, *[0] * (6 - len(arguments)))
    at, accumulator = 0, 0
    rows = [struct.unpack_from("<HBBI", code, place) for place in range(0, len(code), 8)]
    while True:
        kind, yes, no, value = rows[at]
        at += 1
        if kind == 0x20:
            (accumulator,) = struct.unpack_from("<I", data, value)
        elif kind == 0x54:
            accumulator &= value
        elif kind == 0x15:
            at += yes if accumulator == value else no
        else:
            return {0x7FFF0000: "allowed", 0x80000000: "killed", 0x50001: "refused", 0x50026: "unknown"}[value]


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_the_filter_says_what_is_listed_on_both_architectures(machine):
    x86 = machine == "x86_64"
    rows = [  # x86_64's number, aarch64's, arguments, with threads, without
        (0, 63, (), "allowed", "allowed"), (231, 94, (), "allowed", "allowed"), (59, 221, (), "refused", "refused"),
        (41, 198, (), "refused", "refused"), (62, 129, (), "refused", "refused"), (435, 435, (), "unknown", "unknown"),
        (56, 220, (0x3D0F00,), "allowed", "refused"), (56, 220, (17,), "refused", "refused"),
        (56, 220, (0x10010000,), "refused", "refused"), (302, 261, (0,), "allowed", "allowed"),
        (302, 261, (1,), "refused", "refused"),
        (44, 206, (3, 0, 0, 0, 0), "allowed", "allowed"), (44, 206, (3, 0, 0, 0, 1), "refused", "refused"),
        (44, 206, (3, 0, 0, 0, 1 << 32), "refused", "refused"), (72, 25, (3, 3), "allowed", "allowed"),
        (72, 25, (3, 8), "refused", "refused"), (16, 29, (0, 0x5401), "allowed", "allowed"),
        (16, 29, (0, 0x5412), "refused", "refused"),
        (157, 167, (15,), "allowed", "allowed"), (157, 167, (1,), "refused", "refused"),
        (0x40000000, 5000, (), "refused", "refused"),
    ]  # fmt: skip
    for one, other, arguments, threaded, alone in rows:
        number = one if x86 else other
        assert obeyed(seccomp_filter(machine, threads=True), number, arguments, machine) == threaded, number
        assert obeyed(seccomp_filter(machine, threads=False), number, arguments, machine) == alone, number
    foreign = ARCHITECTURES[1 - ARCHITECTURES.index(machine)]
    assert obeyed(seccomp_filter(machine, threads=True), 0, (), foreign) == "killed"
