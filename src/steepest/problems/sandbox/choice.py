"""Which sandbox this machine has: each is made to hold a program that tries to leave it, and only what holds is used."""

from __future__ import annotations

import functools
import json
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from .box import Limits, Sandbox, SandboxError
from .seccomp import known

EVERY = ("channels of timing, and faults of the kernel", "how much memory all programs that run side by side take together")
SHARED = ("that a program learns which paths exist on this machine, by `stat`",)
UNCOUNTED = ("(it may start no thread: here nothing counts them)",)
WEAK = (
    "that it reads every file that you may read, and writes them", "that it uses the network", "that it signals your processes",
    "that it starts processes, and leaves them behind",
)  # fmt: skip

# What the program under trial manages to do. It needs no marker that could be faked: every one of these must fail.
TRIAL = """
import json, os, socket, threading
outside, said = OUTSIDE, []
def attempt(name, f):
    try:
        f()
        said.append(name)
    except (OSError, RuntimeError):
        pass
attempt("read a file", lambda: open(outside).close())
attempt("write a file", lambda: open(outside, "a").close())
attempt("make a file", lambda: open(outside + "2", "w").close())
attempt("open a socket", lambda: socket.socket().close())
attempt("look at its parent", lambda: open(f"/proc/{os.getppid()}/environ").close())
attempt("signal", lambda: os.kill(os.getppid() or 1, 0))
attempt("start a process", lambda: os.fork() or os._exit(0))
attempt("run a program", lambda: os.execv("/bin/true", ["true"]))
attempt("threads", lambda: threading.Thread(target=int).start())
open("own", "w").close()
print(json.dumps(said))
"""


def candidates(weak: bool) -> Iterator[Sandbox]:
    """From the strongest to the weakest, whether or not this machine has them."""
    seccomp = known(platform.machine())
    wrap = shutil.which("bwrap")
    for landlock in (True, False):
        also = " + Landlock" * landlock
        if seccomp and wrap:
            yield Sandbox(f"bubblewrap + seccomp{also}", EVERY, bubblewrap=wrap, landlock=landlock, seccomp=True)
        if seccomp:
            yield Sandbox(f"namespaces + seccomp{also}", EVERY, space=True, landlock=landlock, seccomp=True)
    if seccomp:
        yield Sandbox("seccomp + Landlock", EVERY + SHARED, landlock=True, seccomp=True)
    if weak:
        yield Sandbox("limits of resources only", EVERY + SHARED + WEAK)


def tried(box: Sandbox) -> tuple[list[str], bool]:
    """What a program in it managed to do that it must not, and whether it could start threads."""
    with tempfile.TemporaryDirectory() as folder:
        secret = Path(folder, "secret")
        secret.write_text("secret")
        found = box.run(TRIAL.replace("OUTSIDE", repr(str(secret))), limits=Limits(seconds=30.0))
    if found.status != "ok":
        raise SandboxError(f"a trial in it {found.status}: {found.stderr[-300:]!r}")
    said = json.loads(found.stdout or '["run a program in its place"]')
    return [name for name in said if name != "threads"], "threads" in said


@functools.cache
def sandbox(*, weak: bool = False) -> Sandbox:
    """The strongest sandbox that holds on this machine; it is tried once in a process.

    weak  take limits of resources alone where nothing else holds: a program can then do what you can do

    Raises SandboxError, with what each lacks, where none holds.
    """
    if not sys.platform.startswith("linux"):
        raise SandboxError(f"programs can be held on Linux only, not on {sys.platform}: run in a Linux container")
    reasons = []
    for box in candidates(weak):
        try:
            escaped, threads = tried(box)
        except (SandboxError, OSError) as error:
            reasons.append(f"{box.name}: {error}")
            continue
        if escaped and box.seccomp:
            reasons.append(f"{box.name}: a program in it could {', '.join(escaped)}")
            continue
        lacks = () if threads else UNCOUNTED
        return replace(box, threads=threads, cannot=box.cannot + lacks)
    raise SandboxError(
        f"nothing on this machine holds a program ({'; '.join(reasons) or 'no filter for ' + platform.machine()}). Install "
        "bubblewrap, or run where user namespaces or Landlock (Linux 5.13) are allowed; `weak` runs programs that you trust with "
        "limits of resources alone"
    )
