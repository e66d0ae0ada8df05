"""How another thread has a file open.

A descriptor of another's is not stat'ed before it is known what it is of: of a FUSE mount that
would be a request to its server, which may be the very process that asks.
"""

from __future__ import annotations

import os

from farwatch.linux.mounts import parse_mountinfo

_FLAGS, _MOUNT, _INODE = b"flags", b"mnt_id", b"ino"
_NUMBERS = {_FLAGS: 8, _MOUNT: 10, _INODE: 10}
"""What is used of /proc/PID/fdinfo/FD, and to which base it is (proc_pid_fdinfo(5))."""
_SERVED = (b"fuse", b"virtiofs")


def access_mode(thread: int, device: int, inode: int) -> int | None:
    """The access mode (O_RDONLY, O_WRONLY, O_RDWR) of a thread's open of an inode.

    The highest descriptor wins, being most often the latest.  ``device`` and ``inode``
    are a stat's.  None if the thread is gone, may not be looked at, or has it not open.
    """
    directory = f"/proc/{thread}/fd"
    try:
        numbers = sorted(map(int, os.listdir(directory)), reverse=True)
    except (OSError, ValueError):
        return None
    local: frozenset[int] | None = None
    for number in numbers:
        try:
            facts = _facts(f"/proc/{thread}/fdinfo/{number}")
            # Before Linux 5.14 the number of the inode is not told.
            if facts.get(_INODE, inode) != inode or facts[_FLAGS] & os.O_PATH:
                continue
            local = _local_mounts(thread) if local is None else local
            if facts[_MOUNT] not in local:
                continue
            status = os.stat(f"{directory}/{number}")
        except (OSError, KeyError, ValueError):
            continue
        if (status.st_dev, status.st_ino) == (device, inode):
            return facts[_FLAGS] & os.O_ACCMODE
    return None


def _facts(path: str) -> dict[bytes, int]:
    facts = {}
    with open(path, "rb") as file:
        for line in file:
            name, _, value = line.partition(b":")
            base = _NUMBERS.get(name)
            if base is not None:
                facts[name] = int(value, base)
    return facts


def _local_mounts(thread: int) -> frozenset[int]:
    """The ids of a thread's mounts that are no FUSE file system's.

    What is mounted nowhere (a detached clone) is not among them.
    """
    with open(f"/proc/{thread}/mountinfo", "rb") as file:
        found = parse_mountinfo(file.read())
    return frozenset(mount.mount_id for mount in found if not mount.fstype.startswith(_SERVED))
