"""The child side of the grader: a small warm interpreter that forks once for every run. Standard library only.

``grade.py`` starts this file as ``python -P -s -S grade_worker.py`` (inside bubblewrap where there is one) with a
control socket as standard input. Per run the grader passes one end of a fresh socket pair over it. The zygote forks and
keeps no copy: the child reads the completion from that socket and writes its answers to it, so neither the code nor the
answers of one run ever pass through memory that the next run's child inherits. Expected values are never sent here.

Control messages are a 4-byte length and JSON. In: ``start`` (settings, once), ``load`` (set-up code and arguments of a
problem), ``run`` (one fork; carries the socket), ``cancel``. Out: ``ready``, and ``done`` with how the child ended.
The answer socket carries, from the child: one header line, then one JSON line a test. All of it is a claim.
"""

import array
import ctypes
import dis
import gc
import json
import os
import random
import resource
import select
import signal
import socket
import struct
import sys
import time
import types

ANSWER_FD = 3  # the child's end of the answer socket; everything above it is closed before foreign code runs
SETUP_FAILED = 70  # exit status of a child that could not be fenced in; it ran no foreign code
SET_NO_NEW_PRIVS, SET_SECCOMP, SET_CHILD_SUBREAPER, SET_DUMPABLE, CAPBSET_DROP = 38, 22, 36, 4, 24
LANDLOCK_CREATE_RULESET, LANDLOCK_ADD_RULE, LANDLOCK_RESTRICT_SELF = (
    444,
    445,
    446,
)  # the same on every architecture
LANDLOCK_READ = 1 << 2 | 1 << 3  # read file, read directory
LANDLOCK_RIGHTS = {
    1: 13,
    2: 14,
    3: 15,
    4: 15,
    5: 16,
}  # ABI -> how many file system rights it knows (later ones: 16)
STORE_NAME, EXTENDED_ARG = dis.opmap["STORE_NAME"], dis.opmap["EXTENDED_ARG"]
WARM_MODULES = (
    "abc array bisect cmath collections contextlib copy dataclasses datetime decimal enum fractions functools hashlib"
    " heapq inspect io itertools json math numbers operator queue random re statistics string struct textwrap threading"
    " time traceback types typing unittest uuid"
).split()

libc = ctypes.CDLL(None, use_errno=True)


# ---- framing ---------------------------------------------------------------------------------------------------------


def send_message(control: socket.socket, message: dict) -> None:
    body = json.dumps(message).encode()
    control.sendall(struct.pack("<I", len(body)) + body)


def receive_exactly(sock: socket.socket, size: int) -> bytes:
    """``size`` bytes, or EOFError when the other side is gone."""
    parts = []
    while size:
        part = sock.recv(min(size, 1 << 20))
        if not part:
            raise EOFError
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def receive_message(control: socket.socket, limit: int = 1 << 30) -> tuple[dict, int | None]:
    """The next control message and the descriptor that came with it, if one did. EOFError if it is over ``limit``."""
    head, ancillary, _, _ = control.recvmsg(4, socket.CMSG_SPACE(4))
    if not head:
        raise EOFError
    passed = None
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            passed = array.array("i", data[:4])[0]
    head += receive_exactly(control, 4 - len(head)) if len(head) < 4 else b""
    size = struct.unpack("<I", head)[0]
    if size > limit:
        raise EOFError(f"a message of {size} bytes")
    return json.loads(receive_exactly(control, size)), passed


# ---- restrictions ----------------------------------------------------------------------------------------------------


class FilterProgram(ctypes.Structure):
    """struct sock_fprog"""

    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]


def filter_program(code: bytes) -> FilterProgram:
    return FilterProgram(len(code) // 8, code)


def _checked(result: int, what: str) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")
    return result


def install_filter(program: FilterProgram) -> None:
    _checked(libc.prctl(SET_SECCOMP, 2, ctypes.byref(program), 0, 0), "seccomp")


def no_new_privileges() -> None:
    _checked(libc.prctl(SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")


def landlock_abi() -> int:
    return max(0, libc.syscall(LANDLOCK_CREATE_RULESET, None, 0, 1))


def landlock(readable: list[str]) -> int:
    """Allow reading beneath the given paths and nothing else on the file system (TCP and scopes too where known).

    Returns the ABI that was used, 0 where the kernel has no Landlock.
    """
    abi = landlock_abi()
    if not abi:
        return 0
    rights = (1 << LANDLOCK_RIGHTS.get(abi, 16)) - 1
    attributes = struct.pack("<Q", rights)
    if abi >= 4:
        attributes += struct.pack("<Q", 3)  # TCP bind and connect
    if abi >= 6:
        attributes += struct.pack("<Q", 3)  # abstract unix sockets and signals to processes outside
    ruleset = _checked(libc.syscall(LANDLOCK_CREATE_RULESET, attributes, len(attributes), 0), "landlock")
    for path in readable:
        try:
            handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            continue
        allowed = LANDLOCK_READ if os.path.isdir(path) else LANDLOCK_READ & ~(1 << 3)
        rule = struct.pack("<Qi", allowed & rights, handle)
        _checked(libc.syscall(LANDLOCK_ADD_RULE, ruleset, 1, rule, 0), "landlock rule")
        os.close(handle)
    _checked(libc.syscall(LANDLOCK_RESTRICT_SELF, ruleset, 0), "landlock")
    os.close(ruleset)
    return abi


def drop_capabilities() -> None:
    """Give up every capability (matters when the grader runs as root; nothing to give up otherwise)."""
    for capability in range(64):
        libc.prctl(CAPBSET_DROP, capability, 0, 0, 0)
    header = struct.pack("<Ii", 0x20080522, 0)
    libc.capset(header, bytes(24))


def set_limits(limits: dict, cpu_seconds: int, fork_denied: bool) -> None:
    """Resource limits of the child. The CPU limit decides verdicts; a child's CPU time starts at zero with its fork."""
    for name, value in (
        ("RLIMIT_CPU", cpu_seconds),
        ("RLIMIT_AS", limits["memory_mb"] << 20),
        ("RLIMIT_FSIZE", 0),
        ("RLIMIT_CORE", 0),
        ("RLIMIT_NOFILE", 64),
        ("RLIMIT_MSGQUEUE", 0),
        ("RLIMIT_MEMLOCK", 0),
    ):
        if hasattr(resource, name):
            resource.setrlimit(getattr(resource, name), (value, value))
    if not fork_denied:  # a backstop only: it counts all processes of the user, and does not bind root
        resource.setrlimit(resource.RLIMIT_NPROC, (limits["process_ceiling"],) * 2)


# ---- the child -------------------------------------------------------------------------------------------------------

PLAIN = (bool, int, str, type(None))
MAPPINGS = ("dict", "defaultdict", "Counter", "OrderedDict")


def encode(value, budget: list) -> object:
    """``value`` as JSON data with exact types; what has none becomes {"x": type name}, equal to nothing.

    ``budget`` is a one-item list, the number of elements still allowed: endless or cyclic values stop there.
    """
    kind = type(value)
    budget[0] -= 1
    if budget[0] < 0:
        raise OverflowError("the returned value is too large")
    if kind in PLAIN:
        return value
    if kind is float:
        return {"f": repr(value)}
    if kind is list:
        return [encode(item, budget) for item in value]
    if kind is tuple:
        return {"t": [encode(item, budget) for item in value]}
    if kind in (set, frozenset):
        return {"s": [encode(item, budget) for item in value]}
    if isinstance(value, dict) and kind.__name__ in MAPPINGS:
        return {"d": [[encode(key, budget), encode(item, budget)] for key, item in dict.items(value)]}
    if hasattr(value, "val") and hasattr(value, "next"):
        return {"L": encode_list(value, budget)}
    if hasattr(value, "val") and hasattr(value, "left") and hasattr(value, "right"):
        return {"T": encode_tree(value, budget)}
    return {"x": kind.__name__[:40]}


def encode_list(node, budget: list) -> list:
    values = []
    while node is not None:
        values.append(encode(node.val, budget))
        node = node.next
    return values


def encode_tree(root, budget: list) -> list:
    order, level = [], [root]
    while level:
        below = []
        for node in level:
            order.append(None if node is None else encode(node.val, budget))
            if node is not None:
                below += (node.left, node.right)
        level = below
    while order and order[-1] is None:
        order.pop()
    return order


def binds(program: types.CodeType, name: str) -> bool:
    """Whether a compiled body assigns ``name`` at its own level (def, =, import ..., branches included).

    Read off the bytecode, because compiling straight to it costs a third of building a syntax tree first.
    """
    if name not in program.co_names:
        return False
    argument = 0
    for operation, low in zip(program.co_code[::2], program.co_code[1::2]):
        argument = argument << 8 | low
        if operation == STORE_NAME and program.co_names[argument] == name:
            return True
        if operation != EXTENDED_ARG:
            argument = 0
    return False


def defines(program: types.CodeType, name: str) -> bool:
    """Whether a module defines ``name`` at its top level or in the body of a class Solution."""
    bodies = [
        item for item in program.co_consts if isinstance(item, types.CodeType) and item.co_name == "Solution"
    ]
    return any(binds(body, name) for body in (program, *bodies))


class Reporter:
    """Writes claims to the answer socket, one JSON line each."""

    def __init__(self, sock: socket.socket):
        self.sock = sock

    def line(self, value: object) -> None:
        self.sock.sendall(json.dumps(value, separators=(",", ":")).encode() + b"\n")


def describe(fault: BaseException) -> str:
    """Type and first words of an exception; its text is foreign code too, so it may raise."""
    try:
        return f"{type(fault).__name__}: {fault}"[:160]
    except BaseException:
        return "an exception"


def run_tests(namespace: dict, problem: dict, report: Reporter) -> None:
    """Answer every test with a fresh Solution. An exception is an answer as well, one that equals nothing."""
    solution = namespace["Solution"]
    arguments_namespace = dict(problem["namespace"], _call=lambda *values, **named: (values, named))
    for arguments in problem["arguments"]:
        values, named = eval(arguments, arguments_namespace)
        try:
            line = json.dumps(encode(getattr(solution(), problem["method"])(*values, **named), [1_000_000]))
        except Exception as fault:
            line = json.dumps({"x": describe(fault)})
        report.sock.sendall(line.encode() + b"\n")


def stub_method(*values, **named) -> None:
    """A solution that solves nothing."""


def run_own(namespace: dict, problem: dict, eval_name: str, stub: bool) -> None:
    """Call the completion's own evaluation: the method of Solution if it has one, else the function at top level.

    With ``stub`` the solution is first replaced by one that returns None: an evaluation that still passes is vacuous.
    """
    method = problem["method"]
    if stub and isinstance(namespace.get("Solution"), type):
        setattr(namespace["Solution"], method, stub_method)
    if stub and method in namespace:
        namespace[method] = stub_method
    solution = namespace.get("Solution")
    if solution is not None and hasattr(solution, eval_name):
        getattr(solution(), eval_name)()
    else:
        namespace[eval_name]()


def judge(code: str, mode: str, problem: dict, settings: dict, report: Reporter) -> None:
    """Header first, before any foreign code runs: does it compile, does it define the evaluation function."""
    try:
        program = compile(code, "completion.py", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError) as fault:
        report.line({"compiles": False, "fault": describe(fault)})
        return
    report.line({"compiles": True, "attempted": defines(program, settings["eval_name"])})
    module = types.ModuleType("solution")
    module.__dict__.update(problem["namespace"], __name__="solution")
    sys.modules["solution"] = module
    try:
        exec(program, module.__dict__)
        if mode == "truth":
            if "Solution" not in module.__dict__:
                raise NameError("no class Solution")
            report.line({"ran": True})
            run_tests(module.__dict__, problem, report)
        else:
            run_own(module.__dict__, problem, settings["eval_name"], stub=mode == "vacuous")
            report.line({"ran": True})
    except BaseException as fault:
        report.line({"ran": False, "fault": describe(fault)})


def child(passed: int, message: dict, problem: dict, settings: dict, program: FilterProgram | None) -> None:
    """Everything between the fork and the end of the child. Never returns."""
    status, mode, cpu_seconds = SETUP_FAILED, message["mode"], message["cpu"]
    try:
        os.setsid()
        os.dup2(passed, ANSWER_FD)
        os.closerange(ANSWER_FD + 1, 1 << 16)
        for number in (signal.SIGINT, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        random.seed(0)  # the module seeds itself anew after a fork
        answer = socket.socket(fileno=ANSWER_FD)
        code = receive_exactly(answer, struct.unpack("<I", receive_exactly(answer, 4))[0]).decode(
            "utf-8", "replace"
        )
        set_limits(settings["limits"], cpu_seconds, fork_denied=program is not None)
        if program is not None:
            install_filter(program)
        elif settings["landlock"]:
            landlock(settings["readable"])
        status = 0
        if mode == "probe":
            exec(compile(code, "probe.py", "exec"), {"report": Reporter(answer).line, "__name__": "probe"})
        else:
            judge(code, mode, problem, settings, Reporter(answer))
    except BaseException:
        pass
    finally:
        os._exit(status)


# ---- the zygote ------------------------------------------------------------------------------------------------------


def load_problem(message: dict, namespaces: dict) -> dict:
    """Execute the set-up code once per distinct text and compile the argument lists; children inherit both for free."""
    setup = message["setup"]
    if setup not in namespaces:
        if len(namespaces) >= 64:
            namespaces.clear()
        namespace = {"__name__": "setup", "__builtins__": __builtins__}
        try:
            exec(compile(setup, "setup.py", "exec"), namespace)
        except Exception as fault:
            return {"fault": describe(fault)}
        namespaces[setup] = namespace
    arguments = [compile("_call" + text, "arguments.py", "eval") for text in message["arguments"]]
    return {"method": message["method"], "namespace": namespaces[setup], "arguments": arguments}


def cpu_seconds(pid: int) -> float:
    """CPU time of another process so far, from its clock (no /proc needed)."""
    try:
        return time.clock_gettime(((~pid) << 3) | 2)
    except OSError:
        return 0.0


def wait_for(pid: int, control: socket.socket, limits: dict) -> str:
    """Wait until the child ends, is cancelled, or must be killed; returns which. Kills from outside.

    CPU time decides (RLIMIT_CPU). Wall time only stops a child that is idle: on a loaded machine one that has had its
    share of the processor goes on, up to a ceiling.
    """
    handle = os.pidfd_open(pid)
    started = time.monotonic()
    try:
        watch = select.poll()
        watch.register(handle, select.POLLIN)
        watch.register(control, select.POLLIN)
        while True:
            elapsed = time.monotonic() - started
            if elapsed > limits["wall_seconds"]:
                busy = cpu_seconds(pid) > 0.02 * elapsed
                if not busy or elapsed > limits["wall_ceiling_seconds"]:
                    return "wall"
            ready = dict(watch.poll(500))
            if handle in ready:
                return "ended"
            if control.fileno() in ready:
                return "cancelled"  # the only message that comes during a run, or the grader is gone
    finally:
        os.close(handle)


def sweep() -> int:
    """Kill and reap every process that the child left behind (none can exist where seccomp forbids fork)."""
    found = 0
    for _ in range(1000):
        try:
            if os.waitpid(-1, os.WNOHANG)[0]:
                continue
        except ChildProcessError:
            return found
        with open(
            "/proc/thread-self/children"
        ) as stream:  # orphans come to us: the zygote is their subreaper
            children = stream.read().split()
        for pid in children:
            found += 1
            kill(int(pid))
        time.sleep(0.001)
    raise RuntimeError("survivors that cannot be killed")


def kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def serve_run(
    message: dict, passed: int, problem: dict, settings: dict, program, control: socket.socket
) -> dict:
    if "fault" in problem:
        os.close(passed)
        return {"done": message["id"], "how": "set-up code", "fault": problem["fault"]}
    try:
        pid = os.fork()
    except OSError as fault:
        os.close(passed)
        return {"done": message["id"], "how": "no fork", "fault": str(fault)}
    if pid == 0:
        child(passed, message, problem, settings, program)
    os.close(passed)
    how = wait_for(pid, control, settings["limits"])
    kill(pid)
    if program is None:
        try:
            os.killpg(pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass
    _, status, usage = os.wait4(pid, 0)
    survivors = 0 if program is not None else sweep()
    return {
        "done": message["id"],
        "how": how,
        "signal": os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0,
        "status": os.WEXITSTATUS(status) if os.WIFEXITED(status) else 0,
        "cpu": usage.ru_utime + usage.ru_stime,
        "survivors": survivors,
    }


def warm(packages: list[str]) -> None:
    """Import what completions usually import, before anything is restricted. ``packages``: directory and name each."""
    for name in WARM_MODULES:
        __import__(name)
    for directory, name in packages:
        sys.path.insert(0, directory)
        try:
            __import__(name)
        except ImportError:
            pass
        finally:
            sys.path.remove(directory)


def start(settings: dict) -> tuple[FilterProgram | None, dict]:
    """Apply what protects the zygote as well, and say what was applied."""
    warm(settings["packages"])
    libc.prctl(SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    libc.prctl(SET_DUMPABLE, 0, 0, 0, 0)
    program, abi = None, 0
    if settings["restrict"]:
        drop_capabilities()
        no_new_privileges()
        first, second = map(bytes.fromhex, settings["filters"])
        program = filter_program(second) if second else None
        if settings[
            "landlock"
        ]:  # where fork stays possible the zygote needs /proc to find survivors: child only
            abi = landlock(settings["readable"]) if program is not None else landlock_abi()
        if first:
            install_filter(filter_program(first))
    gc.collect()
    gc.freeze()
    return program, {"landlock": abi, "pid": os.getpid(), "uid": os.getuid()}


def main() -> None:
    control = socket.socket(fileno=os.dup(0))
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    os.close(null)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    settings, _ = receive_message(control)
    program, outcome = start(settings)
    send_message(control, {"ready": outcome})
    namespaces: dict = {}
    problem: dict = {}
    while True:
        message, passed = receive_message(control)
        if message["op"] == "load":
            problem = load_problem(message, namespaces)
        elif message["op"] == "run":
            send_message(control, serve_run(message, passed, problem, settings, program, control))


if __name__ == "__main__":
    try:
        main()
    except (EOFError, ConnectionError, KeyboardInterrupt):
        os._exit(0)
