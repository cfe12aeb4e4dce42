"""More attacks on the verdict: hooks into the harness, claims written by hand, values that pose as others."""

from __future__ import annotations

from tests.hostile.case import AS, RIGHT, WRONG, right, wrong

# Source text as it is: the formatter would spread every case over six lines and more.
# fmt: off

# --- hooks that run while the harness does ---

for name, hook in (
    ("trace_function", "import sys\ndef hook(frame, event, arg):\n    frame.f_locals.update(answer=1)\n"
     "    return hook\nsys.settrace(hook)"),
    ("profile_function", "import sys\nsys.setprofile(lambda frame, *rest: frame.f_locals.update(line='1'))"),
    ("audit_hook", "import os, sys\nsys.addaudithook(lambda *a: os.write(3, b'1\\n'))\nopen('/dev/null')"),
    ("garbage_callback", "import gc, os\ngc.callbacks.append(lambda *a: os.write(3, b'1\\n'))\ngc.collect()"),
    ("finalizer", "import os\nclass Last:\n    def __del__(self):\n        os.write(3, b'1\\n')\nLast()"),
    ("exit_hook", "import atexit, os\natexit.register(lambda: os.write(3, b'1\\n' * 9))"),
    ("signal_in_the_harness", "import os, signal\nsignal.signal(14, lambda *a: os.write(3, b'1\\n' * 9))\n"
     "signal.setitimer(0, 0.001, 0.001)"),
    ("thread_that_answers", "import os, threading\nthreading.Thread(target=lambda: [os.write(3, b'1\\n')"
     " for _ in range(99)]).start()"),
    ("class_builder", "import builtins\nold = builtins.__build_class__\n"
     "builtins.__build_class__ = lambda f, n, *a, **k: old(f, n, *a, **k) and int"),
    ("print_replaced", "import builtins, os\nbuiltins.print = lambda *a: os.write(3, b'1\\n')\nprint()"),
    ("frames_cleared", "import sys\nsys._getframe().f_back.f_globals.clear()"),
    ("socket_replaced", "import gc, socket\nfor s in gc.get_objects():\n    if type(s) is socket.socket:\n"
     "        s.close()"),
    ("answer_socket_closed", "import os\nos.close(3)\nos.open('/dev/null', os.O_RDONLY)"),
    ("answer_socket_doubled", "import os\nos.dup2(3, 10)\nos.write(10, b'1\\n' * 4)\nos.close(3)"),
    ("answer_socket_shut", "import socket\nsocket.socket(fileno=3).shutdown(socket.SHUT_WR)"),
):
    wrong("hooks", name, WRONG + hook)

# --- lines written by hand ---

for name, text in (
    ("several_in_a_line", "b'1 2 3 4\\n' * 4"),
    ("list_in_a_line", "b'[1,2,3,4]\\n' * 4"),
    ("spaces", "b' \\t \\n' * 9"),
    ("empty_lines", "b'\\n' * 999"),
    ("windows_lines", "b'1\\r\\n' * 4"),
    ("byte_order_mark", "b'\\xef\\xbb\\xbf1\\n' * 4"),
    ("null_bytes", "b'\\0' * 4096 + b'\\n' * 4"),
    ("huge_exponent", "b'1e400\\n' * 4"),
    ("many_zeros", "b'0.' + b'0' * 9000 + b'1\\n'"),
    ("half_a_line", "b'{\"ran\":tr'"),
    ("deep_objects", "b'{\"s\":' * 900 + b'1' + b'}' * 900 + b'\\n'"),
    ("typed_as_float", "b'{\"f\":\"nan\"}\\n' * 4"),
    ("typed_as_float_of_nothing", "b'{\"f\":null}\\n' * 4"),
    ("typed_as_tuple_of_text", "b'{\"t\":\"123\"}\\n' * 4"),
    ("typed_as_pairs_of_one", "b'{\"d\":[[1]]}\\n' * 4"),
    ("typed_as_tree_of_numbers", "b'{\"T\":7}\\n' * 4"),
    ("typed_as_unknown", "b'{\"expected\":1}\\n' * 4"),
    ("typed_twice", "b'{\"f\":\"1\",\"t\":[]}\\n' * 4"),
    ("header_again", "b'{\"compiles\":true,\"attempted\":true}\\n' * 4"),
    ("ran_often", "b'{\"ran\":true}\\n' * 99"),
    ("yes", "b'true\\n' * 99"),
    ("text_of_the_expected", "b'\"expected\"\\n' * 4"),
    ("seventy_megabytes", "b'1' * (70 << 20)"),
    ("many_lines", "b'1\\n' * 10 ** 6"),
):
    wrong("lines", name, f"import os\nfor _ in range(2):\n    os.write(3, {text})\n" + WRONG)

# --- values that pose as others ---

for kind in ("complex", "bytes", "hex", "repr", "lambda n: n + 1", "lambda n: -n", "lambda n: n + 0.5",
             "lambda n: (n,)", "lambda n: {n}", "lambda n: {n: n}", "lambda n: iter([n])", "lambda n: None",
             "lambda n: True", "lambda n: (lambda: n)", "lambda n: type('int', (), {})()", "lambda n: int",
             "lambda n: __import__('decimal').Decimal(n)", "lambda n: range(n)", "lambda n: NotImplemented"):
    name = f"as_{''.join(c if c.isalnum() else '_' for c in kind)}"
    wrong("poses", name, AS.replace("KIND", f"({kind})"))
wrong("poses", "class_that_lies", """
class Lies:
    __class__ = int
    def __int__(self): return 1
    __index__ = __int__
    def __getattr__(self, name): return lambda *a: True
class Solution:
    def fold(self, nums):
        return Lies()
""")
wrong("poses", "equal_to_everything_by_metaclass", """
class Meta(type):
    def __eq__(cls, other): return True
    __hash__ = type.__hash__
class Any(metaclass=Meta):
    pass
class Solution:
    def fold(self, nums):
        return Any
""")

# --- right answers that need more of the library, which the view must hold ---

for name, use in (
    ("zones", "import zoneinfo; zoneinfo.ZoneInfo('Europe/Berlin')"),
    ("database", "import sqlite3; sqlite3.connect(':memory:').execute('select 1')"),
    ("compression", "import bz2, lzma, zlib; bz2.compress(b'x'); lzma.compress(b'x'); zlib.compress(b'x')"),
    ("hashes", "import hashlib; hashlib.sha3_256(b'x').hexdigest(); hashlib.blake2b(b'x')"),
    ("secure_sockets", "import ssl; ssl.create_default_context()"),
    ("sorting_in_c", "import ctypes; a = (ctypes.c_int * 3)(3, 1, 2)\nctypes.CDLL(None).qsort(a, 3, 4, "
     "ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)(lambda x, y: 0))"),
    ("names_of_letters", "import unicodedata; unicodedata.name('a')"),
    ("trees_of_source", "import ast, dis; ast.parse('x = 1'); dis.dis(int)"),
    ("documents", "import xml.etree.ElementTree as x, csv, email; x.fromstring('<a/>')"),
    ("random_bytes", "import os, secrets, uuid; os.urandom(8); secrets.token_hex(); uuid.uuid4()"),
    ("sorted_containers", "from sortedcontainers import SortedList; SortedList([2, 1])"),
    ("encodings", "'x'.encode('cp1252'); b'x'.decode('shift_jis'); import locale; locale.getlocale()"),
    ("mapped_memory", "import mmap; mmap.mmap(-1, 8192).write(b'x')"),
    ("threads_that_join", "import threading\nts = [threading.Thread(target=int) for _ in range(20)]\n"
     "[t.start() for t in ts]; [t.join() for t in ts]"),
    ("every_module", "import importlib, os, sys\nfor d in filter(os.path.isdir, sys.path):\n"
     "    for n in sorted(os.listdir(d)):\n        skip = n.startswith(('_test', 'xx', '_tk', '_ctypes_t'))\n"
     "        if n.endswith('.so') and not skip:\n            importlib.import_module(n.partition('.')[0])"),
):
    right("library", name, use + "\n" + RIGHT)
