"""A sandbox: one Python program in a process that can neither see nor change anything of this machine."""

from __future__ import annotations

import functools
import json
import os
import platform
import re
import select
import selectors
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from .seccomp import seccomp_filter

BOX = "/box"  # where a program works, in a view of files of its own
STARTING = 60.0  # seconds until the interpreter must have started, on however busy a machine
POLL = 0.02  # seconds between two looks at a folder that nothing but this process bounds
FIRST_UID = 0x70000000  # identities that no system gives to anybody


class SandboxError(RuntimeError):
    """The sandbox cannot hold a program, so it ran none."""


@dataclass(frozen=True)
class Limits:
    """What one program may use.

    seconds  of the clock, from its first line; a busy machine makes it reach this
    cpu      seconds of the processor, whole
    memory   bytes of address space, interpreter included (about 30 MB)
    output   bytes, of stdout and of stderr each
    disk     bytes in its folder, and of each file
    files    open at once
    threads  at once, the first included; 1 where they cannot be counted. Processes: never more than the one
    """

    seconds: float = 10.0
    cpu: int = 5
    memory: int = 512 * 2**20
    output: int = 2**20
    disk: int = 16 * 2**20
    files: int = 64
    threads: int = 8

    def __post_init__(self) -> None:
        for name, x in vars(self).items():
            if not x > 0:
                raise ValueError(f"{name} must be positive, not {x}")
        if self.files < 8 or self.memory < 64 * 2**20:
            raise ValueError(f"Python itself needs 8 open files and 64 MiB of memory, not {self.files} and {self.memory} bytes")


Status = Literal["ok", "failed", "time", "output", "disk"]


@dataclass(frozen=True)
class Outcome:
    """How a program ended.

    status   ok: it left with 0; failed: an exception, a signal (128 + its number), another status; else the limit it exceeded
    code     its exit status; None where it was ended
    stdout, stderr   what it wrote, up to the limit; bytes that are no UTF-8 are replaced. They may steer a terminal
    seconds, cpu     of the clock, and of the processor as far as it is told: bubblewrap does not pass it on
    """

    status: Status
    code: int | None
    stdout: str
    stderr: str
    seconds: float
    cpu: float


@dataclass(frozen=True)
class Sandbox:
    """A way to hold a program. `sandbox()` gives the best of this machine.

    name        what holds it, in words
    cannot      what it does not prevent, in words
    bubblewrap  the program of that name that makes namespaces; None: another way
    space       this process makes namespaces by itself
    landlock    the kernel refuses files by path
    seccomp     the kernel refuses system calls by number
    threads     threads can be counted, so a program may start some
    """

    name: str
    cannot: tuple[str, ...] = ()
    bubblewrap: str | None = None
    space: bool = False
    landlock: bool = False
    seccomp: bool = False
    threads: bool = False

    def run(self, program: str, stdin: str = "", limits: Limits = Limits()) -> Outcome:
        """Run a program (its text) to its end or a limit. It sees the standard library, `stdin`, no argument and an empty
        environment; the hashes of texts are the same in every run. Raises SandboxError where it could not be held."""
        with ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="steepest-box-", ignore_cleanup_errors=True))
            text = stack.enter_context(sealed(program))
            said = stack.enter_context(sealed(stdin))
            ready, tell = os.pipe()
            stack.callback(os.close, ready)
            first, name_first = os.pipe()
            stack.callback(os.close, first)
            try:
                held = subprocess.Popen(
                    self.command(folder, text, tell, name_first, limits), stdin=said, stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE, pass_fds=(text, tell, name_first), cwd="/",
                    env={"PYTHONHASHSEED": "0", "PYTHONUTF8": "1"}, start_new_session=True,
                )  # fmt: skip
            finally:
                os.close(tell)
                os.close(name_first)
            with held:
                watched = Watched(held, ready, first, limits, None if self.bubblewrap or self.space else Path(folder))
                try:
                    status = watched.to_the_end()
                finally:
                    with suppress(ProcessLookupError):
                        os.killpg(held.pid, signal.SIGKILL)
                    _, left, usage = os.wait4(held.pid, 0)
                    held.returncode = os.waitstatus_to_exitcode(left)
                    watched.until_nothing_runs()
        return watched.outcome(status, held.returncode, usage.ru_utime + usage.ru_stime)

    def run_all(self, jobs: Sequence[tuple[str, str]], limits: Limits = Limits(), *, workers: int | None = None) -> list[Outcome]:
        """`run` of every (program, stdin), `workers` side by side; default: as many as this process may use processors."""
        if workers is not None and workers < 1:
            raise ValueError(f"workers must be at least 1, not {workers}")
        if len(jobs) < 2:
            return [self.run(program, stdin, limits) for program, stdin in jobs]
        with ThreadPoolExecutor(min(len(jobs), workers or len(os.sched_getaffinity(0)))) as pool:
            return list(pool.map(lambda job: self.run(job[0], job[1], limits), jobs))

    def command(self, folder: str, program: int, ready: int, first: int, limits: Limits) -> list[str]:
        own = self.space or self.bubblewrap is not None
        files, machine = view(), platform.machine()
        confined = self.bubblewrap is not None and os.geteuid() != 0  # its first process has this identity too
        told: dict[str, Any] = {
            "program": program, "ready": ready, "first": first, "space": self.space, "root": folder,
            "binds": files.binds, "hidden": files.hidden,
            "box": BOX if own else folder, "uid": FIRST_UID + os.getpid() % 2**18 * 2**12 + program % 2**12,
            "read": files.read if self.landlock else None,
            "filters": [seccomp_filter(machine, threads=x).hex() for x in (False, True)] if self.seccomp else None,
            "own_users": confined, "beside": int(confined), **vars(limits),
        }  # fmt: skip
        python = [files.python, "-s", "-S", "-P", "-B", "-c", inside(), json.dumps(told)]
        return [*self.wrapped(files, first, limits), *python] if self.bubblewrap else python

    def wrapped(self, files: View, first: int, limits: Limits) -> list[str]:
        """The arguments of bubblewrap that come before the program's."""
        above = sorted({str(path) for bind in files.binds for path in Path(bind).parents if path != Path("/")} | {"/dev"})
        made = [word for path in above for word in ("--perms", "0755", "--dir", path)]  # else as closed as the real ones
        bound = [word for path in files.binds for word in ("--ro-bind", path, path)]
        masked = [word for path in files.hidden for word in ("--tmpfs", path, "--remount-ro", path)]
        devices = [word for name in ("null", "zero", "urandom") for word in ("--dev-bind", f"/dev/{name}", f"/dev/{name}")]
        kept = [word for name in ("SETUID", "SETGID", "CHOWN") for word in ("--cap-add", f"CAP_{name}")]
        user = kept if os.geteuid() == 0 else ["--unshare-user"]  # root takes another identity inside
        return [
            str(self.bubblewrap), "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try",
            "--die-with-parent", "--info-fd", str(first), *user, *made, *bound, *masked, *devices, "--perms", "0700",
            "--size", str(limits.disk), "--tmpfs", BOX, "--remount-ro", "/", "--chdir", BOX,
        ]  # fmt: skip


class Watched:
    """A running program and what it has said."""

    def __init__(self, held: subprocess.Popen[bytes], ready: int, first: int, limits: Limits, folder: Path | None):
        self.held, self.ready, self.first, self.limits, self.folder = held, ready, first, limits, folder
        self.said = {"stdout": bytearray(), "stderr": bytearray()}
        self.named = bytearray()
        self.within: int | None = None
        self.began: float | None = None
        self.seconds = 0.0

    def to_the_end(self) -> Status | None:
        """Read until the program has ended or exceeds a limit, which is returned. Raises SandboxError where it never began."""
        until = time.monotonic() + STARTING
        with selectors.DefaultSelector() as waiting:
            pipes = {"ready": self.ready, "first": self.first, "stdout": self.held.stdout, "stderr": self.held.stderr}
            for name, pipe in pipes.items():
                waiting.register(pipe, selectors.EVENT_READ, name)  # type: ignore[arg-type]
            while True:
                left = until - time.monotonic()
                for key, _ in waiting.select(min(max(left, 0.0), POLL if self.folder or not waiting.get_map() else left)):
                    data = os.read(key.fd, 2**16)
                    if not data:
                        waiting.unregister(key.fileobj)
                    if key.data == "ready":
                        if not data and self.began is None:
                            raise self.never_began()
                        if data:
                            self.began = time.monotonic()
                            until = self.began + self.limits.seconds
                        continue
                    if key.data == "first":
                        self.meet(data)
                        continue
                    self.said[key.data] += data[: self.limits.output + 1 - len(self.said[key.data])]
                    if len(self.said[key.data]) > self.limits.output:
                        return self.ended("output")
                if self.folder is not None and used(self.folder, self.limits.disk) > self.limits.disk:
                    return self.ended("disk")
                if not waiting.get_map() and self.left():
                    return self.ended(None)
                if time.monotonic() > until:
                    if self.began is None:
                        raise self.never_began()
                    return self.ended("time")

    def meet(self, data: bytes) -> None:
        """Hold on to the first process of its namespace by a handle, for its number may be given to another."""
        self.named += data
        said = re.search(rb'"child-pid": (\d+)\D', self.named)
        if said and self.within is None:
            with suppress(OSError):  # it has ended already, or the kernel is older than such handles
                self.within = os.pidfd_open(int(said[1]))

    def until_nothing_runs(self, most: float = 10.0) -> None:
        """Wait for the first process of its namespace, without which the kernel lets none there live. bubblewrap and the death
        of a parent do not wait for it."""
        if self.within is not None:
            try:
                ending = select.poll()
                ending.register(self.within, select.POLLIN)
                ending.poll(1000 * most)
            finally:
                os.close(self.within)

    def left(self) -> bool:
        """Whether it has ended. It stays a zombie until its times are asked for."""
        return os.waitid(os.P_PID, self.held.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None

    def ended(self, status: Status | None) -> Status | None:
        self.seconds = time.monotonic() - (self.began or time.monotonic())
        return status

    def never_began(self) -> SandboxError:
        with suppress(ProcessLookupError):
            os.killpg(self.held.pid, signal.SIGKILL)
        assert self.held.stderr is not None
        self.said["stderr"] += self.held.stderr.read()[-2000:]
        said = self.said["stderr"].decode(errors="replace").strip().splitlines() or ["it said nothing"]
        return SandboxError(f"the sandbox could not be set up: {said[-1]!r}")

    def outcome(self, status: Status | None, code: int, cpu: float) -> Outcome:
        code = 128 - code if code < 0 else code
        spent = status is None and (code == 128 + signal.SIGXCPU or (code >= 128 and cpu >= self.limits.cpu))
        kind: Status = status or ("time" if spent else "failed" if code else "ok")
        stdout, stderr = (bytes(x[: self.limits.output]).decode(errors="replace") for x in self.said.values())
        return Outcome(kind, None if kind not in ("ok", "failed") else code, stdout, stderr, self.seconds, cpu)


@contextmanager
def sealed(text: str) -> Iterator[int]:
    """An open file of that text which nobody can change."""
    import fcntl

    file = os.memfd_create("text", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        data = memoryview(text.encode(errors="replace"))
        while data:
            data = data[os.write(file, data) :]
        os.lseek(file, 0, os.SEEK_SET)
        every = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK
        fcntl.fcntl(file, fcntl.F_ADD_SEALS, every)
        yield file
    finally:
        os.close(file)


def used(folder: Path, most: int) -> int:
    """Bytes in a folder, 4096 for each entry more; it stops counting where they are too many."""
    total = 0
    for top, below, files in os.walk(folder):
        for name in (*files, *below):
            with suppress(OSError):
                total += 4096 + os.lstat(os.path.join(top, name)).st_size
            if total > most:
                return total
    return total


@dataclass(frozen=True)
class View:
    """The files of the interpreter. `binds` are folders that hold them, `hidden` those below that hold packages; `read` names
    what may be read one by one, without packages."""

    python: str
    binds: list[str]
    hidden: list[str]
    read: list[str]


@functools.cache
def view() -> View:
    python = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
    stdlib = {os.path.dirname(os.path.realpath(os.__file__)), os.path.realpath(sysconfig.get_path("platstdlib", vars={
        "platbase": sys.base_exec_prefix, "base": sys.base_prefix, "installed_platbase": sys.base_exec_prefix,
    }))}  # fmt: skip
    beside = os.path.join(os.path.realpath(sys.base_prefix), "lib")
    roots = [path for path in ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", beside) if os.path.isdir(path)]
    read = ["/etc/ld.so.cache", "/dev/null", "/dev/zero", "/dev/urandom", "/usr/share/zoneinfo"]
    for folder in stdlib:
        read += [entry.path for entry in os.scandir(folder) if entry.name not in ("site-packages", "dist-packages", "test")]
    for root in roots:
        many = os.path.join(root, sysconfig.get_config_var("MULTIARCH") or "-")
        read += [many] if os.path.isdir(many) else []
        read += [entry.path for entry in os.scandir(root) if ".so" in entry.name and not entry.is_dir()]
    binds = {"/lib", "/lib64", "/usr", os.path.dirname(os.path.dirname(python)), os.path.realpath(sys.base_prefix), *stdlib}
    binds = {path for path in binds if os.path.isdir(path)}
    binds = {path for path in binds if not any(path.startswith(f"{other}/") for other in binds)}
    packages = [os.path.join(path, name) for path in [*stdlib, "/usr/lib/python3"] for name in ("site-packages", "dist-packages")]
    hidden = [path for path in packages if os.path.isdir(path)]
    return View(python, sorted(binds), sorted(hidden), sorted({os.path.realpath(path) for path in read if os.path.exists(path)}))


@functools.cache
def inside() -> str:
    return Path(__file__).with_name("inside.py").read_text(encoding="utf-8")
