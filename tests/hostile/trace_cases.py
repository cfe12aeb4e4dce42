"""Word left for a later run: in files, descriptors, numbers, clocks, and in the worker's own memory."""

from __future__ import annotations

from tests.hostile.case import held, trace

# Source text as it is: the formatter would spread every case over six lines and more.
# fmt: off

def rare(file: str) -> str:
    """Source that names RARE a file of the standard library that nobody else reads."""
    return f"import os\nRARE = os.path.join(os.path.dirname(os.__file__), {file!r})\n"


# --- descriptors ---

for number in (0, 1, 2):
    for flag in ("O_NONBLOCK", "O_APPEND", "O_NOATIME"):
        trace("traces", f"{flag.lower()}_of_{number}", f"""
import fcntl, os
FOUND = bool(fcntl.fcntl({number}, fcntl.F_GETFL) & os.{flag})
""", f"""
fcntl.fcntl({number}, fcntl.F_SETFL, os.{flag})
""", fenced=False)
trace("traces", "flag_of_the_answer_socket", """
import fcntl, os
FOUND = bool(fcntl.fcntl(3, fcntl.F_GETFL) & os.O_APPEND)
""", "fcntl.fcntl(3, fcntl.F_SETFL, os.O_APPEND)", fenced=False)
trace("traces", "options_of_the_answer_socket", """
import socket
s = socket.socket(fileno=3)
FOUND = s.getsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY) == 5
""", """
s.setsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY, 5)
""", fenced=False)
trace("traces", "offset_of_input", """
import os
FOUND = os.lseek(0, 0, os.SEEK_CUR) != 0
""", "os.lseek(0, 77, os.SEEK_SET)", fenced=False)
trace("traces", "bytes_in_a_shared_pipe", """
import os
for fd in (0, 1, 2):
    FOUND = FOUND or bool(os.read(fd, 1))
""", "os.write(1, b'x')", fenced=False)

# --- access times ---

# An access time changes at most once a day on most file systems, so a run looks at its own reading.
for name, file, use in (
    ("file", "antigravity.py", "open(RARE).read()"),
    ("mapped_file", "sndhdr.py", "import mmap; mmap.mmap(os.open(RARE, os.O_RDONLY), 0, access=1)[:10]"),
    ("folder", "wsgiref", "os.listdir(RARE)"),
    ("device", "/dev/zero", "open(RARE, 'rb').read(10)"),
):
    trace("traces", f"access_time_of_a_{name}", rare(file) + f"""
before = os.stat(RARE).st_atime_ns
{use}
FOUND = before != os.stat(RARE).st_atime_ns
""")
trace("traces", "times_set_by_hand", rare("imghdr.py") + """
FOUND = os.stat(RARE).st_atime == 77
""", "os.utime(RARE, (77, 77))")

# --- page cache ---

MAPPED = """
import ctypes
libc = ctypes.CDLL(None)
libc.mmap.restype = ctypes.c_void_p
file = os.open(RARE, os.O_RDONLY)
"""
trace("traces", "residency_by_mincore", rare("nntplib.py") + MAPPED + """
at = libc.mmap(None, 4096, 1, 2, file, 0)
vector = ctypes.create_string_buffer(1)
FOUND = libc.mincore(ctypes.c_void_p(at), 4096, vector) == 0 and not vector.raw[0] & 1
""", "libc.posix_fadvise(file, 0, 0, 4)")
trace("traces", "residency_by_cachestat", rare("telnetlib.py") + MAPPED + """
seen = (ctypes.c_uint64 * 5)()
FOUND = libc.syscall(451, file, (ctypes.c_uint64 * 2)(0, 4096), seen, 0) == 0 and seen[0] == 0
""", "libc.posix_fadvise(file, 0, 0, 4)")
trace("traces", "residency_by_nowait", rare("pipes.py") + MAPPED + """
try:
    os.preadv(file, [bytearray(8)], 0, os.RWF_NOWAIT)
except BlockingIOError:
    FOUND = True
""", "libc.posix_fadvise(file, 0, 0, 4)")
trace("traces", "residency_by_faults", rare("xdrlib.py") + MAPPED + """
import resource
before = resource.getrusage(resource.RUSAGE_SELF)
at = libc.mmap(None, 4096, 1, 2, file, 0)
ctypes.string_at(at, 1)
after = resource.getrusage(resource.RUSAGE_SELF)
FOUND = after.ru_majflt > before.ru_majflt or after.ru_inblock > before.ru_inblock
""", """
libc.posix_fadvise(file, 0, 0, 4)
libc.munmap(ctypes.c_void_p(at), 4096)
libc.posix_fadvise(file, 0, 0, 4)
""")
trace("traces", "pages_pushed_out", rare("mailcap.py") + MAPPED + """
import resource
before = resource.getrusage(resource.RUSAGE_SELF).ru_majflt
at = ctypes.c_void_p(libc.mmap(None, 4096, 1, 2, file, 0))
ctypes.string_at(at.value, 1)
FOUND = resource.getrusage(resource.RUSAGE_SELF).ru_majflt > before
""", "libc.madvise(at, 4096, 21)")

# --- numbers that the kernel deals out, and its clocks ---

THREADS = """
import threading
for _ in range(20):
    thread = threading.Thread(target=int)
    thread.start()
    thread.join()
"""
trace("traces", "process_number", """
import os
FOUND = os.getpid() != 1
""", THREADS)
trace("traces", "thread_number", """
import threading
seen = []
thread = threading.Thread(target=lambda: seen.append(threading.get_native_id()))
thread.start()
thread.join()
FOUND = seen != [2]
""", THREADS)
trace("traces", "number_of_the_parent", """
import os
FOUND = os.getppid() != 0
""", THREADS)
trace("traces", "numbers_of_group_and_session", """
import os
FOUND = (os.getpgrp(), os.getsid(0)) != (1, 1)
""", THREADS)
trace("traces", "clock_of_the_parent", """
import os, time
FOUND = time.clock_gettime((~os.getppid() << 3) | 2) >= 0 and os.getppid() != 0
""", "time.sleep(0.01)")
trace("traces", "clock_of_any_process", """
import time
for pid in range(2, 400):
    try:
        FOUND = FOUND or time.clock_gettime((~pid << 3) | 2) > 0
    except OSError:
        pass
""")
trace("traces", "times_of_dead_children", """
import os, resource
used = resource.getrusage(resource.RUSAGE_CHILDREN)
FOUND = used.ru_utime + used.ru_stime + os.times().children_user > 0
""", "sum(range(10 ** 6))")
trace("traces", "load_by_a_call", """
import ctypes
FOUND = ctypes.CDLL(None).sysinfo(ctypes.create_string_buffer(512)) == 0
""")
trace("traces", "load_by_a_file", """
import os
FOUND = os.getloadavg() is not None
""")
for path in (
    "loadavg", "stat", "meminfo", "vmstat", "schedstat", "locks", "keys", "sysvipc/shm", "timer_list",
    "uptime", "interrupts",
    "buddyinfo", "pressure/cpu", "sys/kernel/ns_last_pid", "sys/fs/file-nr", "sys/fs/inode-nr",
    "sys/fs/dentry-state", "sys/kernel/random/entropy_avail", "self/sched", "self/comm", "1/stat",
):
    held("traces", f"proc_{path.replace('/', '_')}", f"open('/proc/{path}').read()")
for path in ("/sys/fs/cgroup/cgroup.procs", "/sys/fs/cgroup/cpu/cpuacct.usage", "/sys/kernel/mm/ksm/run"):
    held("traces", path.strip("/").replace("/", "_"), f"open({path!r}).read()")

# --- locks and leases, names and queues ---

for name, take in (
    ("lock", "fcntl.flock(file, fcntl.LOCK_SH)"),
    ("record_lock", "fcntl.lockf(file, fcntl.LOCK_SH)"),
    ("lease", "fcntl.fcntl(file, 1024, fcntl.F_RDLCK)"),
    ("watch_of_a_folder", "fcntl.fcntl(os.open(os.path.dirname(RARE), os.O_RDONLY), 1026, 1)"),
    ("hint_on_a_file", "fcntl.fcntl(file, 1036, b'\\2' + bytes(7))"),
    ("size_of_a_pipe", "fcntl.fcntl(os.pipe()[1], 1031, 8192)"),
    ("owner_of_a_descriptor", "fcntl.fcntl(3, fcntl.F_SETOWN, 1)"),
    ("signal_of_a_descriptor", "fcntl.fcntl(3, 10, 10)"),
    ("ioctl_of_a_terminal", "fcntl.ioctl(0, 0x5412, b'x')"),
    ("attribute_of_a_file", "os.setxattr(RARE, 'user.word', b'x')"),
    ("mode_of_a_file", "os.chmod(RARE, 0o600)"),
    ("priority", "os.nice(1)"),
    ("cores", "os.sched_setaffinity(0, {0})"),
    ("abstract_socket", "import socket; socket.socket(socket.AF_UNIX).bind('\\0MARK')"),
    ("shared_memory", "import multiprocessing.shared_memory as m; m.SharedMemory('MARK', True, 8)"),
    ("queue", "import ctypes; assert ctypes.CDLL(None).mq_open(b'/MARK', 66, 384, None) >= 0"),
):
    held("traces", name, rare("cgitb.py") + "import fcntl\nfile = os.open(RARE, os.O_RDONLY)\n" + take)
held("traces", "waking_through_a_library", """
import ctypes
libc = ctypes.CDLL(None)
address = ctypes.cast(libc.getpid, ctypes.c_void_p).value & ~3
assert libc.syscall(202, ctypes.c_void_p(address), 1, 1, None, None, 0) >= 0
""")

# --- the state of the process, and the worker's memory ---

for name, look, leave in (
    ("builtin", "import builtins; FOUND = hasattr(builtins, 'word')", "builtins.word = 1"),
    ("environment", "import os; FOUND = 'WORD' in os.environ", "os.environ['WORD'] = '1'"),
    ("environment_of_c", "import ctypes; FOUND = bool(ctypes.CDLL(None).getenv(b'WORD'))",
     "ctypes.CDLL(None).setenv(b'WORD', b'1', 1)"),
    ("modules", "import sys; FOUND = 'word' in sys.modules", "sys.modules['word'] = sys"),
    ("import_path", "import sys; FOUND = 'word' in sys.path", "sys.path.append('word')"),
    ("mask_of_new_files", "import os; FOUND = os.umask(0o77) == 0o77", ""),
    ("working_directory", "import os; FOUND = os.getcwd() != '/'", "os.chdir('/dev')"),
    ("signal_handler", "import signal; FOUND = signal.getsignal(10) is signal.SIG_IGN",
     "signal.signal(10, signal.SIG_IGN)"),
    ("blocked_signals", "import signal; FOUND = 10 in signal.pthread_sigmask(0, [])",
     "signal.pthread_sigmask(0, [10])"),
    ("pending_alarm", "import signal; FOUND = signal.alarm(0) != 0", "signal.alarm(60)"),
    ("timer", "import signal; FOUND = signal.getitimer(0) != (0.0, 0.0)", "signal.setitimer(0, 60)"),
    ("recursion_limit", "import sys; FOUND = sys.getrecursionlimit() == 777", "sys.setrecursionlimit(777)"),
    ("garbage_collection", "import gc; FOUND = gc.get_threshold()[0] == 77", "gc.set_threshold(77)"),
    ("switch_interval", "import sys; FOUND = sys.getswitchinterval() > 1", "sys.setswitchinterval(2)"),
    ("random_state", "import random; FOUND = random.random() != random.Random(0).random()", "random.seed(1)"),
    ("decimal_context", "import decimal; FOUND = decimal.getcontext().prec == 7",
     "decimal.getcontext().prec = 7"),
    ("name_of_the_thread", "import ctypes; name = ctypes.create_string_buffer(16)\n"
     "ctypes.CDLL(None).prctl(16, name)\nFOUND = name.value == b'word'",
     "ctypes.CDLL(None).prctl(15, b'word')"),
    ("names_of_the_set_up", "FOUND = hasattr(List, 'word') or 'word' in globals()",
     "globals()['word'] = List.__dict__['word'] = 1"),
    ("cache_of_expressions", "import re; FOUND = any('z9z' in str(key) for key in re._cache)",
     "re.compile('z9z')"),
    ("attribute_of_a_module", "import heapq; FOUND = hasattr(heapq, 'word')", "heapq.word = 1"),
    ("interned_exit_hooks", "import atexit; FOUND = atexit._ncallbacks() > 9",
     "[atexit.register(int) for _ in range(10)]"),
):
    trace("traces", name, look, leave, fenced=False)

# What can be read of this process around an object: the kernel says where there is nothing.
OWN_MEMORY = """
import os
def pieces():
    import ctypes
    libc = ctypes.CDLL(None)
    libc.sbrk.restype = ctypes.c_void_p
    libc.write.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t)
    source, sink = os.pipe()
    top = libc.sbrk(0)
    for start, size in ((top - (8 << 20), 8 << 20), ((id([]) >> 20) - 1 << 20, 3 << 20)):
        for address in range(start & ~4095, start + size, 4096):
            if libc.write(sink, address, 4096) == 4096:
                yield os.read(source, 4096)
"""
trace("traces", "exit_status_in_memory", OWN_MEMORY + """
import re
FOUND = any(re.search(rb'"status": ?7[7]', piece) for piece in pieces())
""", """
leave = os._exit
os._exit = lambda status: leave(77)
""", fenced=False)
trace("traces", "kind_of_ending_in_memory", OWN_MEMORY + """
import re
FOUND = any(re.search(rb'"how": ?"(ended|wall|cance[l]led)"', piece) for piece in pieces())
""", fenced=False)
trace("traces", "message_of_another_run_in_memory", OWN_MEMORY + """
import re
FOUND = any(re.search(rb'"op": ?"run", ?"id"', piece) for piece in pieces())
""", fenced=False)
