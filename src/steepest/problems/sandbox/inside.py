"""What runs inside, in a process of its own that knows nothing but its argument: it gives up every right, then runs the program.

Standard library only; it is given to the interpreter as text, so that no file of this package need be readable inside. Whatever
fails before the one byte on `ready` is a fault of the sandbox, and nothing of the program has run then.

argv[-1] is JSON:
  program, ready  open files: the program's text, and where to say that all is in place
  first           an open file: where to say the number of a namespace's first process, as bubblewrap does
  space           whether to make namespaces; with them `root` (an empty folder), `binds` (to be seen), `hidden` (to be masked)
  box             the folder in which the program works
  uid             an identity that nobody has, taken where this process may
  read            paths that may be read; None: without Landlock
  filters         seccomp's filters without and with threads, as hex; None: without
  own_users       identities are counted for this sandbox alone; `beside` other processes have this one
  threads, memory, cpu, disk, files   limits: threads, bytes, seconds, bytes, open files
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import struct
import sys
import types

TYPE_CHECKING = False  # typing itself would cost every start
if TYPE_CHECKING:
    from typing import Any

LIBC = ctypes.CDLL(None, use_errno=True)
NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET = (
    0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000,
)  # fmt: skip
REC, BIND, PRIVATE, NOSUID, NODEV = 0x4000, 0x1000, 0x40000, 2, 4
PIVOT = 41 if os.uname().machine == "aarch64" else 155  # its system call
DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom")


def must(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def system(number: int, *arguments: Any) -> int:
    """A system call that libc has no name for; 64-bit arguments."""
    LIBC.syscall.restype = ctypes.c_long
    kept = [ctypes.c_char_p(x) if isinstance(x, bytes) else ctypes.c_long(x) for x in arguments]
    return LIBC.syscall(ctypes.c_long(number), *kept)


def mount(source: str | None, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    coded = [x.encode() if x is not None else None for x in (source, target, kind)]
    must(LIBC.mount(*coded, ctypes.c_ulong(flags), options.encode() if options else None), f"mount {target}")


def die_with_parent() -> None:
    must(LIBC.prctl(1, 9, 0, 0, 0), "PR_SET_PDEATHSIG")


def separate(told: dict[str, Any]) -> None:
    """Namespaces of its own: processes, mounts, network, queues, names; the view of files is `binds`, read-only."""
    kinds = NEWNS | NEWCGROUP | NEWUTS | NEWIPC | NEWPID | NEWNET
    uid, gid = os.getuid(), os.getgid()
    if LIBC.unshare(kinds) < 0:
        must(LIBC.unshare(kinds | NEWUSER), "unshare")
        for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
        told["own_users"] = True
    root = told["root"]
    mount(None, "/", None, REC | PRIVATE)
    mount("tmpfs", root, "tmpfs", NOSUID | NODEV, "size=1m,nr_inodes=4096,mode=0755")
    for path in told["binds"]:
        os.makedirs(root + path, exist_ok=True)
        mount(path, root + path, None, BIND | REC)
    for path in told["hidden"]:
        mount("tmpfs", root + path, "tmpfs", NOSUID | NODEV, "size=4k,nr_inodes=2,mode=0755")
    os.makedirs(root + "/dev")
    os.makedirs(root + told["box"])
    for path in DEVICES:
        open(root + path, "w").close()
    attributes = struct.pack("<4Q", 7, 0, 0, 0)  # read-only, no setuid, no devices: of all mounts below
    must(system(442, -100, root.encode(), 0x8000, attributes, len(attributes)), "mount_setattr")
    for path in DEVICES:
        mount(path, root + path, None, BIND)
    mount("tmpfs", root + told["box"], "tmpfs", NOSUID | NODEV, f"size={told['disk']},nr_inodes=1024,mode=0700")
    os.chdir(root)
    must(system(PIVOT, b".", b"."), "pivot_root")
    must(LIBC.umount2(b".", 2), "umount")
    child = os.fork()
    if child:
        os.write(told["first"], b'{"child-pid": %d}' % child)
        os.closerange(0, 100)
        _, status = os.waitpid(child, 0)
        os._exit(os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status))


def settle(told: dict[str, Any]) -> bool:
    """An identity that nobody has, so that its threads can be counted; -> whether they can."""
    if os.geteuid() != 0:
        return told["own_users"]
    try:
        os.chown(told["box"], told["uid"], told["uid"])
        os.setgroups([])
        os.setresgid(told["uid"], told["uid"], 0)
        os.setresuid(told["uid"], told["uid"], 0)
        open(os.__file__).close()  # can it read the interpreter's files?
        os.setresgid(told["uid"], told["uid"], told["uid"])
        os.setresuid(told["uid"], told["uid"], told["uid"])
        return True
    except OSError:
        os.setresuid(0, 0, 0)
        os.setresgid(0, 0, 0)
        os.chown(told["box"], 0, 0)
        return False


def landlock(read: list[str], box: str) -> None:
    """Refuse all files but those below `read` and, to write, `box`. Linux 5.13, which has no way back from it."""
    version = must(system(444, 0, 0, 1), "Landlock")
    files = (1 << 13) - 1 | (version >= 2) << 13 | (version >= 3) << 14 | (version >= 5) << 15
    attributes = struct.pack("<3Q", files, 3 if version >= 4 else 0, 3 if version >= 6 else 0)
    attributes = attributes[: 8 if version < 4 else 16 if version < 6 else 24]
    rules = must(system(444, attributes, len(attributes), 0), "Landlock's rules")
    reading, of_files = 1 << 2 | 1 << 3, 1 << 0 | 1 << 1 | 1 << 2 | 1 << 14
    making = files & ~(1 << 0 | 1 << 6 | 1 << 9 | 1 << 11 | 1 << 12 | 1 << 15)  # no programs, devices, sockets, links
    for path, allowed in [*((path, reading) for path in read), ("/dev/null", reading | 2), (box, making)]:
        try:
            opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            continue  # not in this view of the files
        allowed &= files if os.path.isdir(path) else files & of_files
        must(system(445, rules, 1, struct.pack("<Qi", allowed, opened), 0), f"Landlock's rule for {path}")
        os.close(opened)
    must(system(446, rules, 0), "Landlock")
    os.close(rules)


def seal(told: dict[str, Any], counted: bool) -> None:
    """Limits, no capability, no way to new rights, and the filter of system calls."""
    limits = {
        "AS": told["memory"], "CPU": told["cpu"], "FSIZE": told["disk"], "NOFILE": told["files"], "CORE": 0, "MEMLOCK": 0,
        "MSGQUEUE": 0, "NICE": 0, "RTPRIO": 0, "SIGPENDING": 64,
    }  # fmt: skip
    if counted:
        limits["NPROC"] = told["threads"] + told["beside"]
    for name, most in limits.items():
        number = getattr(resource, f"RLIMIT_{name}")
        hard = resource.getrlimit(number)[1]
        last = most + (name == "CPU")  # at the first limit a signal that can be caught, at the last the end
        bound = [x if hard == resource.RLIM_INFINITY else min(x, hard) for x in (most, last)]
        resource.setrlimit(number, (bound[0], bound[1]))
    must(LIBC.prctl(4, 0, 0, 0, 0), "PR_SET_DUMPABLE")
    die_with_parent()  # again: a change of identity forgets it
    must(LIBC.prctl(38, 1, 0, 0, 0), "PR_SET_NO_NEW_PRIVS")
    if told["read"] is not None:
        landlock(told["read"], told["box"])
    must(LIBC.capset(struct.pack("<Ii", 0x20080522, 0), struct.pack("<6I", *[0] * 6)), "capset")
    if told["filters"] is not None:
        code = bytes.fromhex(told["filters"][counted and told["threads"] > 1])
        text = ctypes.create_string_buffer(code, len(code))
        program = struct.pack("@HP", len(code) // 8, ctypes.addressof(text))
        must(LIBC.prctl(22, 2, program, 0, 0), "seccomp")


def main() -> None:
    told = json.loads(sys.argv.pop())
    die_with_parent()
    with open(told["program"], "rb") as file:
        text = file.read()
    if told["space"]:
        separate(told)
    counted = settle(told)
    os.chdir(told["box"])
    os.environ.update(HOME=told["box"], TMPDIR=told["box"])
    seal(told, counted)
    os.write(told["ready"], b"!")
    os.closerange(3, 100)
    module = types.ModuleType("__main__")
    sys.modules["__main__"], sys.argv = module, ["program.py"]
    exec(compile(text, "program.py", "exec"), module.__dict__)


if __name__ == "__main__":
    main()
