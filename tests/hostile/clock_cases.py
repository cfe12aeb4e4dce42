"""Attempts to hold a worker for longer than its limits: past the count of CPU time, or asleep."""

from __future__ import annotations

from tests.hostile.case import WRONG, right, wrong

# Source text as it is: the formatter would spread every case over six lines and more.
# fmt: off


def holds(name: str, code: str, fenced: bool = True) -> None:
    """Would keep the worker for as long as it is let."""
    wrong("clocks", name, code, fenced=fenced, slow=True)


NAP = """
import time
def busy(seconds):
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass
"""
holds("naps_over_the_ticks", NAP + """
while True:
    busy(0.0034)
    time.sleep(0.0003)
""", fenced=False)
holds("naps_at_the_tick", NAP + """
while True:
    left = 0.004 - time.clock_gettime(time.CLOCK_MONOTONIC) % 0.004
    busy(max(0.0, left - 0.0004))
    time.sleep(0.0006)
""", fenced=False)
holds("naps_in_threads", NAP + """
import threading
def work():
    while True:
        busy(0.002)
        time.sleep(0.002)
for _ in range(4):
    threading.Thread(target=work).start()
""", fenced=False)
holds("relay_of_threads", NAP + """
import threading
def work():
    busy(0.02)
    threading.Thread(target=work).start()
threading.Thread(target=work).start()
""", fenced=False)
holds("three_per_cent", NAP + """
while True:
    busy(0.003)
    time.sleep(0.097)
""", fenced=False)
holds("ten_per_cent", NAP + """
while True:
    busy(0.01)
    time.sleep(0.09)
""", fenced=False)
holds("hash_without_the_lock", """
import hashlib, threading
data = bytes(1 << 22)
def work():
    while True:
        hashlib.sha256(data).digest()
for _ in range(3):
    threading.Thread(target=work).start()
""", fenced=False)
holds("timer_and_pause", """
import signal
signal.signal(signal.SIGALRM, lambda *a: None)
signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
while True:
    signal.pause()
""", fenced=False)
holds("pause", "import signal\nsignal.pause()", fenced=False)
holds("timer_of_cpu_time", """
import signal
signal.signal(signal.SIGPROF, lambda *a: None)
signal.setitimer(signal.ITIMER_PROF, 0.001, 0.001)
while True:
    pass
""", fenced=False)
holds("signals_blocked", """
import signal
signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
while True:
    pass
""", fenced=False)
holds("stops_itself", """
import os, signal
os.kill(os.getpid(), signal.SIGSTOP)
signal.pause()
""", fenced=False)
holds("vfork", """
import ctypes, time
libc = ctypes.CDLL(None)
libc.vfork()
time.sleep(1000)
""")
holds("waits_for_a_lock", """
import threading
lock = threading.Lock()
while True:
    lock.acquire()
""", fenced=False)
holds("waits_for_a_queue", "import queue\nqueue.Queue().get()", fenced=False)
holds("waits_for_a_descriptor", "import select, os\nselect.select([os.pipe()[0]], [], [])", fenced=False)
holds("waits_for_an_event", """
import asyncio
async def never():
    await asyncio.Event().wait()
asyncio.run(never())
""", fenced=False)
holds("waits_for_a_signal", "import signal\nsignal.sigwait([10])", fenced=False)
holds("reads_the_answer_socket", "import os\nwhile True:\n    os.read(3, 1)", fenced=False)
holds("writes_slowly", """
import os, time
while True:
    os.write(3, b'1')
    time.sleep(0.05)
""", fenced=False)
holds("writes_lines_slowly", WRONG + """
import os, time
os.write(3, b'{"ran":true}\\n')
while True:
    os.write(3, b' ')
    time.sleep(0.05)
""", fenced=False)
holds("last_answer_never_comes", """
import time
SEEN = []
class Solution:
    def fold(self, nums):
        SEEN.append(nums)
        if len(SEEN) == 4:
            time.sleep(10 ** 6)
        return sum(number * place for place, number in enumerate(nums, 1))
""", fenced=False)
holds("catches_everything", """
while True:
    try:
        while True:
            [].pop()
    except BaseException:
        pass
""", fenced=False)
holds("exit_in_a_loop", """
import os
os._exit = lambda status: [None for _ in iter(int, 1)]
raise SystemExit
""", fenced=False)
holds("endless_answer", """
class Solution:
    def fold(self, nums):
        class Node:
            val = 0
            next = property(lambda self: Node())
        return [Node() for _ in iter(int, 1)]
""", fenced=False)
holds("digits", "class Solution:\n    def fold(self, nums):\n        return 7 ** (7 ** 9)", fenced=False)
holds("waits_in_c", """
import ctypes
ctypes.CDLL(None).sleep(10 ** 6)
""", fenced=False)
holds("loops_while_compiling", "x = " + "+".join(["(1 << 10 ** 8)"] * 2000), fenced=False)

# --- right answers that sleep a little, or look at clocks ---

SUM = "return sum(number * place for place, number in enumerate(nums, 1))"
for name, first in (
    ("sleeps_a_little", "import time; time.sleep(0.05)"),
    ("measures_itself", "import time; time.process_time(); time.thread_time(); time.perf_counter()"),
    ("asks_for_its_usage", "import resource; assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > 0"),
    ("computes_for_a_while", "sum(range(10 ** 6))"),
    ("sets_an_alarm", "import signal; signal.setitimer(signal.ITIMER_REAL, 50)"),
):
    right("clocks", name, f"class Solution:\n    def fold(self, nums):\n        {first}\n        {SUM}\n")
