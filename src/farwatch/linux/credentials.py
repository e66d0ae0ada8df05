"""Whose files a thread makes: setfsuid(2), setfsgid(2), capabilities(7).

The kernel keeps credentials for each thread; what is set here concerns the
calling thread only.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import NamedTuple

from farwatch.linux.libc import declare, syscall

# linux/capability.h
CAP_CHOWN = 1 << 0
CAP_DAC_OVERRIDE = 1 << 1
CAP_DAC_READ_SEARCH = 1 << 2
CAP_FOWNER = 1 << 3
CAP_FSETID = 1 << 4
CAP_SETUID = 1 << 7
CAP_LINUX_IMMUTABLE = 1 << 9
CAP_SYS_ADMIN = 1 << 21
CAP_MKNOD = 1 << 27

RAISED = CAP_CHOWN | CAP_DAC_OVERRIDE | CAP_DAC_READ_SEARCH | CAP_FOWNER | CAP_MKNOD
"""What ``acting_as`` keeps effective.  Not CAP_FSETID: without it the kernel
takes set-id bits away where it would have for the user."""

_FS_LOW = RAISED | CAP_FSETID | CAP_LINUX_IMMUTABLE
_FS_HIGH = 1 << 0
"""What leaving uid 0 clears (``CAP_FS_SET``, linux/capability.h): CAP_MAC_OVERRIDE is 32."""

_VERSION = 0x20080522
"""``_LINUX_CAPABILITY_VERSION_3``: 64 bits in two halves."""
_HEADER = struct.pack("=Ii", _VERSION, 0)
_DATA = struct.Struct("=IIIIII")
_HALF = 0xFFFFFFFF
_NOBODY_CHANGES = 0xFFFFFFFF
"""An id that setfsuid(2) refuses, so that it only tells the present one."""

# glibc does no more than the system call for these two, unlike for setuid(2).
_setfsuid = declare("setfsuid", ctypes.c_uint32, checked=False)
_setfsgid = declare("setfsgid", ctypes.c_uint32, checked=False)
# glibc's setgroups changes all threads.
_setgroups = syscall(116, 159, ctypes.c_size_t, ctypes.c_char_p)
_capget = declare("capget", ctypes.c_char_p, ctypes.c_void_p)
_capset = declare("capset", ctypes.c_char_p, ctypes.c_char_p)


class Capabilities(NamedTuple):
    """A thread's capability sets, a bit ``1 << CAP_``… each."""

    effective: int
    permitted: int
    inheritable: int


def setfsuid(uid: int) -> int:
    """Set this thread's file system uid; the one before.  OSError(EPERM) if refused.

    Leaving 0 clears the file capabilities of the effective set, and coming
    back to 0 restores those that are permitted.
    """
    before: int = _setfsuid(uid) & _HALF
    if uid != before and _setfsuid(_NOBODY_CHANGES) & _HALF != uid:
        _setfsuid(before)
        raise OSError(errno.EPERM, f"setfsuid({uid}): {os.strerror(errno.EPERM)}")
    return before


def can_be_fsuids(first: int, last: int) -> bool:
    """Whether this thread may take every fsuid of a range (user_namespaces(7), uid_map)."""
    with open("/proc/self/uid_map", "rb") as file:
        extents = [tuple(map(int, line.split())) for line in file]
    if not any(start <= first and last < start + count for start, _, count in extents):
        return False
    try:
        before = setfsuid(first)
    except OSError:
        return False
    setfsuid(before)
    return True


def change_fsuid(uid: int) -> None:
    """``setfsuid`` for an id of which ``can_be_fsuids`` has said that it cannot fail."""
    _setfsuid(uid)


def setfsgid(gid: int) -> int:
    """Set this thread's file system gid; the one before.  OSError(EPERM) if refused."""
    before: int = _setfsgid(gid) & _HALF
    if gid != before and _setfsgid(_NOBODY_CHANGES) & _HALF != gid:
        _setfsgid(before)
        raise OSError(errno.EPERM, f"setfsgid({gid}): {os.strerror(errno.EPERM)}")
    return before


def setgroups(groups: Sequence[int]) -> None:
    """Set this thread's supplementary groups."""
    _setgroups(len(groups), struct.pack(f"={len(groups)}I", *groups))


def capget() -> Capabilities:
    """This thread's capabilities."""
    data = ctypes.create_string_buffer(_DATA.size)
    _capget(_HEADER, ctypes.addressof(data))
    low = _DATA.unpack(data.raw)
    return Capabilities(low[0] | low[3] << 32, low[1] | low[4] << 32, low[2] | low[5] << 32)


def capset(capabilities: Capabilities) -> None:
    """Set this thread's capabilities.  OSError(EPERM) for more than is permitted."""
    _capset(_HEADER, _packed(capabilities))


def capsetter(capabilities: Capabilities) -> Callable[[], None]:
    """``capset`` of these, made ready for who does it often."""
    packed = _packed(capabilities)

    def put() -> None:
        _capset(_HEADER, packed)

    return put


def raise_effective(capabilities: int) -> None:
    """Make these effective again, as far as they are permitted."""
    now = capget()
    capset(now._replace(effective=now.effective | capabilities & now.permitted))


def _packed(capabilities: Capabilities) -> bytes:
    return _DATA.pack(
        *(value & _HALF for value in capabilities), *(value >> 32 for value in capabilities)
    )


class _Answer(threading.local):
    """What capget fills in, for each thread its own."""

    def __init__(self) -> None:
        self.memory = ctypes.create_string_buffer(_DATA.size)
        self.address = ctypes.addressof(self.memory)


_answer = _Answer()


class Acting:
    """Another user's fsuid and fsgid, for one ``with`` on one thread."""

    __slots__ = ("_gid", "_gid_before", "_restored", "_uid", "_uid_before")

    def __init__(self, uid: int, gid: int) -> None:
        self._uid = uid
        self._gid = gid

    def __enter__(self) -> None:
        self._gid_before = setfsgid(self._gid)
        self._restored: bytes | None = None
        try:
            self._become_user()
        except BaseException:
            _setfsgid(self._gid_before)
            raise

    def _become_user(self) -> None:
        if self._uid == 0:
            self._uid_before = setfsuid(0)
            return
        answer = _answer
        _capget(_HEADER, answer.address)
        low, permitted_low, inherit_low, high, permitted_high, inherit_high = _DATA.unpack_from(
            answer.memory
        )
        before = setfsuid(self._uid)
        self._uid_before = before
        if before != 0 or permitted_low & ~low & _FS_LOW or permitted_high & ~high & _FS_HIGH:
            # The kernel will not bring back exactly what there was.
            self._restored = answer.memory.raw
        kept = low & ~(_FS_LOW & ~RAISED)
        try:
            _capset(
                _HEADER,
                _DATA.pack(
                    kept, permitted_low, inherit_low, high & ~_FS_HIGH, permitted_high, inherit_high
                ),
            )
        except BaseException:
            _setfsuid(before)
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # Coming back to uid 0 makes the kernel raise what is permitted.
        _setfsuid(self._uid_before)
        _setfsgid(self._gid_before)
        if self._restored is not None:
            _capset(_HEADER, self._restored)


class _Unchanged(Acting):
    """Acting as who one is: nothing to do, so one object serves all threads."""

    __slots__ = ()

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pass


_UNCHANGED = _Unchanged(0, 0)


def acting_as(uid: int, gid: int) -> Acting:
    """In its ``with``, what this thread makes belongs to these ids.

    Access is not checked against them: the capabilities in RAISED stay
    effective, as far as they were.  The thread's own ids are back afterwards,
    also after an exception.  Raises OSError(EPERM), having changed nothing,
    where the ids cannot be taken.

    For a thread of root's; not to be nested, since 0 and 0 mean no change.
    """
    if uid == 0 and gid == 0:
        return _UNCHANGED
    return Acting(uid, gid)
