"""The system calls that graded code may make: an allow list, compiled for seccomp by pyseccomp.

Threads yes; fork, exec, signals, sockets, ptrace, opening for writing no. What leaves a trace for a later
run, or reads one, is not in it either: the page cache (mincore, fadvise, cachestat), locks, leases, watches,
the load of the machine, the clocks of other processes. Everything that is not allowed fails with EPERM, so
that code that merely tries goes on.
"""

from __future__ import annotations

import errno
import os
import tempfile
from typing import Any

# fmt: off
ALLOWED = (
    # files that are open, or opened for reading
    "read", "readv", "pread64", "preadv", "write", "writev", "pwrite64", "lseek", "close", "close_range",
    "fstat", "newfstatat", "stat", "lstat", "statx", "access", "faccessat", "faccessat2", "readlink",
    "readlinkat", "getcwd", "getdents", "getdents64", "dup", "dup2", "dup3", "umask",
    # memory
    "mmap", "munmap", "mprotect", "mremap", "brk", "membarrier",
    # signals to oneself
    "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "rt_sigtimedwait", "rt_sigpending", "sigaltstack",
    "pause", "alarm", "setitimer", "getitimer", "restart_syscall",
    # time, and what the process is
    "nanosleep", "gettimeofday", "time", "times",
    "getrusage", "getcpu", "uname", "getpid", "gettid", "getppid", "getpgrp", "getpgid",
    "getsid", "getuid", "geteuid", "getgid", "getegid", "getgroups", "getresuid", "getresgid",
    "getrlimit", "getpriority", "getrandom",
    # threads
    "sched_yield", "sched_getaffinity", "sched_getparam", "sched_getscheduler", "set_robust_list",
    "rseq", "arch_prctl", "exit", "exit_group",
    # event loops, and the socket that it has
    "poll", "ppoll", "select", "pselect6", "epoll_create", "epoll_create1", "epoll_ctl", "epoll_wait",
    "epoll_pwait", "eventfd2", "pipe", "pipe2", "recvfrom", "shutdown", "getsockopt", "setsockopt",
    "getsockname", "getpeername",
)
# What the zygote does beside that: it forks, reaps children, gives them process numbers of their own,
# receives sockets. The child may not.
ZYGOTE_ONLY = (
    "fork", "vfork", "wait4", "setsid", "recvmsg", "pidfd_open", "setrlimit", "capset", "seccomp",
)
NEW_PROCESS_NUMBERS = ("unshare", "setns")  # the zygote may call these for CLONE_NEWPID alone
# fmt: on
OTHER_ERRORS = {"clone3": errno.ENOSYS, "openat2": errno.ENOSYS}  # the C library then uses the older call
FIONBIO = 0x5421  # the one ioctl that is needed: non-blocking sockets of an event loop
CLONE_THREAD = 0x10000
CLONE_NEWPID = 0x20000000
FUTEX_PRIVATE = 128
# WAIT, and WAIT_BITSET on either clock: how a thread is joined. Waking through a file that is mapped twice
# is not among them: that would reach another process.
SHARED_FUTEX = (0, 9, 9 | 256)
CLOCK_CALLS = ("clock_gettime", "clock_getres", "clock_nanosleep")
OTHERS_CLOCK = 0x80000000  # set in the number of a clock that counts the time of a process or a thread
# DONTNEED FREE HUGEPAGE NOHUGEPAGE DONTDUMP DODUMP: of memory of one's own, never of the page cache
ADVICES = (4, 8, 14, 15, 16, 17)
OPEN_CHANGES = os.O_ACCMODE | os.O_CREAT | os.O_TRUNC | getattr(os, "O_TMPFILE", 0o20000000) & ~os.O_DIRECTORY
# DUPFD GETFD SETFD GETFL SETFL DUPFD_CLOEXEC; not SETOWN, which sends signals
FCNTL_COMMANDS = (0, 1, 2, 3, 4, 1030)
PRCTL_OPTIONS = (15, 16, 0x53564D41)  # names of threads and of mappings
ZYGOTE_PRCTL_OPTIONS = (1, 22)  # PDEATHSIG, SECCOMP
AF_UNIX = 1


def seccomp_filters() -> tuple[bytes, bytes]:
    """Two compiled filters: an allow list for the zygote, and a short one for the child that takes from it.

    Together they are one allow list for the child. In two because installing costs time by length, and only
    the short one is installed in every run. Raises ImportError, OSError or RuntimeError where they cannot be
    built.
    """
    return _compiled(_zygote_rules()), _compiled(_child_rules())


def _zygote_rules() -> Any:
    """Allow what is listed; everything else fails with EPERM."""
    import pyseccomp

    argument, equal, masked, unequal = pyseccomp.Arg, pyseccomp.EQ, pyseccomp.MASKED_EQ, pyseccomp.NE
    rules = pyseccomp.SyscallFilter(pyseccomp.ERRNO(errno.EPERM))
    for name in filter(_known, ALLOWED + ZYGOTE_ONLY):
        rules.add_rule(pyseccomp.ALLOW, name)
    for name in filter(_known, OTHER_ERRORS):
        rules.add_rule(pyseccomp.ERRNO(OTHER_ERRORS[name]), name)
    for name, *conditions in (
        ("clone",),
        ("open", argument(1, masked, OPEN_CHANGES, 0)),
        ("openat", argument(2, masked, OPEN_CHANGES, 0)),
        ("prlimit64", argument(0, equal, 0)),
        ("ioctl", argument(1, equal, FIONBIO)),
        ("sendto", argument(4, equal, 0)),
        ("socketpair", argument(0, equal, AF_UNIX)),
        *(("fcntl", argument(1, equal, command)) for command in FCNTL_COMMANDS),
        *(("prctl", argument(0, equal, option)) for option in (*PRCTL_OPTIONS, *ZYGOTE_PRCTL_OPTIONS)),
        *(("madvise", argument(2, equal, advice)) for advice in ADVICES),
        *((name, argument(0, masked, OTHERS_CLOCK, 0)) for name in CLOCK_CALLS),
        ("futex", argument(1, masked, FUTEX_PRIVATE, FUTEX_PRIVATE)),
        *(("futex", argument(1, equal, operation)) for operation in SHARED_FUTEX),
        ("unshare", argument(0, equal, CLONE_NEWPID)),
        ("setns", argument(1, equal, CLONE_NEWPID)),
    ):
        if _known(name):
            rules.add_rule(pyseccomp.ALLOW, name, *conditions)
    rules.add_rule(pyseccomp.ERRNO(errno.ENOTTY), "ioctl", argument(1, unequal, FIONBIO))
    return rules


def _child_rules() -> Any:
    """Deny what the child loses; the zygote's rules, which it inherits, decide the rest."""
    import pyseccomp

    argument = pyseccomp.Arg
    denied = pyseccomp.ERRNO(errno.EPERM)
    rules = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
    for name in filter(_known, ZYGOTE_ONLY + NEW_PROCESS_NUMBERS):
        rules.add_rule(denied, name)
    rules.add_rule(denied, "clone", argument(0, pyseccomp.MASKED_EQ, CLONE_THREAD, 0))
    rules.add_rule(denied, "prlimit64", argument(2, pyseccomp.NE, 0))
    for option in ZYGOTE_PRCTL_OPTIONS:
        rules.add_rule(denied, "prctl", argument(0, pyseccomp.EQ, option))
    return rules


def _known(name: str) -> bool:
    """Whether this architecture has a system call by that name."""
    import pyseccomp

    if name == "read":  # number 0 on x86-64
        return True
    return pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, name) > 0


def _compiled(rules: Any) -> bytes:
    with tempfile.TemporaryFile() as stream:
        rules.export_bpf(stream)
        stream.seek(0)
        return stream.read()
