"""System calls that graded code has no business with, each tried by its number on x86-64.

They leave something behind, look at other processes, or change what the fence rests on.
"""

from __future__ import annotations

from tests.hostile.case import held

# Number, name, arguments (source). B is a buffer of 4 KiB, F a library file that is open for reading.
CALLS = (
    # memory that outlives a process, or is shared
    (29, "shmget", "0x4841, 4096, 0o1600"),
    (64, "semget", "0x4841, 1, 0o1600"),
    (68, "msgget", "0x4841, 0o1600"),
    (240, "mq_open", "b'word', 0o102, 0o600, None"),
    (319, "memfd_create", "b'word', 2"),
    (447, "memfd_secret", "0"),
    (248, "add_key", "b'user', b'word', b'1', 1, -3"),
    (249, "request_key", "b'user', b'word', None, -3"),
    (250, "keyctl", "0, -3, 1"),
    # watches, timers, handles
    (253, "inotify_init", ""),
    (294, "inotify_init1", "0"),
    (300, "fanotify_init", "0, 0"),
    (283, "timerfd_create", "1, 0"),
    (222, "timer_create", "1, None, B"),
    (282, "signalfd", "-1, B, 8"),
    (289, "signalfd4", "-1, B, 8, 0"),
    (323, "userfaultfd", "1"),
    (298, "perf_event_open", "B, 0, -1, -1, 0"),
    (321, "bpf", "0, B, 72"),
    (303, "name_to_handle_at", "-100, b'/', B, B, 0"),
    (304, "open_by_handle_at", "-100, B, 0"),
    # locks and the page cache
    (73, "flock", "F, 1"),
    (27, "mincore", "MAP, 4096, B"),
    (221, "fadvise64", "F, 0, 0, 4"),
    (187, "readahead", "F, 0, 4096"),
    (451, "cachestat", "F, (U64 * 2)(0, 4096), B, 0"),
    (327, "preadv2", "F, (U64 * 2)(BUFFER, 8), 1, 0, 0, 8"),
    (328, "pwritev2", "1, (U64 * 2)(BUFFER, 8), 1, 0, 0, 0"),
    (26, "msync", "MAP, 4096, 2"),
    (149, "mlock", "MAP, 4096"),
    (74, "fsync", "F"),
    (162, "sync", ""),
    (440, "process_madvise", "-1, B, 1, 21, 0"),
    # other processes
    (62, "kill", "1, 0"),
    (200, "tkill", "1, 0"),
    (234, "tgkill", "1, 1, 0"),
    (129, "rt_sigqueueinfo", "1, 0, B"),
    (434, "pidfd_open", "1, 0"),
    (438, "pidfd_getfd", "3, 0, 0"),
    (101, "ptrace", "16, 1, 0, 0"),
    (310, "process_vm_readv", "1, B, 0, B, 0, 0"),
    (311, "process_vm_writev", "1, B, 0, B, 0, 0"),
    (312, "kcmp", "1, 1, 0, 0, 0"),
    (141, "setpriority", "0, 0, 5"),
    (203, "sched_setaffinity", "0, 8, (U64 * 1)(1)"),
    (144, "sched_setscheduler", "0, 3, B"),
    (314, "sched_setattr", "0, B, 0"),
    (251, "ioprio_set", "1, 0, 0x6000"),
    (274, "get_robust_list", "0, B, (U64 * 1)()"),
    (99, "sysinfo", "B"),
    # the fence itself
    (272, "unshare", "0x10000000"),
    (308, "setns", "F, 0"),
    (165, "mount", "b'none', b'/', b'tmpfs', 0, None"),
    (166, "umount2", "b'/', 2"),
    (155, "pivot_root", "b'/', b'/'"),
    (161, "chroot", "b'/'"),
    (428, "open_tree", "-100, b'/', 1"),
    (442, "mount_setattr", "-100, b'/', 0, (U64 * 4)(), 32"),
    (126, "capset", "(ctypes.c_uint32 * 2)(0x20080522, 0), B"),
    (317, "seccomp", "1, 0, B"),
    (444, "landlock_create_ruleset", "None, 0, 1"),
    (160, "setrlimit", "0, (U64 * 2)(1, 1)"),
    (105, "setuid", "0"),
    (157, "prctl_pdeathsig", "1, 0, 0, 0, 0"),
    (157, "prctl_dumpable", "4, 1, 0, 0, 0"),
    # names and files
    (170, "sethostname", "b'word', 4"),
    (90, "chmod", "b'/dev/null', 0o600"),
    (132, "utime", "b'/dev/null', B"),
    (280, "utimensat", "F, None, None, 0"),
    (190, "fsetxattr", "F, b'user.word', B, 1, 0"),
    (133, "mknod", "b'TARGET/MARK', 0o10600, 0"),
    (425, "io_uring_setup", "8, B"),
    (41, "socket", "1, 1, 0"),
    (49, "bind", "3, B, 2"),
    (46, "sendmsg", "3, B, 0"),
    (47, "recvmsg", "3, B, 0"),
)
TRY = """
import ctypes
U64 = ctypes.c_uint64
libc = ctypes.CDLL(None)
B = ctypes.create_string_buffer(4096)
BUFFER = ctypes.addressof(B)
F = os.open(os.__file__, os.O_RDONLY)
libc.mmap.restype = ctypes.c_void_p
MAP = ctypes.c_void_p(libc.mmap(None, 4096, 1, 2, F, 0))
assert libc.syscall(ARGUMENTS) >= 0
"""

for number, name, arguments in CALLS:
    full = f"{number}, {arguments}" if arguments else str(number)
    held("calls", name, "import os" + TRY.replace("ARGUMENTS", full))
