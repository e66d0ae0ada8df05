"""Other processes' threads."""

from __future__ import annotations

import ctypes
import os

from farwatch.linux.libc import syscall

_tgkill = syscall(234, 131, ctypes.c_int, ctypes.c_int, ctypes.c_int)


def further_threads(pid: int) -> list[int]:
    """The ids of all threads of a process but its first."""
    return [int(thread) for thread in os.listdir(f"/proc/{pid}/task") if int(thread) != pid]


def signal_thread(pid: int, thread: int, number: int) -> None:
    """A signal to this one thread, tgkill(2)."""
    _tgkill(pid, thread, number)
