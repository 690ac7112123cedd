"""Which system calls a program of the sandbox may make, as a filter of the kernel: what is not listed is refused.

A classic BPF program over `struct seccomp_data` (number at byte 0, architecture at 4, arguments at 16 + 8 i, low half first).
Numbers are those of Linux's asm/unistd.h. Refused by being absent: fork and vfork, execve, socket and connect, kill and its
kin, ptrace, process_vm_*, mount, chroot, unshare, setns, setsid, set*uid, capset, chmod, chown, link, symlink, mknod,
memfd_create, System V and POSIX queues and memory, bpf, io_uring, keyctl, personality, seccomp, priorities and affinities.
"""

from __future__ import annotations

import struct

# x86_64's number, then aarch64's; a dash where the architecture has no such call
CALLS = """
read:0:63 write:1:64 readv:19:65 writev:20:66 pread64:17:67 pwrite64:18:68 open:2:- openat:257:56 close:3:57 close_range:436:436
stat:4:- fstat:5:80 lstat:6:- newfstatat:262:79 statx:332:291 lseek:8:62 mmap:9:222 munmap:11:215 mprotect:10:226 mremap:25:216
madvise:28:233 brk:12:214 access:21:- faccessat:269:48 faccessat2:439:439 dup:32:23 dup2:33:- dup3:292:24
pipe:22:- pipe2:293:59 poll:7:- ppoll:271:73 select:23:- pselect6:270:72 epoll_create1:291:20 epoll_ctl:233:21 epoll_wait:232:-
epoll_pwait:281:22 socketpair:53:199 recvfrom:45:207 shutdown:48:210 getsockopt:55:209 setsockopt:54:208 getsockname:51:204
getpeername:52:205 getcwd:79:17 chdir:80:49 fchdir:81:50 mkdir:83:- mkdirat:258:34 rmdir:84:- unlink:87:- unlinkat:263:35
rename:82:- renameat:264:38 renameat2:316:276 getdents64:217:61 readlink:89:- readlinkat:267:78 truncate:76:45 ftruncate:77:46
fsync:74:82 fdatasync:75:83 umask:95:166 clock_gettime:228:113 clock_getres:229:114 gettimeofday:96:169 time:201:- nanosleep:35:101
clock_nanosleep:230:115 times:100:153 getrusage:98:165 getitimer:36:102 setitimer:38:103 alarm:37:- pause:34:- rt_sigaction:13:134
rt_sigprocmask:14:135 rt_sigreturn:15:139 sigaltstack:131:132 rt_sigpending:127:136 rt_sigtimedwait:128:137 restart_syscall:219:128
set_robust_list:273:99 get_robust_list:274:100 rseq:334:293 futex:202:98 set_tid_address:218:96 sched_yield:24:124
sched_getaffinity:204:123 gettid:186:178 getpid:39:172 getppid:110:173 exit:60:93 exit_group:231:94 membarrier:324:283
arch_prctl:158:- getuid:102:174 geteuid:107:175 getgid:104:176 getegid:108:177 getresuid:118:148 getresgid:120:150
getgroups:115:158 getpgrp:111:- getpgid:121:155 getsid:124:156 uname:63:160 sysinfo:99:179 getrandom:318:278 getrlimit:97:163
getpriority:140:141 wait4:61:260 waitid:247:95
"""
# allowed for some arguments only
SOME = "fcntl:72:25 sendto:44:206 prlimit64:302:261 ioctl:16:29 prctl:157:167 clone:56:220 clone3:435:435"
ARCHITECTURES = ("x86_64", "aarch64")
AUDIT = (0xC000003E, 0xC00000B7)  # their names in `struct seccomp_data`

ALLOW, KILL, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
EPERM, ENOSYS = 1, 38
LOAD, EQUAL, AND, RETURN = 0x20, 0x15, 0x54, 0x06
TERMINAL = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)  # of ioctl: TCGETS, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX
OWN = (0, 1, 2, 3, 4, 5, 6, 7, 36, 37, 38, 1030, 1032)  # of fcntl: nothing that sends signals (F_SETOWN, F_SETSIG, leases)
NAMING = (15, 0x53564D41)  # of prctl: PR_SET_NAME, PR_SET_VMA
THREAD = 0x00010000  # of clone: CLONE_THREAD
SPACES = 0x7E020000  # of clone: every CLONE_NEW*


def known(machine: str) -> bool:
    """Whether there is a filter for an architecture, by the name that `os.uname` gives it."""
    return machine in ARCHITECTURES


def numbers(text: str, machine: str) -> dict[str, int]:
    column = 1 + ARCHITECTURES.index(machine)
    rows = (entry.split(":") for entry in text.split())
    return {row[0]: int(row[column]) for row in rows if row[column] != "-"}


def seccomp_filter(machine: str, *, threads: bool) -> bytes:
    """The filter for an architecture, with or without the right to start threads. Processes cannot be started with either."""
    some, rows = numbers(SOME, machine), []

    def add(code: int, value: int, yes: int = 0, no: int = 0) -> None:
        rows.append(struct.pack("<HBBI", code, yes, no, value))

    def argument(index: int, half: int = 0) -> None:
        add(LOAD, 16 + 8 * index + 4 * half)

    def among(values: tuple[int, ...]) -> None:
        for value in values:
            add(EQUAL, value, 0, 1)
            add(RETURN, ALLOW)
        add(RETURN, ERRNO | EPERM)

    def only(name: str, body: list[bytes]) -> None:
        add(EQUAL, some[name], 0, len(body))
        rows.extend(body)

    def separately(*steps: tuple[object, ...]) -> list[bytes]:
        """Instructions of their own, to be counted before they are put in place."""
        nonlocal rows
        outer, rows = rows, []
        for call, *arguments in steps:
            call(*arguments)  # type: ignore[operator]
        rows, made = outer, rows
        return made

    add(LOAD, 4)
    add(EQUAL, AUDIT[ARCHITECTURES.index(machine)], 1, 0)
    add(RETURN, KILL)  # 32-bit calls have other numbers
    add(LOAD, 0)
    for number in numbers(CALLS, machine).values():
        add(EQUAL, number, 0, 1)
        add(RETURN, ALLOW)
    only("fcntl", separately((argument, 1), (among, OWN)))
    only("ioctl", separately((argument, 1), (among, TERMINAL)))
    only("prctl", separately((argument, 0), (among, NAMING)))
    only("prlimit64", separately((argument, 0), (among, (0,))))  # of itself: another's limits are out of reach
    only("sendto", separately((argument, 4, 1), (add, EQUAL, 0, 1, 0), (add, RETURN, ERRNO | EPERM), (argument, 4), (among, (0,))))
    only("clone3", [struct.pack("<HBBI", RETURN, 0, 0, ERRNO | ENOSYS)])  # its flags lie in memory; libraries fall back to clone
    if threads:
        only("clone", separately((argument, 0), (add, AND, THREAD | SPACES), (among, (THREAD,))))
    add(RETURN, ERRNO | EPERM)
    return b"".join(rows)
