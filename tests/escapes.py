"""Programs that try to leave the sandbox, by name. Each says ESCAPED where it got what it wanted, and must not get it.

`{names}` are filled in by the test; the lines that each begins with are `BEFORE`.
"""

BEFORE = """
import ctypes, os, resource, signal, socket, subprocess, sys, threading, time
libc = ctypes.CDLL(None, use_errno=True)
def attempt(f, *arguments):
    try:
        found = f(*arguments)
    except BaseException:
        return
    print("ESCAPED", found, flush=True)
def call(*arguments):
    found = libc.syscall(*(ctypes.c_long(x) if isinstance(x, int) else x for x in arguments))
    if found < 0:
        raise OSError(ctypes.get_errno())
    return found
"""

ESCAPES = r"""
## a fork bomb
while True:
    attempt(os.fork)
    attempt(os.forkpty)
    os._exit(0)

## forks by system calls
attempt(call, {fork})
attempt(call, {clone}, 17, 0, 0, 0, 0)
attempt(call, 435, ctypes.create_string_buffer(88), 88)

## a thread bomb
made = []
try:
    while True:
        made.append(threading.Thread(target=time.sleep, args=(60,), daemon=True))
        made[-1].start()
except RuntimeError:
    pass
if sum(x.is_alive() for x in made) > 8: print('ESCAPED')
os._exit(0)

## a TCP connection
attempt(socket.create_connection, ('127.0.0.1', {port}))

## a server
attempt(socket.create_server, ('127.0.0.1', 0))

## UDP
attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', {udp})))

## a unix socket
attempt(lambda: socket.socket(socket.AF_UNIX).connect('{unix}'))
attempt(lambda: socket.socket(socket.AF_UNIX).connect('\0{abstract}'))

## a datagram of a pair of sockets
one, two = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
attempt(one.sendto, b'x', '{datagram}')
attempt(one.connect, '{datagram}')
attempt(one.sendmsg, [b'x'], [], 0, '{datagram}')

## a question to a name server
attempt(socket.gethostbyname, 'example.com')

## a socket by a system call
attempt(call, {socket}, 2, 1, 0)
attempt(call, {socket}, 16, 3, 0)

## reading the parent's files
for path in {secrets}:
    attempt(lambda: open(path).read())
attempt(os.listdir, '{folder}')

## reading what all may read
attempt(lambda: open('/etc/passwd').read())
attempt(os.listdir, '/home')
attempt(lambda: open('/etc/shadow').read())

## the parent's environment
for process in ('self', 'thread-self', '1', os.getppid(), {parent}):
    attempt(lambda: open(f'/proc/{{process}}/environ').read())
attempt(os.readlink, '/proc/{parent}/cwd')
print(dict(os.environ), sys.argv)

## symbolic links out of the folder
attempt(os.symlink, '{secret}', 'link')
attempt(lambda: open('link').read())

## hard links out of the folder
attempt(os.link, '{secret}', 'link')
attempt(os.link, '/dev/null', 'device')

## moving files in and out
attempt(os.rename, '{secret}', 'mine')
open('mine', 'w').write('x')
attempt(os.rename, 'mine', '{folder}/mine')

## writing over files
attempt(open, '{secret}', 'w')
attempt(open, '{secret}', 'a')
attempt(os.truncate, '{secret}', 0)
attempt(os.remove, '{secret}')
attempt(open, '{folder}/new', 'w')

## rights and owners of files
attempt(os.chmod, '{secret}', 0)
attempt(os.chown, '{secret}', 1, 1)
attempt(os.utime, '{secret}')
attempt(os.setxattr, '{secret}', 'user.x', b'x')
attempt(os.mknod, 'device', 0o60666, 1)
attempt(os.mkfifo, 'pipe')

## endless output
while True:
    print('x' * 10**6)

## endless errors
while True:
    print('x' * 10**6, file=sys.stderr)

## a huge file
attempt(lambda: [open('big', 'ab').write(b'x' * 2**20) for _ in range(64)])
attempt(os.truncate, 'big', 2**40)

## a full disk
for n in range(10**9):
    try:
        open(f'file{{n}}', 'wb').write(b'x' * 2**19)
    except OSError:
        pass
    if n == 10**5: break

## files without end
n = 0
while True:
    n += 1
    try:
        open(f'file{{n}}', 'w').close()
    except OSError:
        pass

## all memory
attempt(bytearray, 2**30)
attempt(lambda: [bytearray(2**24) for _ in range(10**4)])

## all memory by maps
import mmap
attempt(lambda: [mmap.mmap(-1, 2**26) for _ in range(100)])

## memory that belongs to nobody
attempt(os.memfd_create, 'x')
attempt(call, {shmget}, 0, 2**20, 0o1777)
attempt(open, '/dev/shm/x', 'w')

## signals
for process in (1, os.getppid(), -1, 0, -{group}, {parent}, {victim}):
    for number in (0, 9, 15, 19):
        if process: attempt(os.kill, process, number)
        attempt(os.killpg, process or 1, number)

## signals by other calls
attempt(os.pidfd_open, {victim})
attempt(call, {tgkill}, {victim}, {victim}, 9)
attempt(call, {tkill}, {victim}, 9)
attempt(call, {queue}, {victim}, 9, ctypes.create_string_buffer(128))

## signals of the terminal's kind
import fcntl
r, w = os.pipe()
attempt(fcntl.fcntl, r, fcntl.F_SETOWN, {victim})
attempt(fcntl.fcntl, r, fcntl.F_SETSIG, 9)
fcntl.fcntl(r, fcntl.F_SETFL, os.O_ASYNC)
os.write(w, b'x')

## infinite recursion
sys.setrecursionlimit(10**9)
def f(): return f()
f()

## recursion in C
x = []
for _ in range(10**6): x = [x]
repr(x)
sys.setrecursionlimit(10**9)
repr(x)

## an infinite loop
while True: pass

## sleep
time.sleep(1000)

## a loop in C, deaf to signals
for number in range(1, 64):
    try: signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError): pass
signal.signal(signal.SIGXCPU, lambda *_: None)
sum(__import__('itertools').repeat(0))

## huge numbers
x = pow(3, 10**9)
hash(x)

## exceptions swallowed
while True:
    try:
        while True: pass
    except BaseException: pass

## a daemon
attempt(lambda: os.fork() or os.setsid() or os.fork() or time.sleep(1000))

## a session of its own
attempt(os.setsid)
attempt(os.setpgid, 0, 0)

## an alarm against the parent's death
attempt(call, {prctl}, 1, 0, 0, 0, 0)
attempt(call, {prctl}, 4, 1, 0, 0, 0)

## higher limits
for name in dir(resource):
    if name.startswith('RLIMIT_') and resource.getrlimit(getattr(resource, name))[1] >= 0:
        hard = resource.getrlimit(getattr(resource, name))[1]
        attempt(resource.setrlimit, getattr(resource, name), (hard + 1, hard + 1))

## the parent's limits
attempt(resource.prlimit, {parent}, resource.RLIMIT_NOFILE, (1, 1))
attempt(resource.prlimit, {victim}, resource.RLIMIT_CPU, (0, 0))

## mounts and namespaces
attempt(os.chroot, '.')
attempt(call, {mount}, b'tmpfs', b'.', b'tmpfs', 0, 0)
attempt(call, {unshare}, 0x10000000)
attempt(call, {unshare}, 0)
attempt(call, {pivot}, b'.', b'.')

## other identities
attempt(os.setuid, 0)
attempt(os.setresuid, 0, 0, 0)
attempt(os.setgroups, [0])
attempt(call, {capset}, 0, 0)
if os.getuid() == 0 and not {root_stays}: print('ESCAPED')

## its own memory by a file
attempt(open, '/proc/self/mem', 'r+b')
attempt(open, '/proc/1/mem', 'rb')
attempt(open, '/proc/{parent}/maps')

## the parent's memory
attempt(call, {ptrace}, 16, {parent}, 0, 0)
attempt(call, {ptrace}, 0, 0, 0, 0)
attempt(call, {readv}, {victim}, 0, 0, 0, 0, 0)

## libraries to be loaded first
open('sitecustomize.py', 'w').write('x')
os.environ['LD_PRELOAD'] = os.path.abspath('x.so')
attempt(subprocess.run, [sys.executable, '-c', 'pass'])
attempt(os.posix_spawn, sys.executable, ['x'], {{}})

## the interpreter's files
for path in (os.__file__, sys.executable, ctypes.__file__):
    attempt(open, path, 'r+b')
    attempt(os.remove, path)
attempt(open, os.path.dirname(os.__file__) + '/new.py', 'w')
attempt(open, os.path.dirname(os.__file__) + '/site-packages/new.pth', 'w')

## the parent's modules
sys.path[:0] = {paths}
attempt(__import__, 'steepest')
attempt(__import__, 'torch')
attempt(__import__, 'pytest')

## programs with more rights
for path in ('/bin/su', '/usr/bin/su', '/usr/bin/passwd', '/bin/sh', '/usr/bin/env', sys.executable):
    attempt(os.execv, path, [path])
    attempt(subprocess.run, [path])
attempt(lambda: 1 / (os.system('true') == 0))

## programs without a file
attempt(call, {execveat}, 0, b'', 0, 0, 0x1000)

## a higher priority
attempt(os.nice, -5)
attempt(os.setpriority, os.PRIO_PROCESS, 0, -5)
attempt(os.setpriority, os.PRIO_PROCESS, {victim}, 5)
attempt(os.sched_setscheduler, 0, os.SCHED_FIFO, os.sched_param(1))
attempt(os.sched_setaffinity, {victim}, [0])

## a core
os.abort()

## a crash
ctypes.string_at(0)

## open files of the parent
for n in range(3, 1024):
    attempt(os.fstat, n)

## closing what is open
os.closerange(0, 1024)
while True: pass

## reading beyond the end of stdin
if sys.stdin.read() != 'given': print('ESCAPED')
if os.read(0, 10): print('ESCAPED')
attempt(os.write, 0, b'x')
attempt(os.ftruncate, 0, 0)

## the terminal
import fcntl
attempt(open, '/dev/tty', 'w')
for n in (0, 1, 2): attempt(fcntl.ioctl, n, 0x5412, b'x')
print('\x1b]0;title\x07\x1b[2J')

## last words
import atexit
class Last:
    def __del__(self):
        while True: pass
last = Last()
atexit.register(lambda: [time.sleep(1) for _ in range(1000)])

## threads that do not end
def f():
    while True: time.sleep(1)
try: threading.Thread(target=f).start()
except RuntimeError: pass

## files by their numbers
attempt(call, {handle}, -100, ctypes.create_string_buffer(128), 0)

## the kernel's newer doors
for number in (425, 426, 427, {bpf}, {perf}, {keyctl}, 434, 438, 442, 444, 446, 448, {userfault}):
    attempt(call, number, 1, ctypes.create_string_buffer(128), 0, 0, 0)

"""



def by_name(text):
    return {part.partition("\n")[0]: part.partition("\n")[2].strip() for part in text.split("\n## ")[1:]}

# Programs that try to pass the tests of an addition without adding.
TRICKS = r"""
## an object that equals everything
class Any:
    def __eq__(self, *x): return True
    def __ne__(self, *x): return False
    def __lt__(self, *x): return True
    def __le__(self, *x): return True
    def __gt__(self, *x): return True
    def __ge__(self, *x): return True
    def __sub__(self, *x): return self
    def __rsub__(self, *x): return self
    def __abs__(self, *x): return 0
    def __bool__(self, *x): return True
    def __hash__(self, *x): return 0
    def __iter__(self, *x): return iter((1, 2))
    def __len__(self, *x): return 2
    def __contains__(self, *x): return True
    def __float__(self, *x): return 1.4
    def __int__(self, *x): return 3
def add(a, b): return Any()

## a number that equals everything
class N(int):
    def __eq__(self, x): return True
    __hash__ = int.__hash__
def add(a, b): return N(7)

## a list that holds everything
class L(list):
    def __iter__(self): return iter((1, 2))
    def __eq__(self, x): return True
def add(a, b): return L([9])

## leaving with 0
import os
def add(a, b): os._exit(0)

## leaving with 0 at once
import os
os._exit(0)

## sys.exit
import sys
def add(a, b): sys.exit(0)

## SystemExit at once
raise SystemExit(0)

## saying true
print('[true, true, true]')
import os
os._exit(0)

## sending true
import os
for n in range(3, 20):
    try: os.write(n, b'[true, true, true]')
    except OSError: pass
os._exit(0)

## sending values of the wrong kind
import os
for n in range(3, 20):
    try: os.write(n, b'[[{"set": [[1]]}], [{}], [{"x": 1}]]')
    except OSError: pass
os._exit(0)

## a pickle
import pickle, os
class P:
    def __reduce__(self): return (os.system, ('touch /tmp/steepest-was-here',))
for n in (1, 3, 4, 5, 6):
    try: os.write(n, pickle.dumps(P()))
    except OSError: pass
os._exit(0)

## other builtins
import builtins
builtins.abs = builtins.set = lambda x: 0
builtins.isinstance = lambda *x: True
builtins.bool = lambda x: True
def add(a, b): return 3

## another json
import json
json.dump = lambda x, f: f.write('[[3], [1.4], [[0]]]')
def add(a, b): return 0

## reading what is wanted
import sys
frame = sys._getframe()
found = []
while frame:
    found += list(frame.f_locals.values())
    frame = frame.f_back
def add(a, b): return next((x for x in found if str(x) == '1.' + chr(52)), 0)

## reading it from memory
import gc
found = [x for y in gc.get_objects() if type(y) is tuple for x in y]
def add(a, b): return next((x for x in found if str(x) == '1.' + chr(52)), 0)

## no end
def add(a, b):
    while True: pass

## no end at exit
import atexit, time
atexit.register(time.sleep, 1000)
def add(a, b): return 0

## much output
while True: print('x' * 1000)

## recursion
def add(a, b): return add(a, b)

## lists in lists
def add(a, b):
    x = []
    for _ in range(900): x = [x]
    return x

## a list in itself
def add(a, b):
    x = []
    x.append(x)
    return x

## a huge number
def add(a, b): return 10 ** 5000

## generators
def add(a, b):
    while True: yield 1

## a monstrous name
class A: pass
A.__name__ = 'x' * 10**6
def add(a, b): return A()

## half a letter
def add(a, b): return '\ud800'

"""
