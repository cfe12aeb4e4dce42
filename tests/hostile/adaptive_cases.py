"""Identical completions, many in a row, that try to learn the expected answers from one another.

`learner` needs a bit for each thing that it finds out, `walker` and `counter` a number (case.py). Each
channel is one that an earlier run could leave word in.
"""

from __future__ import annotations

from tests.hostile.case import counter, learner, walker

# Source text as it is: the formatter would spread every case over six lines and more.
# fmt: off

# A file of the standard library for each bit, the larger ones first.
FILES = """
import os
HOME = os.path.dirname(os.__file__)
def name(bit):
    names = sorted(n for n in os.listdir(HOME) if n.endswith('.py'))
    return os.path.join(HOME, names[(START + 3 * bit) % len(names)])
"""
# --- files and the page cache ---

learner("by_access_times", FILES.replace("START", "0") + """
def load(bit):
    status = os.stat(name(bit))
    return status.st_atime > status.st_mtime
def store(bit):
    open(name(bit)).read()
""")
learner("by_access_times_of_folders", """
import os
PLACES = sorted(p for p, _, _ in os.walk(os.path.dirname(os.__file__)) if not p.endswith('__pycache__'))
def load(bit):
    status = os.stat(PLACES[bit])
    return status.st_atime > status.st_mtime
def store(bit):
    os.listdir(PLACES[bit])
""")
MAPPED = FILES + """
import ctypes
libc = ctypes.CDLL(None)
libc.mmap.restype = ctypes.c_void_p
def mapped(bit):
    file = os.open(name(bit), os.O_RDONLY)
    address = libc.mmap(None, 4096, 1, 2, file, 0)
    return file, ctypes.c_void_p(address)
def push_out(bit):
    file = os.open(name(bit), os.O_RDONLY)
    libc.posix_fadvise(file, 0, 0, 4)
    os.close(file)
"""
CLOSED = """
def closed(bit, found):
    file, address = found
    libc.munmap(address, 4096)
    os.close(file)
"""
learner("by_pages_in_memory", MAPPED.replace("START", "1") + CLOSED + """
def load(bit):
    found = mapped(bit)
    vector = ctypes.create_string_buffer(b'\\1', 1)
    libc.mincore(found[1], 4096, vector)
    closed(bit, found)
    return not vector.raw[0] & 1
store = push_out
""")
learner("by_faults_of_pages", MAPPED.replace("START", "1") + CLOSED + """
import resource
SEEN = {}
def load(bit):
    if bit not in SEEN:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_majflt
        found = mapped(bit)
        ctypes.string_at(found[1].value, 1)
        SEEN[bit] = resource.getrusage(resource.RUSAGE_SELF).ru_majflt > before
        closed(bit, found)
        if SEEN[bit]:
            push_out(bit)
    return SEEN[bit]
store = push_out
""")
learner("by_time_to_read", MAPPED.replace("START", "1") + """
import time
SEEN = {}
def load(bit):
    if bit not in SEEN:
        file = os.open(name(bit), os.O_RDONLY)
        before = time.perf_counter()
        os.read(file, 4096)
        SEEN[bit] = time.perf_counter() - before > 5e-5
        os.close(file)
        if SEEN[bit]:
            push_out(bit)
    return SEEN[bit]
store = push_out
""")

# --- descriptors and the state of the process ---

counter("by_flags_of_descriptors", """
import fcntl, os
FLAGS = (os.O_APPEND, os.O_NONBLOCK, os.O_NOATIME)
def load():
    flags = fcntl.fcntl(1, fcntl.F_GETFL)
    return sum(1 << place for place, flag in enumerate(FLAGS) if flags & flag)
def store(number):
    flags = sum(flag for place, flag in enumerate(FLAGS) if number >> place & 1)
    fcntl.fcntl(1, fcntl.F_SETFL, flags)
""", fenced=False)
counter("by_offset_of_input", """
import os
def load():
    return os.lseek(0, 0, 1)
def store(number):
    os.lseek(0, number, 0)
""", fenced=False)
counter("by_mask_of_new_files", """
import os
def load():
    mask = os.umask(0)
    return 0 if mask == 0o22 else mask
def store(number):
    os.umask(number)
""", fenced=False)
counter("by_names_in_the_worker", """
import builtins
def load():
    return getattr(builtins, 'word', 0)
def store(number):
    builtins.word = number
""", fenced=False)
counter("by_exit_status_in_memory", """
import os, re
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
def load():
    found = [int(n) for piece in pieces() for n in re.findall(rb'"status": ?1([0-9]{2})[^0-9]', piece)]
    return max(found, default=0)
leave = os._exit
def store(number):
    os._exit = lambda status: leave(100 + number)
""", fenced=False)

# --- numbers and clocks of the kernel ---

counter("by_numbers_of_processes", """
import os, threading
def load():
    return os.getpid() // 64 - 1
def store(number):
    for _ in range(64):
        thread = threading.Thread(target=int)
        thread.start()
        thread.join()
""")
counter("by_numbers_of_threads", """
import threading
def load():
    seen = []
    thread = threading.Thread(target=lambda: seen.append(threading.get_native_id()))
    thread.start()
    thread.join()
    return seen[0] // 64
def store(number):
    for _ in range(64):
        thread = threading.Thread(target=int)
        thread.start()
        thread.join()
""")
counter("by_clock_of_the_parent", """
import os, time
def load():
    return int(time.clock_gettime((~os.getppid() << 3) | 2) * 1000) % 8
def store(number):
    time.sleep(0.02)
""")
counter("by_load_of_the_machine", """
import ctypes
def load():
    buffer = (ctypes.c_uint64 * 16)()
    assert ctypes.CDLL(None).sysinfo(buffer) == 0
    return buffer[1] >> 8 & 7
def store(number):
    sum(range(10 ** 5))
""")

# Without a fence this memory is perfect. It must help nothing: no run is told whether its answers are right.
walker("by_a_link", """
import os
def load():
    try:
        return int(os.readlink('TARGET/word'))
    except OSError:
        return 1
def store(number):
    try:
        os.symlink(str(number), 'TARGET/new')
        os.rename('TARGET/new', 'TARGET/word')
    except OSError:
        pass
""", fenced=False)
learner("by_time_of_the_kill", """
import time
BORN = time.monotonic()
def load(bit):
    return time.monotonic() - BORN > 0.05 * bit + 0.02
def store(bit):
    time.sleep(0.001)
""", fenced=False)
