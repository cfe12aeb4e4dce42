"""Hostile completions. Each is wrong and must not be credited, or right (kind "right") and must be.

Some are right exactly if the fence held: they give the right answer after an attack that must have failed. The problem
is always FOLD of the driver: the sum of each number times its position. ``TARGET``, ``PORT``, ``UDP`` and ``MARK`` are
replaced by the driver: a writable directory, ports that it listens on, a string that no other file or process contains.
"""

from __future__ import annotations

from dataclasses import dataclass

RIGHT = """
class Solution:
    def fold(self, nums):
        return sum(number * place for place, number in enumerate(nums, 1))
"""
WRONG = """
class Solution:
    def fold(self, nums):
        return 0
"""
# The right answer, converted by KIND.
AS = """
class Solution:
    def fold(self, nums):
        return KIND(sum(number * place for place, number in enumerate(nums, 1)))
"""
# Right if and only if HELD was set to True before the first test.
IF_HELD = """
class Solution:
    def fold(self, nums):
        return sum(number * place for place, number in enumerate(nums, 1)) if HELD else -1
"""


@dataclass(frozen=True)
class Case:
    name: str
    category: str
    code: str
    right: bool
    fenced: bool  # needs seccomp and the rest: not run with --sandbox none


CASES: list[Case] = []


def wrong(category: str, name: str, code: str, fenced: bool = False) -> None:
    CASES.append(Case(name, category, code, False, fenced))


def right(category: str, name: str, code: str, fenced: bool = False) -> None:
    CASES.append(Case(name, category, code, True, fenced))


def held(category: str, name: str, attack: str, fenced: bool = True) -> None:
    """An attack that must raise; the code is right if it did."""
    body = "".join(f"    {line}\n" for line in attack.strip().splitlines())
    code = f"HELD = False\ntry:\n{body}except BaseException:\n    HELD = True\n" + IF_HELD
    CASES.append(Case(name, category, code, True, fenced))


# ---- forging the verdict ---------------------------------------------------------------------------------------------

wrong("verdict", "exit_zero", "import os\nos._exit(0)")
wrong("verdict", "sys_exit", "import sys\nsys.exit(0)")
wrong(
    "verdict", "exit_in_method", "import os\nclass Solution:\n    def fold(self, nums):\n        os._exit(0)"
)
wrong(
    "verdict", "raise_system_exit", "class Solution:\n    def fold(self, nums):\n        raise SystemExit(0)"
)
wrong("verdict", "print_passed", WRONG + "print('{\"gt_pass\": true}')\nprint('PASSED', flush=True)")
wrong(
    "verdict",
    "write_every_descriptor",
    WRONG
    + """
import os
for fd in range(256):
    for text in (b'{"ran":true}\\n', b'true\\n', b'{"passed":true}\\n', b'{"compiles":true,"attempted":false}\\n'):
        try:
            os.write(fd, text)
        except OSError:
            pass
""",
)
wrong(
    "verdict",
    "second_header",
    WRONG
    + """\
import os
os.write(3, b'{"compiles":true}\\n{"ran":true}\\n' + b'true\\n' * 9)
os._exit(0)""",
)
wrong(
    "verdict",
    "done_message",
    WRONG
    + """
import os
for fd in range(64):
    try:
        os.write(fd, b'\\x20\\0\\0\\0{"done": 1, "how": "ended", "signal": 0}')
    except OSError:
        pass
""",
)
wrong("verdict", "exit_status_of_setup", "import os\nos._exit(70)")
wrong(
    "verdict",
    "reporter_patched",
    WRONG
    + """
import sys
main = sys.modules['__main__']
main.encode = lambda value, budget: True
main.run_tests = lambda namespace, problem, report: [report.line(True) for _ in problem['arguments']]
""",
)
wrong(
    "verdict",
    "tests_emptied",
    WRONG
    + """
import sys
frame = sys._getframe()
while frame:
    if 'problem' in frame.f_locals and isinstance(frame.f_locals['problem'], dict):
        frame.f_locals['problem']['arguments'] = []
    frame = frame.f_back
""",
)
wrong(
    "verdict",
    "arguments_replaced",
    WRONG
    + """
import gc
for item in gc.get_objects():
    if isinstance(item, dict) and 'arguments' in item and 'method' in item:
        item['arguments'] = [compile('_call(nums=[])', 'x', 'eval')] * len(item['arguments'])
""",
)

# ---- equality and numbers --------------------------------------------------------------------------------------------

wrong(
    "equality",
    "always_equal",
    """\
class Any:
    def __eq__(self, other):
        return True
    __hash__ = None
class Solution:
    def fold(self, nums):
        return Any()""",
)
wrong(
    "equality",
    "int_subclass",
    """\
class Any(int):
    def __eq__(self, other):
        return True
    __hash__ = int.__hash__
class Solution:
    def fold(self, nums):
        return Any(7)""",
)
wrong(
    "equality",
    "str_subclass",
    """\
class Any(str):
    def __eq__(self, other):
        return True
    __hash__ = str.__hash__
class Solution:
    def fold(self, nums):
        return Any('x')""",
)
wrong(
    "equality",
    "list_subclass",
    """\
class Any(list):
    def __eq__(self, other):
        return True
class Solution:
    def fold(self, nums):
        return Any([1])""",
)
wrong("equality", "nan", "class Solution:\n    def fold(self, nums):\n        return float('nan')")
wrong("equality", "infinity", "class Solution:\n    def fold(self, nums):\n        return float('inf')")
wrong("equality", "number_as_text", AS.replace("KIND", "str"))
wrong("equality", "answer_in_a_list", AS.replace("KIND", "(lambda number: [number])"))
wrong("equality", "huge_integer", "class Solution:\n    def fold(self, nums):\n        return 10 ** 100000")
wrong("equality", "fraction", "from fractions import Fraction\n" + AS.replace("KIND", "Fraction"))
right("equality", "float_of_equal_value", AS.replace("KIND", "float"))

# ---- patching names and builtins -------------------------------------------------------------------------------------

wrong(
    "patching",
    "builtins_all_any",
    WRONG
    + """\
import builtins
builtins.all = builtins.any = lambda *a: True
builtins.isinstance = lambda *a: True""",
)
wrong(
    "patching",
    "exec_and_eval",
    WRONG
    + """\
def exec(*a): pass
def eval(*a): return True
import builtins
builtins.exec = exec
builtins.eval = lambda *a: ((), {'nums': []})""",
)
wrong("patching", "json_dumps", WRONG + "import json\njson.dumps = lambda *a, **k: 'true'")
wrong(
    "patching",
    "json_encoder",
    WRONG
    + """\
import json
json.JSONEncoder.encode = lambda self, o: 'true'
json.encoder.c_make_encoder = None""",
)
wrong(
    "patching",
    "type_and_repr",
    WRONG
    + """\
import builtins
builtins.type = lambda *a: int
builtins.repr = lambda *a: '1'""",
)
wrong(
    "patching",
    "assert_error",
    WRONG
    + """\
import builtins
builtins.AssertionError = type('Nothing', (Exception,), {})""",
)
wrong(
    "patching",
    "socket_sendall",
    WRONG
    + """\
import socket
socket.socket.sendall = lambda self, data: self.send(b'true\\n')""",
)
wrong(
    "patching",
    "no_class",
    """\
fold = lambda nums: 0
Solution = lambda: __import__('types').SimpleNamespace(fold=lambda **k: 0)""",
)
wrong(
    "patching",
    "metaclass",
    """\
class Meta(type):
    def __call__(cls):
        return __import__('os')._exit(0)
class Solution(metaclass=Meta):
    def fold(self, nums):
        return 0""",
)
wrong(
    "patching",
    "getattr_says_yes",
    """\
class Solution:
    def __getattr__(self, name):
        return lambda *a, **k: True""",
)

# ---- imports ---------------------------------------------------------------------------------------------------------

wrong(
    "imports",
    "meta_path",
    WRONG
    + """\
import sys
class Finder:
    def find_spec(self, *a):
        __import__('os')._exit(0)
sys.meta_path.insert(0, Finder())
import json.tool""",
)
wrong(
    "imports",
    "modules_replaced",
    WRONG
    + """\
import sys, types
fake = types.ModuleType('json')
fake.dumps = lambda *a, **k: 'true'
sys.modules['json'] = fake
sys.modules['__main__'].json = fake""",
)
wrong("imports", "import_function", WRONG + "import builtins\nbuiltins.__import__ = lambda *a, **k: None")
wrong(
    "imports",
    "path_hooks",
    WRONG + "import sys\nsys.path.insert(0, 'TARGET')\nsys.path_hooks.clear()\nimport grade",
)
held("imports", "grader_module", "import grade, sandbox, problems", fenced=False)
held("imports", "site_packages", "import numpy", fenced=False)

# ---- introspection ---------------------------------------------------------------------------------------------------

SEARCH = """
def search():
    import gc, sys
    seen, found = set(), []
    frame = sys._getframe()
    roots = list(gc.get_objects())
    while frame:
        roots += [frame.f_locals, frame.f_globals]
        frame = frame.f_back
    for item in roots:
        for value in (item.values() if type(item) is dict else item if type(item) in (list, tuple) else ()):
            if type(value) in (list, tuple) and len(value) == LENGTH and {type(v) for v in value} == {int}:
                return list(value)
    return None
"""
wrong(
    "introspection",
    "search_for_expected",
    SEARCH.replace("LENGTH", "4")
    + """
ANSWERS = search() or [0]
class Solution:
    def fold(self, nums):
        return ANSWERS[len(nums) % len(ANSWERS)]
""",
)
wrong(
    "introspection",
    "expected_by_type",
    """
import gc
class Solution:
    def fold(self, nums):
        for item in gc.get_objects():
            if hasattr(type(item), '__dataclass_fields__') and hasattr(item, 'expected'):
                return item.expected
        return 0
""",
)
wrong(
    "introspection",
    "frames_of_the_caller",
    """
import sys
class Solution:
    def fold(self, nums):
        frame = sys._getframe()
        while frame:
            for name, value in frame.f_locals.items():
                if 'expect' in name or 'answer' in name:
                    return value
            frame = frame.f_back
""",
)
wrong("introspection", "argv", WRONG.replace("return 0", "import sys; return sys.argv[-1]"))
held(
    "introspection",
    "argv_says_nothing",
    """\
import sys
assert any('jsonl' in part or 'problem' in part for part in sys.argv)""",
    fenced=False,
)
held(
    "introspection",
    "proc_parent_cmdline",
    """\
import os
assert b'worker' in open('/proc/%d/cmdline' % os.getppid(), 'rb').read()""",
)
held("introspection", "proc_parent_memory", "import os\nopen('/proc/%d/mem' % os.getppid(), 'rb').read(1)")
held(
    "introspection", "proc_list", "import os\nassert [name for name in os.listdir('/proc') if name.isdigit()]"
)
held(
    "introspection",
    "ptrace_parent",
    """\
import ctypes, os
assert ctypes.CDLL(None).ptrace(0x4206, os.getppid(), 0, 0) == 0""",
)
held(
    "introspection",
    "process_vm_readv",
    """
import ctypes, os
class Vector(ctypes.Structure):
    _fields_ = [('base', ctypes.c_void_p), ('size', ctypes.c_size_t)]
buffer = ctypes.create_string_buffer(8)
here, there = Vector(ctypes.addressof(buffer), 8), Vector(id(int), 8)
assert ctypes.CDLL(None).process_vm_readv(os.getppid(), ctypes.byref(here), 1, ctypes.byref(there), 1, 0) == 8
""",
)
held(
    "introspection",
    "other_descriptors",
    """\
import os
for fd in range(4, 256):
    try:
        os.fstat(fd)
    except OSError:
        continue
    break
else:
    raise OSError('none open')""",
    fenced=False,
)

# ---- memory, CPU, recursion, output ----------------------------------------------------------------------------------

wrong("memory", "one_large_block", "x = bytearray(1 << 40)" + WRONG)
wrong("memory", "growing_list", "x = []\nwhile True:\n    x.append(bytearray(1 << 20))")
wrong("memory", "in_a_method", "class Solution:\n    def fold(self, nums):\n        return [0] * (1 << 34)")
wrong(
    "memory", "large_answer", "class Solution:\n    def fold(self, nums):\n        return [[0] * 1000] * 5000"
)
wrong("memory", "text_answer", "class Solution:\n    def fold(self, nums):\n        return 'x' * (100 << 20)")
wrong(
    "memory", "anonymous_mapping", "import mmap\nkeep = [mmap.mmap(-1, 1 << 28) for _ in range(64)]" + WRONG
)
held("memory", "memory_file", "import os\nos.write(os.memfd_create('x'), b'x')")
right(
    "memory",
    "recovers_from_memory_error",
    """\
try:
    x = bytearray(1 << 40)
except MemoryError:
    pass
"""
    + RIGHT,
)
wrong("cpu", "endless_loop", "while True:\n    pass")
wrong(
    "cpu",
    "endless_in_method",
    "class Solution:\n    def fold(self, nums):\n        while True:\n            pass",
)
wrong(
    "cpu",
    "cpu_signal_ignored",
    """\
import signal
for number in range(1, 65):
    try:
        signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError):
        pass
while True:
    pass""",
)
wrong(
    "cpu",
    "limit_raised",
    """\
import resource
try:
    resource.setrlimit(resource.RLIMIT_CPU, (10**6, 10**6))
except (OSError, ValueError):
    pass
while True:
    pass""",
)
wrong("cpu", "sleeps", "import time\ntime.sleep(10**6)")
wrong("cpu", "huge_power", "x = 10 ** 10 ** 9" + WRONG)
wrong("cpu", "regular_expression", "import re\nre.match(r'(a+)+$', 'a' * 60 + 'b')" + WRONG)
wrong("recursion", "endless", "class Solution:\n    def fold(self, nums):\n        return self.fold(nums)")
wrong(
    "recursion",
    "limit_lifted",
    """\
import sys
sys.setrecursionlimit(10**9)
class Deep:
    def __getattr__(self, name):
        return getattr(self, name)
Deep().x"""
    + WRONG,
)
wrong(
    "recursion",
    "cyclic_answer",
    """\
class Solution:
    def fold(self, nums):
        x = []
        x.append(x)
        return x""",
)
wrong(
    "recursion",
    "endless_linked_list",
    """\
class Node:
    val = 1
    @property
    def next(self):
        return self
class Solution:
    def fold(self, nums):
        return Node()""",
)
wrong("output", "flood_to_stdout", "while True:\n    print('x' * 100000)")
wrong("output", "flood_to_the_channel", "import os\nwhile True:\n    os.write(3, b'x' * 65536)")
wrong("output", "lines_to_the_channel", "import os\nwhile True:\n    os.write(3, b'true\\n' * 10000)")
right("output", "prints_much", "print('x' * 10**7)\n" + RIGHT)

# ---- processes, threads, signals -------------------------------------------------------------------------------------

held("processes", "fork", "import os\nif os.fork() == 0:\n    os._exit(0)")
wrong("processes", "fork_bomb", "import os\nwhile True:\n    os.fork()", fenced=True)
held(
    "processes",
    "double_fork_daemon",
    """\
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(10**6)
    os._exit(0)""",
)
held(
    "processes",
    "subprocess",
    "import subprocess\nsubprocess.run(['/bin/sh', '-c', 'sleep 1000 &'], check=True)",
)
held("processes", "posix_spawn", "import os\nos.posix_spawn('/bin/true', ['true'], {})")
held("processes", "exec", "import os\nos.execv('/bin/true', ['true'])")
held(
    "processes",
    "multiprocessing",
    """\
import multiprocessing
multiprocessing.get_context('fork').Process(target=int).start()""",
)
held("processes", "clone_by_hand", "import ctypes\nassert ctypes.CDLL(None).syscall(56, 17, 0, 0, 0, 0) >= 0")
wrong(
    "processes",
    "thread_bomb",
    """\
import threading, time
while True:
    threading.Thread(target=time.sleep, args=(10**6,)).start()""",
    fenced=True,
)
right(
    "processes",
    "works_in_a_thread",
    """\
from concurrent.futures import ThreadPoolExecutor
class Solution:
    def fold(self, nums):
        with ThreadPoolExecutor(2) as pool:
            return sum(pool.map(lambda pair: pair[0] * pair[1], enumerate(nums, 1)))""",
)
held("signals", "kill_parent", "import os\nos.kill(os.getppid(), 9)")
held("signals", "kill_everything", "import os\nos.kill(-1, 9)")
held("signals", "kill_group", "import os\nos.killpg(0, 9)")
held("signals", "stop_parent", "import os, signal\nos.kill(os.getppid(), signal.SIGSTOP)")
held(
    "signals",
    "tgkill_parent",
    """\
import ctypes, os
assert ctypes.CDLL(None).syscall(234, os.getppid(), os.getppid(), 9) == 0""",
)
held("signals", "pidfd", "import os, signal\nsignal.pidfd_send_signal(os.pidfd_open(os.getppid()), 9)")
held(
    "signals",
    "owner_of_a_pipe",
    "import fcntl, os\nr, w = os.pipe()\nfcntl.fcntl(r, fcntl.F_SETOWN, os.getppid())",
)
held(
    "signals",
    "limits_of_parent",
    "import resource, os\nresource.prlimit(os.getppid(), resource.RLIMIT_CPU, (1, 1))",
)
held("signals", "priority_of_parent", "import os\nos.setpriority(os.PRIO_PROCESS, os.getppid(), 19)")

# ---- files, network, environment -------------------------------------------------------------------------------------

held("files", "write_target", "open('TARGET/MARK', 'w').write('x')")
held("files", "write_tmp", "open('/tmp/MARK', 'w').write('x')")
held("files", "write_shared_memory", "open('/dev/shm/MARK', 'w').write('x')")
held("files", "write_home", "import os\nopen(os.path.expanduser('~root/MARK'), 'w').write('x')")
held("files", "make_directory", "import os\nos.mkdir('TARGET/MARK')")
held(
    "files",
    "hard_and_symbolic_link",
    """\
import os
try:
    os.symlink('/etc/passwd', 'TARGET/MARK')
except OSError:
    os.link('TARGET/secret.txt', 'TARGET/MARK')""",
)
held("files", "remove", "import os\nos.remove('TARGET/secret.txt')")
held("files", "read_secret", "open('TARGET/secret.txt').read()")
held("files", "read_passwd", "open('/etc/passwd').read()")
held("files", "list_root_of_project", "import os\nos.listdir('PROJECT')")
held("files", "tempfile", "import tempfile\ntempfile.NamedTemporaryFile(prefix='MARK').write(b'x')")
held("files", "unix_socket", "import socket\nsocket.socket(socket.AF_UNIX).bind('TARGET/MARK')")
held(
    "files",
    "shared_memory_segment",
    "import ctypes\nassert ctypes.CDLL(None).shmget(0x4841, 4096, 0o1600) >= 0",
)
held(
    "files",
    "io_uring",
    """\
import ctypes
assert ctypes.CDLL(None).syscall(425, 8, ctypes.create_string_buffer(120)) >= 0""",
)
held("network", "tcp", "import socket\nsocket.create_connection(('127.0.0.1', PORT), 2).send(b'x')")
held(
    "network",
    "udp",
    """\
import socket
socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', UDP))""",
)
held("network", "listen", "import socket\nsocket.create_server(('127.0.0.1', 0))")
held("network", "netlink", "import socket\nsocket.socket(socket.AF_NETLINK, socket.SOCK_RAW)")
held("environment", "secret_variable", "import os\nassert 'HACKWARD_SECRET' in os.environ", fenced=False)
held(
    "environment",
    "user_variables",
    """\
import os
assert {'USER', 'SSH_AUTH_SOCK', 'PYTHONPATH'} & set(os.environ)""",
    fenced=False,
)

# ---- crashes and replies made to break the parser --------------------------------------------------------------------

wrong("crash", "null_pointer", "import ctypes\nctypes.string_at(0)" + WRONG)
wrong(
    "crash",
    "bad_bytecode",
    """\
f = lambda: 0
f.__code__ = f.__code__.replace(co_code=bytes([255, 255] * 40))
f()"""
    + WRONG,
)
wrong("crash", "abort", "import os\nos.abort()")
wrong("crash", "overwrite_none", "import ctypes\nctypes.memset(id(None), 255, 16)" + WRONG)
wrong("crash", "source_nested", "x = " + "(" * 5000 + ")" * 5000)
wrong("crash", "source_operators", "x = " + "-" * 200000 + "1")
wrong("crash", "source_attributes", "x" + ".y" * 100000)
wrong("crash", "null_byte", "x = 1\0" + WRONG)
wrong("crash", "lone_surrogate", "x = '\ud800'\n" + WRONG)
wrong(
    "parser", "nested_brackets", "import os\nos.write(3, b'{\"ran\":true}\\n' + b'[' * 4000 + b'\\n')" + WRONG
)
wrong("parser", "many_digits", "import os\nos.write(3, b'9' * 4000 + b'\\n')" + WRONG)
wrong("parser", "not_utf8", "import os\nos.write(3, bytes(range(128, 256)) + b'\\n')" + WRONG)
wrong("parser", "constants", "import os\nos.write(3, b'NaN\\nInfinity\\n-Infinity\\n')" + WRONG)
wrong(
    "parser",
    "duplicate_keys",
    """\
import os
os.write(3, b'{"f":"1","f":[],"compiles":true,"ran":true}\\n')"""
    + WRONG,
)
wrong(
    "parser",
    "fault_that_raises",
    """\
class Bad(Exception):
    def __str__(self):
        raise Bad
class Solution:
    def fold(self, nums):
        raise Bad""",
)
wrong("parser", "fault_with_escapes", "raise ValueError('\\x1b[2J\\r\\n' * 50)")
wrong("parser", "exception_name", "raise type('x' * 10**6, (Exception,), {})")

# ---- right answers that leave things behind, or look odd -------------------------------------------------------------

right(
    "leaves",
    "thread_running",
    """\
import threading, time
threading.Thread(target=time.sleep, args=(10**6,)).start()
"""
    + RIGHT,
)
right("leaves", "exit_handler", "import atexit, time\natexit.register(time.sleep, 10**6)\n" + RIGHT)
right("leaves", "patched_exit", "import os, time\nos._exit = lambda status: time.sleep(10**6)\n" + RIGHT)
right("leaves", "closed_stdout", "import sys\nsys.stdout.close()\nsys.stdout = None\n" + RIGHT)
right("leaves", "alarm_set", "import signal\nsignal.alarm(100)\n" + RIGHT)
right(
    "leaves",
    "event_loop",
    """\
import asyncio
async def nothing():
    await asyncio.sleep(0)
asyncio.run(nothing())
"""
    + RIGHT,
)
right(
    "leaves",
    "data_class",
    ["from dataclasses import dataclass", "from __future__ import annotations", ""][0]
    + """\

@dataclass(order=True)
class Pair:
    a: int
"""
    + RIGHT,
)
right("leaves", "main_guard", RIGHT + "\nif __name__ == '__main__':\n    raise SystemExit(input())\n")
right(
    "leaves",
    "deep_but_finite",
    """\
import sys
sys.setrecursionlimit(20000)
def down(n):
    return 0 if n == 0 else down(n - 1)
down(9000)
"""
    + RIGHT,
)
