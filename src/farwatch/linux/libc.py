"""The C library, for the system calls that Python's ``os`` lacks.

Functions are declared once, when the module that needs them is imported, each
as an object of its own: two modules may declare one name differently.  A call
releases the GIL.  Unlike in ``os``, a call that a signal interrupts is not
repeated: it raises InterruptedError.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from functools import cache
from typing import Any, NoReturn

_MACHINES = {"x86_64": 0, "aarch64": 1}


@cache
def libc() -> ctypes.CDLL:
    """The C library of this process; it keeps a copy of errno for each thread."""
    return ctypes.CDLL(None, use_errno=True)


def fail(filename: str | bytes | None = None) -> NoReturn:
    """Raise the OSError for the errno that this thread's last call left."""
    number = ctypes.get_errno()
    if filename is None or filename == b"":
        raise OSError(number, os.strerror(number))
    raise OSError(number, os.strerror(number), filename)


def check(result: int, func: object, args: tuple[Any, ...]) -> int:
    """``errcheck`` of a ctypes function: a negative result becomes an OSError."""
    if result < 0:
        fail()
    return result


def declare(
    name: str, *arguments: Any, result: Any = ctypes.c_int, checked: bool = True
) -> Callable[..., Any]:
    """A function of the C library.

    With ``checked`` a negative result raises OSError.  Hot callers test the
    result themselves: that spares a Python call and knows the file's name.
    """
    prototype = ctypes.CFUNCTYPE(result, *arguments, use_errno=True)
    function: Any = prototype((name, libc()))
    if checked:
        function.errcheck = check
    return function  # type: ignore[no-any-return]


def syscall(x86_64: int, aarch64: int, *arguments: Any) -> Callable[..., int]:
    """A raw system call by its number on each machine; checked.

    For calls that the C library lacks, or does to all threads at once.
    Numbers from 424 on are the same on both (``asm/unistd.h``).  On any other
    machine calling it raises OSError(ENOSYS).
    """
    machine = _MACHINES.get(os.uname().machine)
    number = -1 if machine is None else (x86_64, aarch64)[machine]
    call = declare("syscall", ctypes.c_long, *arguments, result=ctypes.c_long)

    def numbered(*values: Any) -> int:
        return call(number, *values)  # type: ignore[no-any-return]

    return numbered
