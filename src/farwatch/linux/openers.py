"""How another thread has a file open."""

from __future__ import annotations

import os

_FLAGS = b"flags:"


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
    for number in numbers:
        try:
            status = os.stat(f"{directory}/{number}")
            if (status.st_dev, status.st_ino) == (device, inode):
                return _mode_in(f"/proc/{thread}/fdinfo/{number}")
        except OSError:
            continue
    return None


def _mode_in(path: str) -> int | None:
    with open(path, "rb") as file:
        for line in file:
            if line.startswith(_FLAGS):
                flags = int(line[len(_FLAGS) :], 8)
                return None if flags & os.O_PATH else flags & os.O_ACCMODE
    return None
