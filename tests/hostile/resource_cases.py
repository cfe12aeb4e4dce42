"""Attacks that use up what they can, or crash what reads them."""

from __future__ import annotations

from tests.hostile.case import RIGHT, WRONG, held, right, wrong

# Source text as it is: the formatter would spread every case over six lines and more.
# fmt: off

# --- memory ---

wrong("memory", "one_large_block", "x = bytearray(1 << 40)" + WRONG)
wrong("memory", "growing_list", """
x = []
while True:
    x.append(bytearray(1 << 20))
""")
wrong("memory", "in_a_method", """
class Solution:
    def fold(self, nums):
        return [0] * (1 << 34)
""")
wrong("memory", "large_answer", """
class Solution:
    def fold(self, nums):
        return [[0] * 1000] * 5000
""")
wrong("memory", "text_answer", """
class Solution:
    def fold(self, nums):
        return 'x' * (100 << 20)
""")
wrong("memory", "anonymous_mapping", """
import mmap
keep = [mmap.mmap(-1, 1 << 28) for _ in range(64)]
""" + WRONG)
held("memory", "memory_file", """
import os
os.write(os.memfd_create('x'), b'x')
""")
right("memory", "recovers_from_memory_error", """
try:
    x = bytearray(1 << 40)
except MemoryError:
    pass
""" + RIGHT)

# --- CPU ---

wrong("cpu", "endless_loop", """
while True:
    pass
""", slow=True)
wrong("cpu", "endless_in_method", """
class Solution:
    def fold(self, nums):
        while True:
            pass
""", slow=True)
wrong("cpu", "cpu_signal_ignored", """
import signal
for number in range(1, 65):
    try:
        signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError):
        pass
while True:
    pass
""", slow=True)
wrong("cpu", "limit_raised", """
import resource
try:
    resource.setrlimit(resource.RLIMIT_CPU, (10**6, 10**6))
except (OSError, ValueError):
    pass
while True:
    pass
""", slow=True)
wrong("cpu", "sleeps", """
import time
time.sleep(10**6)
""", slow=True)
wrong("cpu", "huge_power", "x = 10 ** 10 ** 9" + WRONG, slow=True)
wrong("cpu", "regular_expression", """
import re
re.match(r'(a+)+$', 'a' * 60 + 'b')
""" + WRONG, slow=True)

# --- recursion ---

wrong("recursion", "endless", """
class Solution:
    def fold(self, nums):
        return self.fold(nums)
""")
wrong("recursion", "limit_lifted", """
import sys
sys.setrecursionlimit(10**9)
class Deep:
    def __getattr__(self, name):
        return getattr(self, name)
Deep().x
""" + WRONG)
wrong("recursion", "cyclic_answer", """
class Solution:
    def fold(self, nums):
        x = []
        x.append(x)
        return x
""")
wrong("recursion", "endless_linked_list", """
class Node:
    val = 1
    @property
    def next(self):
        return self
class Solution:
    def fold(self, nums):
        return Node()
""")

# --- output ---

wrong("output", "flood_to_stdout", """
while True:
    print('x' * 100000)
""")
wrong("output", "flood_to_the_channel", """
import os
while True:
    os.write(3, b'x' * 65536)
""")
wrong("output", "lines_to_the_channel", """
import os
while True:
    os.write(3, b'true\\n' * 10000)
""")
right("output", "prints_much", "print('x' * 10**7)\n" + RIGHT)

# --- crashes ---

wrong("crash", "null_pointer", """
import ctypes
ctypes.string_at(0)
""" + WRONG)
wrong("crash", "bad_bytecode", """
f = lambda: 0
f.__code__ = f.__code__.replace(co_code=bytes([255, 255] * 40))
f()
""" + WRONG)
wrong("crash", "abort", """
import os
os.abort()
""")
wrong("crash", "overwrite_none", """
import ctypes
ctypes.memset(id(None), 255, 16)
""" + WRONG)
wrong("crash", "source_nested", "x = " + "(" * 5000 + ")" * 5000)
wrong("crash", "source_operators", "x = " + "-" * 200000 + "1")
wrong("crash", "source_attributes", "x" + ".y" * 100000)
wrong("crash", "null_byte", "x = 1\0" + WRONG)
wrong("crash", "lone_surrogate", "x = '\ud800'\n" + WRONG)

# --- replies made to break the parser ---

wrong("parser", "nested_brackets", """
import os
os.write(3, b'{"ran":true}\\n' + b'[' * 4000 + b'\\n')
""" + WRONG)
wrong("parser", "many_digits", """
import os
os.write(3, b'9' * 4000 + b'\\n')
""" + WRONG)
wrong("parser", "not_utf8", """
import os
os.write(3, bytes(range(128, 256)) + b'\\n')
""" + WRONG)
wrong("parser", "constants", """
import os
os.write(3, b'NaN\\nInfinity\\n-Infinity\\n')
""" + WRONG)
wrong("parser", "duplicate_keys", """
import os
os.write(3, b'{"f":"1","f":[],"compiles":true,"ran":true}\\n')
""" + WRONG)
wrong("parser", "fault_that_raises", """
class Bad(Exception):
    def __str__(self):
        raise Bad
class Solution:
    def fold(self, nums):
        raise Bad
""")
wrong("parser", "fault_with_escapes", "raise ValueError('\\x1b[2J\\r\\n' * 50)")
wrong("parser", "exception_name", "raise type('x' * 10**6, (Exception,), {})")
