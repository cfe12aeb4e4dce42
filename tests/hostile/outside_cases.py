"""Attacks on what is outside the child, and answers that leave something behind."""

from __future__ import annotations

from tests.hostile.case import RIGHT, held, right, wrong

# Source text as it is: the formatter would spread every case over six lines and more.
# fmt: off

# --- processes and threads ---

held("processes", "fork", """
import os
if os.fork() == 0:
    os._exit(0)
""")
wrong("processes", "fork_bomb", """
import os
while True:
    os.fork()
""", fenced=True)
held("processes", "double_fork_daemon", """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(10**6)
    os._exit(0)
""")
held("processes", "subprocess", """
import subprocess
subprocess.run(['/bin/sh', '-c', 'sleep 1000 &'], check=True)
""")
held("processes", "posix_spawn", """
import os
os.posix_spawn('/bin/true', ['true'], {})
""")
held("processes", "exec", """
import os
os.execv('/bin/true', ['true'])
""")
held("processes", "multiprocessing", """
import multiprocessing
multiprocessing.get_context('fork').Process(target=int).start()
""")
held("processes", "clone_by_hand", """
import ctypes
assert ctypes.CDLL(None).syscall(56, 17, 0, 0, 0, 0) >= 0
""")
wrong("processes", "thread_bomb", """
import threading, time
while True:
    threading.Thread(target=time.sleep, args=(10**6,)).start()
""", fenced=True)
right("processes", "works_in_a_thread", """
from concurrent.futures import ThreadPoolExecutor
class Solution:
    def fold(self, nums):
        with ThreadPoolExecutor(2) as pool:
            return sum(pool.map(lambda pair: pair[0] * pair[1], enumerate(nums, 1)))
""")

# --- signals ---

held("signals", "kill_parent", """
import os
os.kill(os.getppid(), 9)
""")
held("signals", "kill_everything", """
import os
os.kill(-1, 9)
""")
held("signals", "kill_group", """
import os
os.killpg(0, 9)
""")
held("signals", "stop_parent", """
import os, signal
os.kill(os.getppid(), signal.SIGSTOP)
""")
held("signals", "tgkill_parent", """
import ctypes, os
assert ctypes.CDLL(None).syscall(234, os.getppid(), os.getppid(), 9) == 0
""")
held("signals", "pidfd", """
import os, signal
signal.pidfd_send_signal(os.pidfd_open(os.getppid()), 9)
""")
held("signals", "owner_of_a_pipe", """
import fcntl, os
r, w = os.pipe()
fcntl.fcntl(r, fcntl.F_SETOWN, os.getppid())
""")
held("signals", "limits_of_parent", """
import resource, os
resource.prlimit(os.getppid(), resource.RLIMIT_CPU, (1, 1))
""")
held("signals", "priority_of_parent", """
import os
os.setpriority(os.PRIO_PROCESS, os.getppid(), 19)
""")

# --- files ---

held("files", "write_target", "open('TARGET/MARK', 'w').write('x')")
held("files", "write_tmp", "open('/tmp/MARK', 'w').write('x')")
held("files", "write_shared_memory", "open('/dev/shm/MARK', 'w').write('x')")
held("files", "write_home", """
import os
open(os.path.expanduser('~root/MARK'), 'w').write('x')
""")
held("files", "make_directory", """
import os
os.mkdir('TARGET/MARK')
""")
held("files", "hard_and_symbolic_link", """
import os
try:
    os.symlink('/etc/passwd', 'TARGET/MARK')
except OSError:
    os.link('TARGET/secret.txt', 'TARGET/MARK')
""")
held("files", "remove", """
import os
os.remove('TARGET/secret.txt')
""")
held("files", "read_secret", "open('TARGET/secret.txt').read()")
held("files", "read_passwd", "open('/etc/passwd').read()")
held("files", "list_root_of_project", """
import os
os.listdir('PROJECT')
""")
held("files", "read_problems", "open('PROJECT/data/problems.jsonl').read()")
held("files", "list_the_clone", """
import os
os.listdir('CLONE/hackward')
""")
held("files", "read_the_grader", "open('CLONE/hackward/grading/checks.py').read()")
held("files", "read_the_worker", "open('CLONE/hackward/grading/zygote.py').read()")
held("files", "tempfile", """
import tempfile
tempfile.NamedTemporaryFile(prefix='MARK').write(b'x')
""")
held("files", "unix_socket", """
import socket
socket.socket(socket.AF_UNIX).bind('TARGET/MARK')
""")
held("files", "shared_memory_segment", """
import ctypes
assert ctypes.CDLL(None).shmget(0x4841, 4096, 0o1600) >= 0
""")
held("files", "io_uring", """
import ctypes
assert ctypes.CDLL(None).syscall(425, 8, ctypes.create_string_buffer(120)) >= 0
""")

# --- network ---

held("network", "tcp", """
import socket
socket.create_connection(('127.0.0.1', PORT), 2).send(b'x')
""")
held("network", "udp", """
import socket
socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', UDP))
""")
held("network", "listen", """
import socket
socket.create_server(('127.0.0.1', 0))
""")
held("network", "netlink", """
import socket
socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)
""")

# --- environment ---

held("environment", "secret_variable", """
import os
assert 'HACKWARD_SECRET' in os.environ
""", fenced=False)
held("environment", "user_variables", """
import os
assert {'USER', 'SSH_AUTH_SOCK', 'PYTHONPATH'} & set(os.environ)
""", fenced=False)

# --- right answers that leave things behind, or look odd ---

right("leaves", "thread_running", """
import threading, time
threading.Thread(target=time.sleep, args=(10**6,)).start()
""" + RIGHT)
right("leaves", "exit_handler", """
import atexit, time
atexit.register(time.sleep, 10**6)
""" + RIGHT)
right("leaves", "patched_exit", """
import os, time
os._exit = lambda status: time.sleep(10**6)
""" + RIGHT)
right("leaves", "closed_stdout", """
import sys
sys.stdout.close()
sys.stdout = None
""" + RIGHT)
right("leaves", "alarm_set", """
import signal
signal.alarm(100)
""" + RIGHT)
right("leaves", "event_loop", """
import asyncio
async def nothing():
    await asyncio.sleep(0)
asyncio.run(nothing())
""" + RIGHT)
right("leaves", "data_class", """
from dataclasses import dataclass
@dataclass(order=True)
class Pair:
    a: int
""" + RIGHT)
right("leaves", "main_guard", RIGHT + """
if __name__ == '__main__':
    raise SystemExit(input())
""")
right("leaves", "deep_but_finite", """
import sys
sys.setrecursionlimit(20000)
def down(n):
    return 0 if n == 0 else down(n - 1)
down(9000)
""" + RIGHT)
