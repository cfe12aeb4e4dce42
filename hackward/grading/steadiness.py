"""Whether a completion's label may differ from run to run, as far as its code shows before it runs.

What every run has in common is fixed: the hash seed, the random seed, the environment. What is left are
numbers drawn by the system, process numbers, clocks and addresses. Code that names the first two is marked;
code that may come across the others is run again, shifted in memory (grader.py). What goes unmarked: a label
that is another one in few runs only, and text of a function or an iterator, which holds an address. Standard
library only: the worker loads this file without any package.
"""

from __future__ import annotations

import dis
import re
import sys
from collections.abc import Iterator
from functools import lru_cache
from types import CodeType

STEADY, PERHAPS, UNSTEADY = "steady", "perhaps", "unsteady"

# fmt: off
DRAWN = frozenset((  # another value in every process
    "secrets", "urandom", "getrandom", "SystemRandom", "uuid1", "uuid4", "getpid", "getppid", "gettid",
    "getsid", "getpgid", "getpgrp", "get_native_id", "get_ident", "token_bytes", "token_hex", "randbelow",
))
VARYING = frozenset((  # clocks, threads, the state of the interpreter
    "time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "process_time",
    "process_time_ns", "thread_time", "clock_gettime", "now", "utcnow", "today", "getrusage", "times",
    "Thread", "ThreadPoolExecutor", "ProcessPoolExecutor", "Random", "seed", "ctypes", "weakref",
    "get_objects", "get_referrers", "getrefcount", "getallocatedblocks", "getloadavg", "setitimer", "alarm",
))
OWN_TEXT = frozenset(("__hash__", "__repr__", "__str__", "__format__"))  # what an object makes of its address
ADDRESSES = frozenset(("id", "hash", "object", "repr", "ascii"))  # as built-in functions
SETS = frozenset(("set", "frozenset"))
PLAIN_OBJECTS = frozenset(("TreeNode", "ListNode", "Node", "object", "type"))  # hashed by their address
DYNAMIC = frozenset((  # what can name the above in a text, or under another name
    "getattr", "eval", "exec", "compile", "__import__", "import_module", "globals", "vars", "__dict__",
    "__builtins__", "builtins", "attrgetter", "methodcaller", "open", "read_bytes", "FileIO",
))
# fmt: on
SUSPICIOUS = DRAWN | VARYING | ADDRESSES | PLAIN_OBJECTS | DYNAMIC | OWN_TEXT
WORD = re.compile(r"[A-Za-z_]\w*")
# A word's beginning is asked for behind it: a pattern that begins with a text is searched for much faster.
CLASS = re.compile(r"class\b(?<!\wclass)")
SELF = re.compile(r"self\b(?<!\wself)(?!\s*\.)")
SELF_AS_PARAMETER = re.compile(r"def\s(?<!\wdef\s)\s*\w+\s*\(\s*self\b(?!\s*\.)")
LOAD_GLOBAL = [dis.opmap[name] for name in ("LOAD_GLOBAL", "LOAD_NAME") if name in dis.opmap]
LOAD_SELF = [dis.opmap[name] for name in ("LOAD_FAST", "LOAD_FAST_BORROW", "LOAD_DEREF") if name in dis.opmap]
OF_ITS_OWN = [dis.opmap[name] for name in ("LOAD_ATTR", "LOAD_METHOD", "STORE_ATTR") if name in dis.opmap]
LOAD_METHOD = dis.opmap.get("LOAD_METHOD")
LOAD_TWO = [  # Python 3.13 has instructions for two variables, 4 bits each
    dis.opmap[name]
    for name in ("LOAD_FAST_LOAD_FAST", "LOAD_FAST_BORROW_LOAD_FAST_BORROW")
    if name in dis.opmap
]
MAKES_SET = [dis.opmap[name] for name in ("BUILD_SET", "SET_ADD", "SET_UPDATE") if name in dis.opmap]
MAKES_CLASS = dis.opmap["LOAD_BUILD_CLASS"]
EXTENDED_ARG, CACHE = dis.opmap["EXTENDED_ARG"], dis.opmap.get("CACHE", 0)
FLAGGED = 1 if sys.version_info >= (3, 11) else 0  # low bits of LOAD_GLOBAL's argument that are no index


def steadiness(program: CodeType, with_nodes: bool) -> str:
    """STEADY, PERHAPS (worth running again) or UNSTEADY (draws on what differs in every process).

    `with_nodes`: the arguments hold objects, which are hashed by their addresses.
    """
    names: set[str] = set()
    classes, sets, addresses = 0, False, False
    for body in bodies(program):
        names.update(body.co_names)
        operations = body.co_code[::2]
        classes += operations.count(MAKES_CLASS)
        sets = sets or any(operation in operations for operation in MAKES_SET)
        addresses = addresses or loads_address(body) or hands_out_self(body, program)
    if names & DYNAMIC:
        words = words_of(program)
        names |= words
        addresses = addresses or bool(words & ADDRESSES) or "builtins" in names
    if names & DRAWN:
        return UNSTEADY
    sets = sets or bool(names & SETS)
    objects = classes > 1 or with_nodes or bool(names & PLAIN_OBJECTS)
    shows_address = addresses or bool(names & OWN_TEXT)
    if shows_address or names & VARYING or (sets and objects):
        return PERHAPS
    return STEADY


@lru_cache(maxsize=64)
def may_vary(data: bytes, with_nodes: bool) -> bool:
    """Whether the text of code has anything that `steadiness` looks for; if not, it is steady. Cheap."""
    if with_nodes or not data.isascii():  # other letters may stand for those of a name
        return True
    code = data.decode()
    if not SUSPICIOUS.isdisjoint(WORD.findall(code)) or len(CLASS.findall(code)) > 1:
        return True
    return len(SELF.findall(code)) > len(SELF_AS_PARAMETER.findall(code))


def bodies(program: CodeType) -> Iterator[CodeType]:
    """The code of a module and of all functions and classes in it."""
    waiting = [program]
    while waiting:
        body = waiting.pop()
        yield body
        waiting += [constant for constant in body.co_consts if isinstance(constant, CodeType)]


def words_of(program: CodeType) -> set[str]:
    """The identifiers in all texts of a program."""
    texts = [text for body in bodies(program) for text in body.co_consts if isinstance(text, str)]
    return {word for text in texts for word in WORD.findall(text)}


def instructions(code: bytes) -> Iterator[tuple[int, int]]:
    """Operation and argument of each instruction of a body."""
    argument = 0
    for operation, low in zip(code[::2], code[1::2]):
        argument = argument << 8 | low
        if operation == EXTENDED_ARG:
            continue
        if operation != CACHE:
            yield operation, argument
        argument = 0


def loads_address(body: CodeType) -> bool:
    """Whether it uses a built-in function that shows an address."""
    if ADDRESSES.isdisjoint(body.co_names):
        return False
    shift = {LOAD_GLOBAL[0]: FLAGGED}
    return any(
        operation in LOAD_GLOBAL and body.co_names[argument >> shift.get(operation, 0)] in ADDRESSES
        for operation, argument in instructions(body.co_code)
    )


def hands_out_self(body: CodeType, program: CodeType) -> bool:
    """Whether `self` is used for anything else than its attributes: its text and its hash are addresses.

    Another method of Solution may have it, which calls it `self` in its turn.
    """
    places = (*body.co_varnames, *body.co_cellvars, *body.co_freevars)
    if "self" not in places:
        return False
    place, code = places.index("self"), body.co_code
    for load in LOAD_SELF:
        start = code.find(bytes((load, place)))
        while start >= 0:
            own = start % 2 or code[start + 2] in OF_ITS_OWN
            if not own and not goes_to_a_method(body, code[:start], program):
                return True
            start = code.find(bytes((load, place)), start + 1)
    pairs = zip(code[::2], code[1::2]) if any(map(code[::2].count, LOAD_TWO)) else ()
    return any(operation in LOAD_TWO and place in divmod(both, 16) for operation, both in pairs)


def goes_to_a_method(body: CodeType, before: bytes, program: CodeType) -> bool:
    """Whether what is loaded behind these instructions is the `self` of a method: Solution.method(self).

    Known only as Python 3.11 compiles it; elsewhere the code is run again, which costs time and no more.
    """
    last = list(instructions(before))[-2:]
    if len(last) < 2 or LOAD_METHOD is None or last[0][0] != LOAD_GLOBAL[0] or last[1][0] != LOAD_METHOD:
        return False
    owner, method = body.co_names[last[0][1] >> FLAGGED], body.co_names[last[1][1]]
    takers = [other for other in bodies(program) if other.co_name == method]
    return owner == "Solution" and bool(takers) and all(map(begins_with_self, takers))


def begins_with_self(body: CodeType) -> bool:
    """Whether it is of a function whose first parameter is `self`."""
    return body.co_argcount > 0 and body.co_varnames[0] == "self"
