"""A worker's own view of the machine, made without bubblewrap: namespaces(7). Standard library only.

The process enters a user namespace, where it may mount, and others that cut it off from network, names and
shared memory. Then it puts together a file system of the readable paths alone, read-only, and makes that its
root. On a read-only mount no access time changes either.

A user namespace also lets it give every run a process number space of its own, where the run is process 1 and
numbers its threads from 2: no run can then count what earlier ones have started, and what it starts ends with
it.
"""

from __future__ import annotations

import ctypes
import os
import struct

from hackward.grading.fences import die_with_parent, libc, succeeded

# clone(2), unshare(2)
CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC = 0x20000, 0x2000000, 0x4000000, 0x8000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
CUT_OFF = (
    CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET | CLONE_NEWPID
)
# mount(2)
MS_NOSUID, MS_NODEV, MS_REC, MS_PRIVATE = 2, 4, 1 << 14, 1 << 18
# open_tree(2), move_mount(2), mount_setattr(2): the same numbers on every architecture
OPEN_TREE, MOVE_MOUNT, MOUNT_SETATTR = 428, 429, 442
OPEN_TREE_CLONE, AT_RECURSIVE, AT_EMPTY_PATH, MOVE_MOUNT_F_EMPTY_PATH = 1, 0x8000, 0x1000, 4
MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID = 1, 2
AT_FDCWD = -100
HOST = b"localhost"  # what the machine is called in a view
PLACE = "/proc"  # where the new root is put together: a directory that every Linux has


def cut_off() -> None:
    """Go on in namespaces of one's own, as the same user. OSError where the machine does not allow that.

    It is a fork that goes on, process 1 of its own number space; this process waits for its end, and ends.
    """
    user, group = os.geteuid(), os.getegid()
    succeeded(libc.unshare(CUT_OFF), "namespaces")
    for file, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{user} {user} 1"),
        ("gid_map", f"{group} {group} 1"),
    ):
        with open(f"/proc/self/{file}", "w") as stream:
            stream.write(text)
    succeeded(libc.sethostname(HOST, len(HOST)), "host name")
    die_with_parent()
    pid = os.fork()
    if pid:
        os.closerange(0, 1 << 16)
        os.waitpid(pid, 0)
        os._exit(0)


def see_only(paths: list[str], without: list[str]) -> None:
    """Make a read-only file system of these paths the root, with empty folders in the place of `without`.

    For a process that is cut off. OSError where the kernel is too old (before 5.12).
    """
    succeeded(libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None), "mount")
    trees = [(path, _copied_tree(path)) for path in paths if not _inside(path, without)]
    late = [(path, _copied_tree(path)) for path in paths if _inside(path, without)]
    empty_directory(PLACE)
    for path, tree in trees:
        _attach(tree, path)
    for path in without:
        empty_directory(PLACE + path)
    for path, tree in late:
        _attach(tree, path)
    for path in ("", *without):
        _read_only(AT_FDCWD, (PLACE + path).encode(), 0)
    os.chroot(PLACE)
    os.chdir("/")


def own_process_numbers() -> None:
    """Let the next fork be process 1 of a number space of its own. OSError where that is not to be had."""
    succeeded(libc.unshare(CLONE_NEWPID), "process numbers")


def same_process_numbers(home: int) -> None:
    """Let the next fork be in the number space of this process. `home`: a pidfd of this process.

    Until then it can start no thread, and no second number space.
    """
    succeeded(libc.setns(home, CLONE_NEWPID), "process numbers")


def empty_directory(path: str) -> None:
    """Cover a directory with an empty one."""
    options = ctypes.c_char_p(b"mode=0755,size=1m")
    result = libc.mount(b"tmpfs", path.encode(), b"tmpfs", MS_NOSUID | MS_NODEV, options)
    succeeded(result, f"empty {path}")


def hide(path: str) -> None:
    """Cover a directory with an empty one that stays empty."""
    empty_directory(path)
    _read_only(AT_FDCWD, path.encode(), 0)


def _inside(path: str, folders: list[str]) -> bool:
    return any(path.startswith(folder + "/") for folder in folders)


def _copied_tree(path: str) -> int:
    """A read-only copy of the mounts at a path, attached nowhere, as a descriptor."""
    flags = OPEN_TREE_CLONE | AT_RECURSIVE | os.O_CLOEXEC
    tree = succeeded(libc.syscall(OPEN_TREE, AT_FDCWD, path.encode(), flags), f"mount of {path}")
    _read_only(tree, b"", AT_EMPTY_PATH | AT_RECURSIVE)
    return tree


def _read_only(directory: int, path: bytes, flags: int) -> None:
    attributes = struct.pack("<4Q", MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID, 0, 0, 0)
    result = libc.syscall(MOUNT_SETATTR, directory, path, flags, attributes, len(attributes))
    succeeded(result, "read-only mount")


def _attach(tree: int, path: str) -> None:
    """Put a copied tree where its path is under the new root; it is closed."""
    target = PLACE + path
    if os.path.isdir(path):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o444))
    result = libc.syscall(MOVE_MOUNT, tree, b"", AT_FDCWD, target.encode(), MOVE_MOUNT_F_EMPTY_PATH)
    succeeded(result, f"mount of {path}")
    os.close(tree)
